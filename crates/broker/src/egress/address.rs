//! Which addresses no warrant may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` is not on the public internet: this machine, private networks, link-local (where clouds keep their
/// metadata), shared, benchmark, documentation, multicast and reserved ranges, and every IPv6 form that carries such an
/// IPv4 address (RFC 6890 and the IANA special-purpose registries). What is not known to be public is forbidden.
pub(crate) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => is_forbidden_v6(address),
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // This network, private, loopback, multicast, reserved and broadcast.
        (0 | 10 | 127 | 224..=255, _, _) => true,
        // Shared between providers' customers.
        (100, 64..=127, _) => true,
        // Link-local; the metadata service of most clouds.
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        // Protocol assignments, documentation, the old 6to4 relay.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        (192, 168, _) => true,
        // Benchmarks.
        (198, 18 | 19, _) => true,
        // Documentation.
        (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    }
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = segments;
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_forbidden_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (s0, s1, s2, s3, s4, s5) {
        // NAT64: reaches the IPv4 address that it carries.
        (0x64, 0xff9b, 0, 0, 0, 0) => embedded(s6, s7),
        // 6to4 carries one as well.
        (0x2002, ..) => embedded(s1, s2),
        // Teredo, ORCHID, benchmarks and other assignments; documentation.
        (0x2001, 0..=0x01ff, ..) | (0x2001, 0x0db8, ..) | (0x3fff, 0..=0x0fff, ..) => true,
        // Only 2000::/3 is given out as global unicast. This leaves out ::, ::1, mapped IPv4, fc00::/7, fe80::/10,
        // ff00::/8 and the local NAT64 prefix.
        _ => s0 & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_public_addresses_pass() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
            "2002:808:808::",
        ] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv6_form_reaches_no_more_than_its_ipv4_address(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            if is_forbidden(IpAddr::V4(v4)) {
                let nat64 = Ipv6Addr::from_bits((0x64_ff9b_u128 << 96) | u128::from(bits));
                prop_assert!(is_forbidden(IpAddr::V6(nat64)));
                prop_assert!(is_forbidden(IpAddr::V6(v4.to_ipv6_mapped())));
                let six_to_four = Ipv6Addr::from_bits((0x2002_u128 << 112) | (u128::from(bits) << 80));
                prop_assert!(is_forbidden(IpAddr::V6(six_to_four)));
            }
        }
    }
}
