//! How a command's end, and the failure to begin, is told.

use tipstaff_sandbox::{ExitCause, SandboxError, SandboxSpec, Workspace};

use crate::support::{identity, run, said, sandbox, script};

fn refusal(spec: &SandboxSpec) -> SandboxError {
    sandbox().start(spec).expect_err("must be refused")
}

#[test]
fn the_exit_code_comes_through() {
    for code in [0, 1, 42, 127] {
        let output = run(&script(Workspace::Empty, &format!("exit {code}")));
        assert_eq!((output.exit.code, output.exit.signal), (code, None));
        assert_eq!(output.exit.cause, ExitCause::Exited);
    }
}

#[test]
fn a_signal_is_told_as_one() {
    let output = run(&script(Workspace::Empty, "kill -SEGV $$"));
    assert_eq!((output.exit.code, output.exit.signal), (139, Some(11)));
    assert_eq!(output.exit.cause, ExitCause::Signalled);
}

#[test]
fn waiting_again_gives_the_same_answer() {
    let mut running = sandbox().start(&script(Workspace::Empty, "exit 7")).unwrap();
    let first = running.wait().unwrap();
    assert_eq!(running.wait().unwrap(), first);
    assert_eq!(running.try_wait().unwrap(), Some(first));
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().cause, ExitCause::Exited, "a kill after the end changes nothing");
}

#[test]
fn the_pidfd_becomes_readable_at_the_end() {
    let mut running = sandbox().start(&script(Workspace::Empty, "read line")).unwrap();
    running.kill().unwrap();
    let mut watched =
        [rustix::event::PollFd::from_borrowed_fd(running.pidfd(), rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut watched, Some(&now)), Ok(1));
}

#[test]
fn a_command_that_is_not_there_is_an_error_not_an_exit() {
    for program in ["no-such-program", "/usr/bin/no-such-program", "/etc/passwd"] {
        let error = refusal(&SandboxSpec::new(identity(), Workspace::Empty, [program]));
        assert_eq!(error.code(), "sandbox-command-unusable", "{error}");
        assert!(error.to_string().contains(program));
    }
}

#[test]
fn the_program_is_looked_up_inside() {
    assert!(run(&SandboxSpec::new(identity(), Workspace::Empty, ["true"])).exit.success());
}

#[test]
fn a_description_that_contradicts_itself_is_refused_before_anything_starts() {
    let empty = SandboxSpec::new(identity(), Workspace::Empty, Vec::<String>::new());
    let mut relative = script(Workspace::Empty, "true");
    relative.cwd = "work".into();
    let missing = script(Workspace::Directory { path: "/no/such/directory".into() }, "true");
    let file = script(Workspace::Directory { path: "/etc/passwd".into() }, "true");
    for spec in [empty, relative, missing, file] {
        assert_eq!(refusal(&spec).code(), "sandbox-spec-invalid");
    }
    let mut elsewhere = script(Workspace::Empty, "true");
    elsewhere.cwd = "/no/such".into();
    assert_eq!(refusal(&elsewhere).code(), "sandbox-spec-invalid");
}

#[test]
fn a_credential_is_refused_as_a_variable() {
    let mut spec = script(Workspace::Empty, "true");
    spec.env.push(("ANTHROPIC_API_KEY".into(), "sk-ant-something".into()));
    let error = refusal(&spec);
    assert_eq!(error.code(), "sandbox-environment-refused");
    assert!(!error.to_string().contains("sk-ant"), "the value is not repeated");
}

#[test]
fn the_variables_are_the_allowed_ones_and_no_other() {
    let mut spec =
        script(Workspace::Empty, "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; echo $http_proxy");
    spec.env.push(("http_proxy".into(), "http://127.0.0.1:8080".into()));
    let output = run(&spec);
    let mut lines = output.stdout.lines();
    assert_eq!(
        lines.next().unwrap().trim(),
        "GIT_CONFIG_NOSYSTEM GIT_TERMINAL_PROMPT HOME LANG LOGNAME PATH PWD SHELL TERM TMPDIR TZ USER http_proxy"
    );
    assert_eq!(lines.next(), Some("http://127.0.0.1:8080"));
}

#[test]
fn the_user_inside_is_agent() {
    assert_eq!(
        said("id -un; id -u; id -g; echo $HOME; pwd; hostname"),
        "agent\n1000\n1000\n/home/agent\n/work\nsandbox\n"
    );
}

#[test]
fn broken_pipes_end_writers_as_everywhere() {
    let output = run(&script(Workspace::Empty, "( yes; echo $? >&2 ) | head -1"));
    assert_eq!(output.stdout, "y\n");
    assert_eq!(output.stderr.trim(), "141", "SIGPIPE has its default action inside");
}
