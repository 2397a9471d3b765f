//! Standard streams and terminals.

use std::fs::File;
use std::io::{Read, Write};

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
