//! The one way out: a socket bound inside, accepted outside.

use std::io::{Read, Write};

use tipstaff_sandbox::Workspace;

use crate::support::{finish, has_program, run, sandbox, script, with_broker};

#[test]
fn what_connects_inside_arrives_outside() {
    if !has_program("bash") {
        panic!("this test needs bash, which every supported system has");
    }
    let text = "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; echo ping >&3; cat <&3'";
    let mut running = sandbox().start(&with_broker(script(Workspace::Empty, text))).unwrap();
    let listener = running.listener.take().unwrap();
    assert_eq!(listener.local_addr().unwrap().to_string(), "127.0.0.1:8080");
    let (mut stream, _) = listener.accept().unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping\n");
    stream.write_all(b"pong\n").unwrap();
    drop(stream);
    assert_eq!(finish(running).stdout, "pong\n");
}

#[test]
fn every_sandbox_has_its_own_port_8080() {
    let spec = with_broker(script(Workspace::Empty, "sleep 100"));
    let one = sandbox().start(&spec).unwrap();
    let two = sandbox().start(&spec).unwrap();
    assert!(one.listener.is_some() && two.listener.is_some());
}

#[test]
fn without_a_broker_nothing_listens_and_nothing_is_reachable() {
    let output = run(&script(
        Workspace::Empty,
        "tail -n +2 /proc/net/tcp | wc -l; tail -n +2 /proc/net/route | wc -l",
    ));
    assert_eq!(output.stdout, "0\n0\n");
}

#[test]
fn the_command_cannot_take_the_listener_back() {
    let text =
        "ls -l /proc/self/fd | grep -c socket; bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080' && echo connected";
    let mut running = sandbox().start(&with_broker(script(Workspace::Empty, text))).unwrap();
    let listener = running.listener.take().unwrap();
    let accepted = listener.accept();
    let output = finish(running);
    assert!(accepted.is_ok());
    assert_eq!(output.stdout, "0\nconnected\n");
}
