//! git's packet lines (gitprotocol-common): four hexadecimal digits of length, then the payload.

/// The largest packet, its four digits included.
pub const LARGEST: usize = 65_520;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0000`.
    Flush,
    /// `0001`.
    Delimiter,
    /// `0002`.
    ResponseEnd,
    /// A payload, perhaps empty.
    Data(&'a [u8]),
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketError {
    /// The input ends within a packet; more bytes may complete it.
    Incomplete,
    /// The length is not four hexadecimal digits, or one that no packet has.
    Length,
}

/// Reads the first packet; the second value is what follows it.
///
/// # Errors
/// [`PacketError`].
pub fn first(input: &[u8]) -> Result<(Packet<'_>, &[u8]), PacketError> {
    let Some((digits, rest)) = input.split_at_checked(4) else {
        // Bytes that can't be the start of a length are wrong now, however much follows.
        return Err(if input.iter().all(u8::is_ascii_hexdigit) {
            PacketError::Incomplete
        } else {
            PacketError::Length
        });
    };
    match length(digits).ok_or(PacketError::Length)? {
        0 => Ok((Packet::Flush, rest)),
        1 => Ok((Packet::Delimiter, rest)),
        2 => Ok((Packet::ResponseEnd, rest)),
        3 => Err(PacketError::Length),
        total if total > LARGEST => Err(PacketError::Length),
        total => {
            let (payload, rest) = rest.split_at_checked(total - 4).ok_or(PacketError::Incomplete)?;
            Ok((Packet::Data(payload), rest))
        }
    }
}

fn length(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value * 16 + usize::try_from(digit).ok()?)
    })
}

/// Appends a packet with `payload`, which is cut to what a packet holds.
pub fn write(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = payload.get(..LARGEST - 4).unwrap_or(payload);
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends a flush packet.
pub fn write_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends `payload` in packets of side-band channel `channel` (1 data, 2 progress, 3 fatal error).
pub fn write_band(out: &mut Vec<u8>, channel: u8, payload: &[u8]) {
    for chunk in payload.chunks(LARGEST - 5) {
        let mut packet = Vec::with_capacity(chunk.len() + 1);
        packet.push(channel);
        packet.extend_from_slice(chunk);
        write(out, &packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_packets_and_bad_lengths() {
        assert_eq!(first(b"0000x"), Ok((Packet::Flush, &b"x"[..])));
        assert_eq!(first(b"0001"), Ok((Packet::Delimiter, &b""[..])));
        assert_eq!(first(b"0004"), Ok((Packet::Data(b""), &b""[..])));
        assert_eq!(first(b"0003"), Err(PacketError::Length));
        assert_eq!(first(b"fff1"), Err(PacketError::Length));
        assert_eq!(first(b"+005a"), Err(PacketError::Length));
        assert_eq!(first(b"zz"), Err(PacketError::Length));
        assert_eq!(first(b"00"), Err(PacketError::Incomplete));
        assert_eq!(first(b"0006a"), Err(PacketError::Incomplete));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(payload in prop::collection::vec(any::<u8>(), 0..2000), rest in any::<[u8; 3]>()) {
            let mut out = Vec::new();
            write(&mut out, &payload);
            out.extend_from_slice(&rest);
            prop_assert_eq!(first(&out), Ok((Packet::Data(&payload), &rest[..])));
        }

        #[test]
        fn a_packet_never_grows(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((packet, rest)) = first(&bytes) {
                let payload = if let Packet::Data(payload) = packet { payload.len() } else { 0 };
                prop_assert_eq!(4 + payload + rest.len(), bytes.len());
            }
        }
    }
}
