//! System calls that open kernel surface.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case(
        "A16",
        "setns into pid 1",
        r#"python3 -c '$PYTHON
f=os.open("/proc/1/ns/net",0);r=s(308,f,0);sys.exit(0 if r==0 else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "A17",
        "chroot to a prepared directory",
        r#"mkdir -p /tmp/j && python3 -c 'import os;os.chroot("/tmp/j")'"#,
        Bare::NotRun,
    ),
    case(
        "A18",
        "ptrace",
        r#"python3 -c '$PYTHON
r=s(101,0,0,0,0);sys.exit(0 if r==0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "A19",
        "io_uring_setup",
        r#"python3 -c '$PYTHON
r=s(425,1,b(256));sys.exit(0 if r>=0 else 1)'"#,
        Bare::SucceedsIf("/proc/sys/kernel/io_uring_disabled", "0"),
    ),
    case(
        "A20",
        "kernel keyring: join session and add a key",
        r#"python3 -c '$PYTHON
r=s(248,b"user",b"warrant",b"x",1,-3);q=s(250,1,None);sys.exit(0 if r>=0 or q>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case("A22", "kernel log", "dmesg >/dev/null", Bare::NotRun),
    case(
        "B20",
        "x32 calls",
        r#"python3 -c '$PYTHON
r=s(0x40000027);sys.exit(0 if r>=0 else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "B21",
        "32-bit calls from 64-bit code",
        r#"python3 -c '$PYTHON
import mmap
m=mmap.mmap(-1,4096,prot=7);m.write(bytes.fromhex("b814000000cd80c3"))
f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)));sys.exit(0 if f()>0 else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "B22",
        "userfaultfd, bpf and perf events",
        r#"python3 -c '$PYTHON
r=[s(323,1),s(321,0,b(120),120),s(298,b(bytes([1,0,0,0,128])+bytes(123)),0,-1,-1,0)];sys.exit(0 if max(r)>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B23",
        "personality without address randomization",
        r#"python3 -c '$PYTHON
sys.exit(0 if s(135,0x40000)>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B24",
        "a handle of a file",
        r#"python3 -c '$PYTHON
h=b(bytes([128,0,0,0])+bytes(140));m=ctypes.c_int();sys.exit(0 if s(303,-100,b"/usr",h,ctypes.byref(m),0)==0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B25",
        "a descriptor out of another process",
        r#"python3 -c '$PYTHON
p=s(434,os.getpid(),0);sys.exit(0 if s(438,p,0,0)>=0 or s(312,os.getpid(),os.getpid(),0,0,1)>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case("B26", "the clock", "date -s @0 || python3 -c 'import time;time.clock_settime(0,0)'", Bare::NotRun),
    case(
        "B27",
        "openat2 with a mode that openat may not have",
        r#"cd $(mktemp -d) && python3 -c '$PYTHON
import struct
r=s(437,-100,b"x",struct.pack("<3Q",os.O_CREAT|os.O_WRONLY,0o4755,0),24);sys.exit(0 if r>=0 and os.stat("x").st_mode&0o4000 else 1)'"#,
        Bare::Succeeds,
    ),
];

#[test]
fn every_attack_by_system_calls_fails() {
    all_must_fail(CASES);
}
