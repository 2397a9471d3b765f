//! What the launcher knows: its environment, its descriptors, its memory.

use super::case::{Bare, Case, all_must_fail, case};
use crate::SECRET;

pub(super) const CASES: &[Case] = &[
    case(
        "A05",
        "launcher environment via /proc/*/environ",
        r#"cat /proc/[0-9]*/environ 2>/dev/null | tr "\0" "\n" | grep -a "^SECRET_TOKEN=""#,
        Bare::Succeeds,
    ),
    case(
        "A06",
        "any inherited descriptor above 2",
        r#"python3 -c 'import os,sys
bad=[]
for f in range(3,1024):
  try: os.fstat(f); bad.append(f)
  except OSError: pass
print(bad); sys.exit(0 if bad else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "A34",
        "real credentials in the environment",
        r#"env | grep -E "(TOKEN|SECRET|PASSWORD|API_KEY|AUTH_SOCK|CREDENTIAL)" | grep -v placeholder"#,
        Bare::Succeeds,
    ),
    case(
        "B13",
        "the first process's files",
        "cat /proc/1/environ || head -c 9 /proc/1/maps | grep -q . || ls /proc/1/root/ || ls /proc/1/cwd/ || \
         ls -l /proc/1/fd | grep -q -e '->' || readlink /proc/1/exe",
        Bare::NotRun,
    ),
    case(
        "B14",
        "the first process's memory",
        r#"python3 -c '$PYTHON
class V(ctypes.Structure): _fields_=[("p",ctypes.c_void_p),("n",ctypes.c_size_t)]
t=b(8);v=V(ctypes.addressof(t),8);r=s(310,1,ctypes.byref(v),1,ctypes.byref(v),1,0)
try: open("/proc/1/mem","rb"); r=0
except OSError: pass
sys.exit(0 if r>=0 else 1)'"#,
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_on_secrets_fails() {
    // The launcher is sloppy on purpose: see `main.rs`.
    assert!(std::env::var_os(SECRET).is_some());
    let environment = std::fs::read("/proc/self/environ").unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("SECRET_TOKEN=CANARY"));
    let leaked = (3..64).any(|number| {
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:\t")).map(str::to_owned);
        flags.is_some_and(|flags| u32::from_str_radix(&flags, 8).is_ok_and(|flags| flags & 0o2_000_000 == 0))
    });
    assert!(leaked, "a descriptor without close-on-exec is held");
    all_must_fail(CASES);
}
