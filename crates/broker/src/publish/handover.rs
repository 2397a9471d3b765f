//! How git gets a credential: it asks a helper, our own program, which fetches it through a socket from the process that
//! holds it.
//!
//! Promises: the credential is in no file, argument, variable, URL or configuration; the socket lies in a folder that only
//! its owner enters, answers this user's processes only, for a ticket that only this one git was given, for one scheme and
//! host, and a few times at most; it is gone when the push has ended.

use super::credential::GitCredential;
use crate::error::BrokerError;
use crate::git::{Git, GitCommand};
use crate::mirror::remove_dir;
use std::fs::DirBuilder;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tipstaff_model::Entropy;
use tipstaff_seal::constant_time_eq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The variable that tells the helper where the socket is.
pub const SOCKET_VARIABLE: &str = "TIPSTAFF_CREDENTIAL_SOCKET";
/// The variable that holds the helper's ticket.
pub const TICKET_VARIABLE: &str = "TIPSTAFF_CREDENTIAL_TICKET";
/// The hidden command of our program that is the helper.
pub const HELPER_COMMAND: &str = "git-credential";

/// Answers that one push may need: git asks again after it was turned away.
const ANSWERS: usize = 4;
/// The longest question, in bytes.
const LONGEST: usize = 8 * 1024;
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest path of a socket (`sun_path`).
const SOCKET_PATH: usize = 100;

/// A socket that gives one credential to one git. Dropping it ends it.
pub(super) struct Handover {
    folder: PathBuf,
    socket: PathBuf,
    ticket: String,
    helper: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.task.abort();
        // An empty folder and a dead socket are what a failure leaves.
        let _ = remove_dir(&self.folder);
    }
}

impl Handover {
    /// Opens a socket for `credential`, to be asked by `helper` about exactly `scheme` and `host`.
    pub(super) fn open(
        git: &Git,
        entropy: &dyn Entropy,
        helper: &Path,
        credential: GitCredential,
        (scheme, host): (&str, &str),
    ) -> Result<Self, BrokerError> {
        let mut random = [0_u8; 24];
        entropy.fill(&mut random);
        let ticket: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("credential-{}", ticket.get(..12).unwrap_or_default());
        // The name in the folder is another part of the ticket than the one that opens it.
        let ticket = ticket.get(12..).unwrap_or_default().to_owned();
        let mut folder = git.home().join(&name);
        if folder.as_os_str().as_bytes().len() + 2 > SOCKET_PATH {
            folder = Path::new("/tmp").join(format!("tipstaff-{name}"));
        }
        DirBuilder::new().mode(0o700).create(&folder).map_err(BrokerError::state(&folder, "created"))?;
        let socket = folder.join("s");
        let opened = UnixListener::bind(&socket).and_then(|listener| {
            let own = std::fs::metadata("/proc/self")?.uid();
            Ok((listener, own))
        });
        let (listener, own) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = remove_dir(&folder);
                return Err(BrokerError::state(socket, "created")(error));
            }
        };
        let wanted = Wanted { ticket: ticket.clone(), scheme: scheme.to_owned(), host: host.to_owned() };
        let task = tokio::spawn(serve(listener, own, wanted, credential));
        Ok(Self { folder, socket, ticket, helper: helper.to_owned(), task })
    }

    /// Lets a command ask.
    pub(super) fn lend<'git>(&self, command: GitCommand<'git>) -> GitCommand<'git> {
        // git hands the text to a shell, and adds what it wants.
        let quoted = self.helper.to_string_lossy().replace('\'', "'\\''");
        command
            .config("credential.helper", format!("!'{quoted}' {HELPER_COMMAND}"))
            .config("credential.useHttpPath", "false")
            .environment(SOCKET_VARIABLE, &self.socket)
            .environment(TICKET_VARIABLE, &self.ticket)
    }
}

struct Wanted {
    ticket: String,
    scheme: String,
    host: String,
}

