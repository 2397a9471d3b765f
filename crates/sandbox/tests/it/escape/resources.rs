//! More of the machine than the limits give.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case(
        "A38",
        "3000 processes",
        "python3 -c 'import os,time,sys
n=0
try:
  for i in range(3000):
    if os.fork()==0: time.sleep(4); os._exit(0)
    n+=1
except OSError: print(n); sys.exit(1)'",
        Bare::NotRun,
    ),
    case("A39", "fill /tmp", "dd if=/dev/zero of=/tmp/f bs=1M count=400 2>/dev/null", Bare::NotRun),
    case(
        "A40",
        "huge sparse file in the workspace",
        "truncate -s 100G /work/huge && rm /work/huge",
        Bare::NotRun,
    ),
    case("B40", "fill /dev/shm", "dd if=/dev/zero of=/dev/shm/f bs=1M count=80 2>/dev/null", Bare::NotRun),
    case("B41", "fill the home", "dd if=/dev/zero of=$HOME/f bs=1M count=80 2>/dev/null", Bare::NotRun),
    case(
        "B42",
        "10000 open files",
        r#"python3 -c 'import os
for i in range(10000): os.open("/dev/null",0)'"#,
        Bare::NotRun,
    ),
    case(
        "B43",
        "3000 threads",
        r#"python3 -c 'import threading,time
for i in range(3000): threading.Thread(target=time.sleep,args=(3,),daemon=True).start()
import os;os._exit(0)'"#,
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_on_resources_fails() {
    all_must_fail(CASES);
}
