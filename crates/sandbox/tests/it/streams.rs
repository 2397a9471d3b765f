//! Standard streams and terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use tipstaff_sandbox::{Stdio, StdioPolicy, Workspace};

use crate::support::{finish, sandbox, script};

#[test]
fn piped_streams_carry_both_ways_and_end() {
    let mut spec = script(Workspace::Empty, "cat; echo done >&2");
    spec.stdio = StdioPolicy::PIPED;
    let mut running = sandbox().start(&spec).unwrap();
    let mut stdin = File::from(running.stdin.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    drop(stdin);
    let output = finish(running);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello\n", "done\n"));
}

#[test]
fn null_streams_are_null() {
    let mut spec = script(Workspace::Empty, "cat; echo lost; readlink /proc/self/fd/0 >&2");
    spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Pipe };
    let mut running = sandbox().start(&spec).unwrap();
    assert!(running.stdout.is_none() && running.stdin.is_none());
    let mut said = String::new();
    File::from(running.stderr.take().unwrap()).read_to_string(&mut said).unwrap();
    assert_eq!(said, "/dev/null\n");
    assert!(running.wait().unwrap().success());
}

#[test]
fn a_pipe_ends_with_the_command_though_our_own_processes_go_on() {
    // Neither bubblewrap's monitor nor the namespace's first process may hold the command's streams.
    let spec = script(Workspace::Empty, "exec >&- 2>&-; sleep 1000");
    let mut running = sandbox().start(&spec).unwrap();
    let mut rest = Vec::new();
    File::from(running.stdout.take().unwrap()).read_to_end(&mut rest).unwrap();
    File::from(running.stderr.take().unwrap()).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(running.try_wait().unwrap(), None, "the command still runs");
    running.kill().unwrap();
}

/// A terminal of the test's own: its master, and the slave that a command gets.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (master, slave)
}

/// Not a test by itself: what the next one starts with a terminal as its standard streams.
#[test]
fn inner_run_on_inherited_streams() {
    let Some(text) = std::env::var_os("TIPSTAFF_TEST_INHERIT") else { return };
    let mut spec = script(Workspace::Empty, text.to_str().unwrap());
    spec.stdio = StdioPolicy::INHERITED;
    let exit = sandbox().start(&spec).unwrap().wait().unwrap();
    assert_eq!(exit.code, 7);
}

#[test]
fn an_inherited_terminal_works_and_cannot_be_turned_against_its_owner() {
    let (master, slave) = terminal();
    // It is a terminal, not the controlling one; no input can be pushed into it; it cannot become ours.
    let text = "test -t 0 && test -t 1 || exit 1; (: </dev/tty) 2>/dev/null && exit 2; \
         python3 -c 'import fcntl,sys,os
for request,argument in ((0x5412,b\"x\"),(0x541c,b\"\\x02\"),(0x5423,b\"\\0\\0\\0\\0\")):
  try: fcntl.ioctl(0,request,argument); sys.exit(3)
  except OSError: pass
os._exit(0)' || exit 3; echo from inside; exit 7";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "streams::inner_run_on_inherited_streams", "--nocapture", "--test-threads", "1"])
        .env("TIPSTAFF_TEST_INHERIT", text)
        .stdin(slave.try_clone().unwrap())
        .stdout(slave)
        .status()
        .unwrap();
    // The kernel hands a terminal's output over piece by piece; its end is an error, once no slave is open any more.
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = rustix::io::read(&master, &mut piece) {
        said.extend_from_slice(&piece[..count]);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(status.success(), "{said}");
    assert!(said.contains("from inside"), "{said}");
}
