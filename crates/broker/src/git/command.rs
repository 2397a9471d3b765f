//! One git command: described, bounded, run, and killed as a group.

use super::{Git, RemoveOnDrop, settings};
use crate::error::BrokerError;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Standard error that is kept; the rest is read and dropped.
const STDERR_KEPT: usize = 16 * 1024;

/// A git command in the making.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct GitCommand<'git> {
    git: &'git Git,
    name: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    config: Vec<(String, OsString)>,
    safe: Vec<PathBuf>,
    timeout: Duration,
    output_limit: usize,
    memory_limit: Option<u64>,
    file_limit: Option<u64>,
}

/// What a finished command left.
#[derive(Debug)]
pub struct GitOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, whole.
    pub stdout: Vec<u8>,
    /// Its standard error, cleaned of control characters and cut.
    pub stderr: String,
}

impl GitOutput {
    /// Standard output as text, without the final line break.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}

/// A running command with streams. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct GitChild {
    name: &'static str,
    child: Child,
    group: Group,
    stderr: tokio::task::JoinHandle<String>,
    _settings: Option<RemoveOnDrop>,
}

/// Kills the process group unless the leader was reaped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // The group may be gone already, which is what we want.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl<'git> GitCommand<'git> {
    pub(super) fn new(git: &'git Git, name: &'static str) -> Self {
        Self {
            git,
            name,
            arguments: Vec::new(),
            environment: Vec::new(),
            config: Vec::new(),
            safe: Vec::new(),
            timeout: Duration::from_secs(120),
            output_limit: 16 * 1024 * 1024,
            memory_limit: None,
            file_limit: None,
        }
    }

    /// The repository: a bare one, or the `.git` folder of one of our checkouts.
    pub fn git_dir(self, path: &Path) -> Self {
        self.environment("GIT_DIR", path)
    }

    /// The work tree of a command that writes files.
    pub fn work_tree(self, path: &Path) -> Self {
        self.environment("GIT_WORK_TREE", path)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of git's environment.
    pub fn environment(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Adds a setting on top of the safe ones; later ones win.
    pub fn config(mut self, key: impl Into<String>, value: impl AsRef<OsStr>) -> Self {
        self.config.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// Lets this one command, and the `upload-pack` that it starts, read these directories of another owner.
    pub fn reading_source(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.safe.extend(directories);
        self
    }

    /// Opens transports, separated by `:`; none is open otherwise.
    pub fn protocols(self, names: &'static str) -> Self {
        self.environment("GIT_ALLOW_PROTOCOL", names)
    }

    /// The time bound; two minutes otherwise.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// The bound on standard output in bytes; 16 MiB otherwise.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// The bound on the address space of git and its children, in bytes (`RLIMIT_AS`).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The bound on each file that git writes, in bytes (`RLIMIT_FSIZE`).
    pub fn file_limit(mut self, bytes: u64) -> Self {
        self.file_limit = Some(bytes);
        self
    }

    /// Runs to the end without input. An exit code other than 0 is an error.
    ///
    /// # Errors
    /// When git can't be started, fails, runs out of time or prints too much.
    pub async fn run(self) -> Result<GitOutput, BrokerError> {
        self.run_with_input(Vec::new()).await
    }

    /// [`GitCommand::run`] with standard input.
    ///
    /// # Errors
    /// As [`GitCommand::run`].
    pub async fn run_with_input(self, input: Vec<u8>) -> Result<GitOutput, BrokerError> {
        let name = self.name;
        let output = self.finish_with_input(input).await?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(BrokerError::GitFailed {
                command: name,
                status: status_text(output.status),
                message: output.stderr,
            })
        }
    }

    /// Runs to the end; every exit code is a result.
    ///
    /// # Errors
    /// When git can't be started, runs out of time or prints too much.
    pub async fn finish(self) -> Result<GitOutput, BrokerError> {
        self.finish_with_input(Vec::new()).await
    }

    /// [`GitCommand::finish`] with standard input.
    ///
    /// # Errors
    /// As [`GitCommand::finish`].
    pub async fn finish_with_input(self, input: Vec<u8>) -> Result<GitOutput, BrokerError> {
        let (timeout, limit, name) = (self.timeout, self.output_limit, self.name);
        let mut child = self.spawn()?;
        let (stdin, stdout) = (child.take_stdin(), child.take_stdout());
        let work = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A git that stops reading says why by its exit code.
                    let _ = stdin.write_all(&input).await;
                    let _ = stdin.shutdown().await;
                }
            };
            let ((), stdout) = tokio::join!(feed, read_bounded(stdout, limit));
            let stdout = stdout.ok_or(BrokerError::GitOutput { command: name, limit })?;
            let (status, stderr) = child.wait().await?;
            Ok(GitOutput { status, stdout, stderr })
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(BrokerError::GitTimeout { command: name, seconds: timeout.as_secs() }),
        }
    }

    /// Starts the command with piped streams. The caller keeps the bounds of time and output.
    ///
    /// # Errors
    /// When git can't be started or its private settings can't be written.
    pub fn spawn(self) -> Result<GitChild, BrokerError> {
        let git = self.git;
        let (settings_file, guard) = if self.safe.is_empty() {
            (git.settings_file(), None)
        } else {
            let (path, guard) = git.temporary_file(&settings::global_file(&self.safe))?;
            (path, Some(guard))
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one door for our own git")]
        let mut command = Command::new(&git.program);
        let empty = git.home.join("empty");
        command
            .arg(self.name)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", &git.search_path)
            .env("HOME", &empty)
            .env("XDG_CONFIG_HOME", &empty)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", settings_file)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("GIT_ALLOW_PROTOCOL", "")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let forced = settings::FORCED.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(*value)));
        let mut count = 0_usize;
        for (key, value) in forced.chain(self.config) {
            command
                .env(format!("GIT_CONFIG_KEY_{count}"), key)
                .env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command
            .env("GIT_CONFIG_COUNT", count.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|source| BrokerError::GitSpawn { program: git.program.clone(), source })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Group(leader);
        limit(leader, Resource::As, self.memory_limit);
        limit(leader, Resource::Fsize, self.file_limit);
        limit(leader, Resource::Core, Some(0));
        let stderr = child.stderr.take();
        let stderr = tokio::spawn(async move {
            match stderr {
                Some(stream) => clean(&read_and_drop(stream, STDERR_KEPT).await),
                None => String::new(),
            }
        });
        Ok(GitChild { name: self.name, child, group, stderr, _settings: guard })
    }
}

impl GitChild {
    /// The command's standard input, once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The command's standard output, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the end and gives the status and the cleaned standard error.
    ///
    /// # Errors
    /// When the system can't tell how it ended.
    pub async fn wait(&mut self) -> Result<(ExitStatus, String), BrokerError> {
        drop(self.child.stdin.take());
        let stderr = (&mut self.stderr).await.unwrap_or_default();
        let status = self.child.wait().await.map_err(|source| BrokerError::GitSpawn {
            program: PathBuf::from(format!("git {}", self.name)),
            source,
        })?;
        // Reaped: the number may soon belong to someone else.
        self.group.0 = None;
        Ok((status, stderr))
    }

    /// Kills the whole group now.
    pub fn kill(&mut self) {
        self.group.kill();
    }
}

fn limit(process: Option<Pid>, resource: Resource, bytes: Option<u64>) {
    if let (Some(process), Some(bytes)) = (process, bytes) {
        // A child that ended already needs no bound.
        let _ = prlimit(Some(process), resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
    }
}

/// Reads to the end; `None` when there is more than `limit`.
async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    if let Some(stream) = stream {
        // An error while reading is an end; the exit code tells the rest.
        let _ = stream.take(bound).read_to_end(&mut kept).await;
    }
    (kept.len() <= limit).then_some(kept)
}

/// Keeps the first `keep` bytes and reads the rest away, so that the writer never blocks.
async fn read_and_drop(mut stream: impl AsyncRead + Unpin, keep: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(count) = stream.read(&mut buffer).await {
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
        let room = keep.saturating_sub(kept.len());
        kept.extend(chunk.iter().take(room));
    }
    kept
}

/// Text that is safe on a terminal: one line break kept, other control characters replaced.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .take(2000)
        .collect();
    text
}

/// `exit code 128` or `signal 9`.
pub(crate) fn status_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