async fn serve(listener: UnixListener, own: u32, wanted: Wanted, credential: GitCredential) {
    let mut left = ANSWERS;
    while left > 0 {
        let Ok((stream, _)) = listener.accept().await else { return };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
            continue;
        }
        let answered = tokio::time::timeout(PATIENCE, answer(stream, &wanted, &credential)).await;
        if matches!(answered, Ok(Ok(true))) {
            left -= 1;
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    wanted: &Wanted,
    credential: &GitCredential,
) -> std::io::Result<bool> {
    let mut question = Vec::new();
    let bound = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    (&mut stream).take(bound).read_to_end(&mut question).await?;
    if !fits(&question, wanted) {
        return Ok(false);
    }
    let text = zeroizing(&format!("username={}\npassword=", credential.username), credential);
    stream.write_all(text.expose()).await?;
    stream.shutdown().await?;
    Ok(true)
}

/// The answer, in memory that is wiped.
fn zeroizing(front: &str, credential: &GitCredential) -> tipstaff_seal::Secret<Vec<u8>> {
    let token = credential.token.expose();
    let mut text = Vec::with_capacity(front.len() + token.len() + 1);
    text.extend_from_slice(front.as_bytes());
    text.extend_from_slice(token.as_bytes());
    text.push(b'\n');
    tipstaff_seal::Secret::new(text)
}

/// Whether a question has the ticket, and is about the scheme and host that the credential is for.
fn fits(question: &[u8], wanted: &Wanted) -> bool {
    let Ok(text) = std::str::from_utf8(question) else { return false };
    let Some((ticket, attributes)) = text.split_once('\n') else { return false };
    let value = |name: &str| {
        let mut found = attributes.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.next().filter(|_| found.next().is_none())
    };
    constant_time_eq(ticket.as_bytes(), wanted.ticket.as_bytes())
        && value("protocol") == Some(wanted.scheme.as_str())
        && value("host").is_some_and(|host| host.eq_ignore_ascii_case(&wanted.host))
}

/// What the helper does when git asks it for a credential: passes `attributes` on, and gives back what git is to read.
/// Empty when the socket does not answer: git says then that it has no credential.
///
/// # Errors
/// When the socket can't be reached.
pub fn ask(socket: &Path, ticket: &str, attributes: &str) -> std::io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{ticket}\n{attributes}").as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::FixedEntropy;
    use tipstaff_seal::Secret;

    const TOKEN: &str = "forge-token-0123456789";

    async fn open(dir: &Path) -> Handover {
        let program = Git::find(std::ffi::OsStr::new("/usr/local/bin:/usr/bin:/bin")).unwrap();
        let git = Git::open(program, dir.join("git")).await.unwrap();
        let credential = GitCredential {
            username: "me".to_owned(),
            token: Secret::new(TOKEN.to_owned()),
            minted_until: None,
        };
        assert!(!format!("{credential:?}").contains(TOKEN));
        let helper = Path::new("/it's/here");
        Handover::open(&git, &FixedEntropy::seeded(1), helper, credential, ("https", "example.com:8443"))
            .unwrap()
    }

    async fn asked(socket: PathBuf, ticket: String, attributes: &'static str) -> String {
        tokio::task::spawn_blocking(move || ask(&socket, &ticket, attributes).unwrap_or_default())
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_answers_its_own_git_about_its_own_host_a_few_times() {
        let dir = tempfile::tempdir().unwrap();
        let handover = open(dir.path()).await;
        let (socket, ticket) = (handover.socket.clone(), handover.ticket.clone());
        let mode = std::fs::metadata(&handover.folder).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert!(!socket.display().to_string().contains(&ticket), "the path does not tell the ticket");
        let good = "protocol=https\nhost=example.com:8443\n\n";
        for (ticket, question) in [
            ("wrong", good),
            ("", good),
            (ticket.as_str(), "protocol=http\nhost=example.com:8443\n\n"),
            (ticket.as_str(), "protocol=https\nhost=example.com\n\n"),
            (ticket.as_str(), "protocol=https\nhost=evil.example\n\n"),
            (ticket.as_str(), "protocol=https\nhost=evil.example\nhost=example.com:8443\n\n"),
            (ticket.as_str(), ""),
        ] {
            assert_eq!(asked(socket.clone(), ticket.to_owned(), question).await, "", "{question:?}");
        }
        for _ in 0..ANSWERS {
            let answer = asked(socket.clone(), ticket.clone(), good).await;
            assert_eq!(answer, format!("username=me\npassword={TOKEN}\n"));
        }
        assert_eq!(asked(socket.clone(), ticket.clone(), good).await, "", "enough");
        let folder = handover.folder.clone();
        drop(handover);
        assert!(!folder.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_path_of_the_state_does_not_hinder_it() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        let handover = open(&deep).await;
        assert!(handover.socket.starts_with("/tmp"));
    }
}
