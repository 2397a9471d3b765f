//! Capabilities, users and user namespaces.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case(
        "A12",
        "any capability in any set",
        r#"grep -Eq "Cap(Inh|Prm|Eff|Bnd|Amb):\s0*[1-9a-f]" /proc/self/status"#,
        Bare::Succeeds,
    ),
    case(
        "A13",
        "setuid program",
        "su -c true root </dev/null || sudo -n true || ( newgrp - root </dev/null && id -u | grep -qx 0 )",
        Bare::NotRun,
    ),
    case(
        "A14",
        "real uid 0 inside or mapped outside",
        r#"[ $(id -u) = 0 ] || awk "{exit !(\$2==0 && \$1==0)}" /proc/self/uid_map"#,
        Bare::NotRun,
    ),
    case("A15", "nested user namespace", "unshare -Ur true", Bare::Succeeds),
    case(
        "B15",
        "nested user namespace by clone3",
        r#"python3 -c '$PYTHON
import struct
a=struct.pack("<11Q",0x10000000,0,0,0,17,0,0,0,0,0,0);r=s(435,a,88)
if r==0: os._exit(0)
sys.exit(0 if r>0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B16",
        "nested user namespace by clone, with a high bit set",
        r#"python3 -c '$PYTHON
for f in (0x10000011,0x110000011):
  r=s(56,ctypes.c_ulong(f),0,0,0,0)
  if r==0: os._exit(0)
  if r>0: sys.exit(0)
sys.exit(1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B17",
        "raised limits and a lowered out-of-memory score",
        r#"bash -c 'ulimit -Hn 500000 || ulimit -Hu 100000 || ulimit -Hc 1 || ulimit -Hf unlimited || echo -1000 >/proc/self/oom_score_adj'"#,
        Bare::NotRun,
    ),
    case("B18", "real-time priority", "chrt -f 50 true || chrt -r 1 true", Bare::NotRun),
    case(
        "B19",
        "another user or group",
        r#"python3 -c '$PYTHON
r=0
for f in (lambda:os.setuid(0),lambda:os.setgid(0),lambda:os.setgroups([0]),lambda:os.seteuid(65534)):
  try: f(); r=1
  except OSError: pass
sys.exit(0 if r else 1)'"#,
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_for_privilege_fails() {
    all_must_fail(CASES);
}
