//! A world for one test: a state folder, a repository, the real binary.

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tipstaff");

/// A folder with everything in it; gone at the end.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    /// Who runs the binary: `None` is whoever runs the test.
    uid: Option<u32>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The one object on standard output.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON at the end: {error}\n{self:#?}"))
    }

    /// The same, after checking the exit code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0).unwrap_or(false)
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tipstaff-test-").tempdir().unwrap();
        Self { dir, uid: None }
    }

    /// A world whose binary runs as an ordinary user: by another uid when the test runs as root.
    pub(crate) fn ordinary() -> Self {
        let mut world = Self::new();
        if is_root() {
            let uid = 1500;
            world.uid = Some(uid);
            std::os::unix::fs::chown(world.path(), Some(uid), Some(uid)).unwrap();
        }
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// A command with nothing of the test's environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.uid {
            None => Command::new(program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={uid}"),
                    format!("--regid={uid}"),
                    "--clear-groups".to_owned(),
                ]);
                command.arg("--").arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TIPSTAFF_HOME", self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// The binary, reachable for whoever runs it.
    pub(crate) fn binary(&self) -> PathBuf {
        if self.uid.is_none() {
            return BINARY.into();
        }
        // The build folder may lie where the other user can't reach; the copy goes away with the world.
        let copy = self.path().join("tipstaff");
        if !copy.exists() {
            std::fs::copy(BINARY, &copy).unwrap();
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        copy
    }

    /// `tipstaff ARGS…` in `directory`.
    pub(crate) fn tipstaff_in<A: AsRef<OsStr>>(&self, directory: &Path, args: &[A]) -> Ended {
        let mut command = self.command(self.binary());
        command.args(args).current_dir(directory);
        run(command)
    }

    /// `tipstaff ARGS…`
    pub(crate) fn tipstaff<A: AsRef<OsStr>>(&self, args: &[A]) -> Ended {
        self.tipstaff_in(self.path(), args)
    }

    /// Starts `tipstaff ARGS…` and leaves it running.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, args: &[A]) -> Child {
        let mut command = self.command(self.binary());
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `git ARGS…` as a person would type it.
    pub(crate) fn git<A: AsRef<OsStr>>(&self, directory: &Path, args: &[A]) -> String {
        let mut command = self.command("git");
        command.args([
            "-c",
            "user.name=Person",
            "-c",
            "user.email=person@example.com",
            "-c",
            "init.defaultBranch=main",
        ]);
        command.args(["-c", "protocol.file.allow=always"]);
        command.args(args).current_dir(directory);
        run(command).expect(0).stdout
    }

    /// A small repository with one commit.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        self.folder(&path);
        self.git(&path, &["init", "-q"]);
        self.write(&path.join("README.md"), "# Demo\n");
        self.write(&path.join("src/main.txt"), "one\ntwo\n");
        self.commit(&path, "first");
        path
    }

    pub(crate) fn commit(&self, repository: &Path, message: &str) {
        self.git(repository, &["add", "-A"]);
        self.git(repository, &["commit", "-q", "-m", message]);
    }

    pub(crate) fn folder(&self, path: &Path) {
        run({
            let mut command = self.command("mkdir");
            command.arg("-p").arg(path);
            command
        })
        .expect(0);
    }

    pub(crate) fn write(&self, path: &Path, text: &str) {
        self.folder(path.parent().unwrap());
        std::fs::write(path, text).unwrap();
        if let Some(uid) = self.uid {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// Runs `script` on `repository` with `tipstaff run --json`, and gives the summary.
    pub(crate) fn run_script(&self, repository: &Path, script: &str) -> Ended {
        self.tipstaff_in(repository, &["run", "--json", "--timeout", "60s", "--", "sh", "-c", script])
    }

    /// Everything that a working tree shows: names, modes, content, and what git thinks of it.
    pub(crate) fn picture(&self, repository: &Path) -> String {
        let mut command = self.command("sh");
        command.current_dir(repository).args([
            "-c",
            "find . -path ./.git/index -prune -o -printf '%p %m %s %T@\\n' | sort; git log --all --oneline --decorate=full",
        ]);
        run(command).expect(0).stdout
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that fails half-way may leave folders without permissions.
        let _best_effort = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.path()).output();
    }
}

/// Runs a command to its end, at most three minutes.
pub(crate) fn run(mut command: Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    wait(child, Duration::from_secs(180))
}

/// Waits for a child, at most `limit`.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Ended {
    fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _closed = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let stdout = reader(child.stdout.take().unwrap());
    let stderr = reader(child.stderr.take().unwrap());
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begun.elapsed() > limit {
            child.kill().unwrap();
            panic!("still running after {limit:?}; stderr: {}", stderr.join().unwrap());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    Ended { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}
