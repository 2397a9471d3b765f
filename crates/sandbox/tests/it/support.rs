//! What every test needs: one sandbox, directories, and a way to run a script confined.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tipstaff_sandbox::{
    Access, BrokerListener, ExecPolicy, Exit, RunIdentity, Running, Sandbox, SandboxConfig, SandboxSpec,
    Workspace, remove_tree,
};

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn config() -> SandboxConfig {
    SandboxConfig::default()
}

/// The one sandbox of this process.
pub(crate) fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX
        .get_or_init(|| Sandbox::new(config()).expect("a sandbox must be possible on a machine with tests"))
}

pub(crate) fn identity() -> RunIdentity {
    RunIdentity::acquire(&config().lock_dir).expect("a run identity")
}

/// A directory that only the server's user can enter, as the server's own are.
pub(crate) fn directory() -> TempDir {
    TempDir::with_prefix("tipstaff-it-").expect("a temporary directory")
}

/// A warm checkout and the state of one layer over it.
pub(crate) struct Layered {
    pub(crate) directory: TempDir,
}

impl Layered {
    pub(crate) fn new() -> Self {
        let directory = directory();
        std::fs::create_dir(directory.path().join("lower")).unwrap();
        std::fs::write(directory.path().join("lower/below.txt"), "below\n").unwrap();
        Self { directory }
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.directory.path().join("lower")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.directory.path().join("state/upper")
    }

    pub(crate) fn workspace(&self) -> Workspace {
        Workspace::Overlay { lower: self.lower(), over: None, state: self.directory.path().join("state") }
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        remove_tree(&self.directory.path().join("state")).expect("every tree can be removed");
    }
}

/// A description that runs a shell script.
pub(crate) fn script(workspace: Workspace, text: &str) -> SandboxSpec {
    SandboxSpec::new(identity(), workspace, ["/bin/sh", "-c", text].map(OsString::from))
}

/// The strict kind: nothing may be written or executed but what is installed.
pub(crate) fn refine(mut spec: SandboxSpec) -> SandboxSpec {
    spec.access = Access::ReadOnly;
    spec.exec = ExecPolicy::InstalledOnly;
    spec
}

pub(crate) fn with_broker(mut spec: SandboxSpec) -> SandboxSpec {
    spec.broker = BrokerListener::HandedOut;
    spec
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(spec: &SandboxSpec) -> Output {
    let running = sandbox().start(spec).unwrap_or_else(|error| panic!("{}: {error:?}", error.code()));
    finish(running)
}

pub(crate) fn finish(mut running: Running) -> Output {
    let stdout = reader(running.stdout.take());
    let stderr = reader(running.stderr.take());
    let exit = running.wait().unwrap();
    Output { exit, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

pub(crate) fn reader(stream: Option<OwnedFd>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut out = Vec::new();
        if let Some(stream) = stream {
            File::from(stream).take(4 << 20).read_to_end(&mut out).unwrap();
        }
        String::from_utf8_lossy(&out).into_owned()
    })
}

/// Runs a script in an empty workspace and gives its standard output; it must succeed.
pub(crate) fn said(text: &str) -> String {
    let output = run(&script(Workspace::Empty, text));
    assert!(output.exit.success(), "{output:?}");
    output.stdout
}

/// Reads one line from a command that goes on running.
pub(crate) fn first_line(stream: &mut File) -> String {
    let mut out = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        out.push(byte[0]);
    }
    String::from_utf8(out).unwrap()
}

/// The processes of this machine whose command line holds `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_str() != Some(&own)))
        .filter(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
        })
        .collect()
}

/// Whether a program is there for a sandbox without grants.
pub(crate) fn has_program(name: &str) -> bool {
    ["/usr/bin", "/usr/local/bin", "/usr/sbin"]
        .iter()
        .any(|directory| Path::new(directory).join(name).exists())
}
