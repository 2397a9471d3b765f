//! Terminals.

use super::case::{Bare, Case, all_must_fail, case};

const LEGACY: Bare = Bare::SucceedsIf("/proc/sys/dev/tty/legacy_tiocsti", "1");

pub(super) const CASES: &[Case] = &[
    case(
        "A21",
        "TIOCSTI push-back into the controlling terminal",
        r#"python3 -c 'import os,pty,sys
p,f=pty.fork()
if p==0:
  import fcntl,termios
  try: fcntl.ioctl(0,0x5412,b"x"); os._exit(0)
  except OSError: os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(p,0)[1]))'"#,
        LEGACY,
    ),
    case(
        "B28",
        "TIOCSTI with a bit above the 32nd set",
        r#"python3 -c '$PYTHON
import pty
p,f=pty.fork()
if p==0: os._exit(0 if s(16,0,ctypes.c_ulong(0x100005412),b(b"x"))==0 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(p,0)[1]))'"#,
        LEGACY,
    ),
    case(
        "B29",
        "another line discipline, and the console's own requests",
        r#"python3 -c '$PYTHON
import pty
p,f=pty.fork()
if p==0: os._exit(0 if s(16,0,0x5423,ctypes.byref(ctypes.c_int(0)))==0 or s(16,0,0x541c,b(bytes([2])))==0 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(p,0)[1]))'"#,
        Bare::Succeeds,
    ),
    case(
        "B30",
        "the host's terminals",
        "ls /dev/pts | grep -v ptmx | grep -q . || ls /dev/tty? /dev/console /dev/vd* /dev/sd* 2>/dev/null | grep -q .",
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_on_terminals_fails() {
    all_must_fail(CASES);
}
