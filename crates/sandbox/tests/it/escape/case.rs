//! What a case is, and how a class of them is run.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tipstaff_sandbox::{Access, ExecPolicy};

use super::canary::{Canary, canary};
use crate::support::{Layered, is_root, run, script, with_broker};

/// What the attack does where nothing stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// It succeeds.
    Succeeds,
    /// It succeeds when the machine allows it: a file of /proc and the text that it must hold.
    SucceedsIf(&'static str, &'static str),
    /// It is not run without a sandbox: it would harm the machine, need root, or have no meaning there.
    NotRun,
}

#[derive(Debug)]
pub(super) struct Case {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) script: &'static str,
    pub(super) bare: Bare,
}

pub(super) const fn case(id: &'static str, title: &'static str, script: &'static str, bare: Bare) -> Case {
    Case { id, title, script, bare }
}

/// The Python beginning of the cases that make raw system calls.
const PYTHON: &str = "import ctypes,os,sys,socket;l=ctypes.CDLL(None,use_errno=True);s=l.syscall;s.restype=ctypes.c_long;\
b=ctypes.create_string_buffer;e=ctypes.get_errno";

impl Case {
    /// The script with the canaries' names put in.
    pub(super) fn text(&self, canary: &Canary) -> String {
        self.script
            .replace("$PYTHON", PYTHON)
            .replace("$ABSTRACT", &canary.abstract_name)
            .replace("$SHMKEY", &format!("{:#010x}", canary.shared_memory_key))
            .replace("$SHMFILE", &canary.shared_file.display().to_string())
            .replace("$PORT4", &canary.port_v4.to_string())
            .replace("$PORT6", &canary.port_v6.map_or_else(|| "1".into(), |port| port.to_string()))
            .replace("$HPID", &canary.process.to_string())
            .replace("$C/", &format!("{}/", canary.directory.display()))
            .replace("$P", "http://127.0.0.1:8080")
    }
}

/// Runs every case under both kinds of warrant; panics with the names of those that succeeded.
pub(super) fn all_must_fail(cases: &[Case]) {
    let canary = canary();
    let mut escaped = Vec::new();
    for case in cases {
        for (access, exec) in
            [(Access::ReadWrite, ExecPolicy::Any), (Access::ReadOnly, ExecPolicy::InstalledOnly)]
        {
            let layered = Layered::new();
            std::fs::write(layered.lower().join("f.txt"), "file\n").unwrap();
            let host = layered.directory.path().display().to_string();
            let text = case.text(canary).replace("$HOSTPATH", &host);
            let mut spec = with_broker(script(layered.workspace(), &text));
            spec.access = access;
            spec.exec = exec;
            let output = run(&spec);
            if output.exit.code == 0 {
                escaped.push(format!("{} {} ({access:?}): {output:?}", case.id, case.title));
            }
            // A tool that is not there must not make an attack look refused.
            assert!(!output.stderr.contains("not found") || case.id == "A13", "{}: {output:?}", case.id);
            canary.assert_unharmed(case.id);
        }
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

/// Runs a script with no sandbox, as an ordinary user, in a directory of its own. Gives its exit code.
pub(super) fn bare(text: &str, directory: &std::path::Path) -> Option<i32> {
    const UID: u32 = 1500;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", text])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", directory)
        .env("TMPDIR", directory);
    if is_root() {
        std::os::unix::fs::chown(directory, Some(UID), Some(UID)).unwrap();
        command.uid(UID).gid(UID);
    }
    command.status().unwrap().code()
}
