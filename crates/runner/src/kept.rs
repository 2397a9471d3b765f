//! The sessions of agents: kept when a run has ended, and laid out in the run that continues one.
//!
//! Promises: what an agent left in its session folders is data, and nobody's instruction: it is read without following a
//! link, within bounds, and never understood here; only ordinary files are kept, and the folders that they lie in; what is
//! kept is sealed under a key of its own, for its run alone; two runs that continue one session get a copy each.

use crate::announce::Observer;
use crate::prepare::{free_bytes, give};
use crate::runner::{Job, Runner};
use crate::supervise::DISK_RESERVE;
use crate::{Layout, RunnerError};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tipstaff_model::{ControlPlane, Entropy, OrgId, RunId};
use tipstaff_sandbox::{EntryKind, HomeFolder, INSIDE_HOME, RunIdentity, read_beneath, visit_tree};
use tipstaff_seal::FileKey;

/// Bytes of the files of a session that is kept, all together; a larger one is not kept.
pub const MOST_SESSION_BYTES: u64 = 64 * 1024 * 1024;
/// Entries of the folders of a session that is kept; one with more is not kept.
pub const MOST_SESSION_ENTRIES: u64 = 4_000;
/// Longest path of a file of a session, in bytes.
const LONGEST_PATH: usize = 1024;
/// What a kept session begins with, under its seal.
const MARK: &[u8] = b"tipstaff session 1\n";

/// The files of a session, by their paths in the agent's home folder.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptSession {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl std::fmt::Debug for KeptSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptSession({} files)", self.files.len())
    }
}

/// What became of a session at the end of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// It is kept: so many files.
    Kept(usize),
    /// The agent left none.
    Nothing,
    /// It is not kept, and why.
    Not(String),
}

impl KeptSession {
    /// Reads what an agent left at `root`. Nobody writes there any more.
    fn read(root: &Path) -> Result<Self, String> {
        let mut found = Vec::new();
        let mut announced = 0_u64;
        visit_tree(root, MOST_SESSION_ENTRIES, &mut |entry| {
            if entry.kind == EntryKind::File {
                announced = announced.saturating_add(entry.bytes);
                found.push(entry.path.clone());
            }
        })
        .map_err(|error| error.to_string())?;
        let too_large = || format!("it has more than {} MiB", MOST_SESSION_BYTES >> 20);
        if announced > MOST_SESSION_BYTES {
            return Err(too_large());
        }
        let (mut files, mut left) = (Vec::with_capacity(found.len()), MOST_SESSION_BYTES);
        for path in found {
            if path.as_os_str().len() > LONGEST_PATH {
                return Err(format!("a path has more than {LONGEST_PATH} bytes"));
            }
            let read = read_beneath(root, &path, left).map_err(|error| error.to_string())?;
            let Some(read) = read else { continue };
            let length = u64::try_from(read.content.len()).unwrap_or(u64::MAX);
            left = left.checked_sub(length).ok_or_else(too_large)?;
            files.push((path, read.content));
        }
        Ok(Self { files })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = MARK.to_vec();
        for (path, content) in &self.files {
            for part in [path.as_os_str().as_bytes(), content] {
                out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                out.extend_from_slice(part);
            }
        }
        out
    }

    /// Whoever sealed it was us; what is in it was an agent's, so nothing is taken on trust.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
            let (length, after) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
            let (part, after) = after.split_at_checked(length)?;
            *rest = after;
            Some(part)
        }
        let mut rest = bytes.strip_prefix(MARK)?;
        let mut files = Vec::new();
        while !rest.is_empty() {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(part(&mut rest)?));
            let content = part(&mut rest)?.to_vec();
            let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            let zero = path.as_os_str().as_bytes().contains(&0);
            if !plain || zero || path.as_os_str().is_empty() || path.as_os_str().len() > LONGEST_PATH {
                return None;
            }
            files.push((path, content));
        }
        Some(Self { files })
    }

    /// Opens the session that was kept of a run; `None` when there is none.
    ///
    /// # Errors
    /// [`RunnerError::SessionUnusable`] when it was altered, or is too large; [`RunnerError::Io`] when it can't be read.
    pub fn open(layout: &Layout, org: OrgId, run: RunId, key: &FileKey) -> Result<Option<Self>, RunnerError> {
        let path = layout.session(org, run);
        let file = match OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunnerError::Io { action: "opening a kept session", source }),
        };
        let most = 2 * MOST_SESSION_BYTES;
        let mut sealed = Vec::new();
        file.take(most).read_to_end(&mut sealed).map_err(RunnerError::io("reading a kept session"))?;
        let unusable = |why: String| RunnerError::SessionUnusable { run, why };
        let plain = key.open(&place(run), &sealed).map_err(|error| unusable(error.to_string()))?;
        let session = Self::from_bytes(plain.expose());
        session.map(Some).ok_or_else(|| unusable("it can't be read by this version".to_owned()))
    }

    /// Lays the files below `root`, those of `folders` alone.
    fn lay_out(&self, root: &Path, folders: &[&str]) -> std::io::Result<()> {
        for (path, content) in &self.files {
            if !folders.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            let path = root.join(path);
            if let Some(parent) = path.parent() {
                private(parent)?;
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(content)?;
        }
        Ok(())
    }
}

/// `O_NOFOLLOW`.
const NO_FOLLOW: i32 = 0o400_000;

/// For which place a session is sealed.
fn place(run: RunId) -> String {
    format!("session:{run}")
}

fn private(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Makes the folders of a run's session, with what is in them already, for the run's user.
///
/// # Errors
/// When they can't be made.
pub(crate) fn furnish(
    root: &Path,
    folders: &[&str],
    session: Option<&KeptSession>,
    identity: &RunIdentity,
) -> Result<Vec<HomeFolder>, RunnerError> {
    let making = RunnerError::io("laying out the session");
    let make = || {
        tipstaff_sandbox::remove_tree(root)?;
        for folder in folders {
            private(&root.join(folder))?;
        }
        session.map_or(Ok(()), |session| session.lay_out(root, folders))
    };
    make().map_err(making)?;
    give(root, identity)?;
    Ok(folders
        .iter()
        .map(|folder| HomeFolder { host: root.join(folder), inside: Path::new(INSIDE_HOME).join(folder) })
        .collect())
}

/// Keeps what the agent of a run left of its session. Every process of the run is dead.
///
/// # Errors
/// [`RunnerError::Io`] when it can't be written.
pub fn keep_session(
    layout: &Layout,
    org: OrgId,
    run: RunId,
    key: &FileKey,
    entropy: &dyn Entropy,
) -> Result<Keeping, RunnerError> {
    let root = layout.run_session(run);
    if root.symlink_metadata().is_err() {
        return Ok(Keeping::Nothing);
    }
    let session = match KeptSession::read(&root) {
        Ok(session) if session.files.is_empty() => return Ok(Keeping::Nothing),
        Ok(session) => session,
        Err(why) => return Ok(Keeping::Not(why)),
    };
    if free_bytes(layout.home()).is_some_and(|free| free < DISK_RESERVE) {
        return Ok(Keeping::Not("the disk of TIPSTAFF_HOME is nearly full".to_owned()));
    }
    let sealed = match key.seal(&place(run), &session.to_bytes(), entropy) {
        Ok(sealed) => sealed,
        Err(error) => return Ok(Keeping::Not(error.to_string())),
    };
    let path = layout.session(org, run);
    let draft = path.with_extension("draft");
    let write = || {
        if let Some(folder) = path.parent() {
            private(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&sealed)?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    };
    write().map_err(RunnerError::io("keeping the session"))?;
    Ok(Keeping::Kept(session.files.len()))
}

impl Runner {
    /// Keeps what the agent left of its session. A run that can't be continued has not failed for it.
    pub(crate) async fn keep_session(
        &self,
        job: &Job,
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
    ) {
        let Some(key) = job.session_key.clone() else { return };
        let (org, run) = (job.warrant.warrant.org, job.warrant.warrant.run);
        let (layout, entropy) = (self.config.layout.clone(), Arc::clone(&self.config.entropy));
        let kept =
            tokio::task::spawn_blocking(move || keep_session(&layout, org, run, &key, entropy.as_ref()))
                .await;
        let why = match kept {
            Ok(Ok(Keeping::Kept(_) | Keeping::Nothing)) => return,
            Ok(Ok(Keeping::Not(why))) => why,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let text = format!("the session is not kept, so that this run can't be continued: {why}");
        let _best_effort = self.remark(&text, control, observer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tipstaff_model::FixedClock;
    use tipstaff_seal::SystemEntropy;

    fn session(files: &[(&str, &str)]) -> KeptSession {
        KeptSession {
            files: files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect(),
        }
    }

    fn world() -> (tempfile::TempDir, Layout, OrgId, RunId, FileKey) {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout::create(place.path().join("home")).unwrap();
        let clock = FixedClock::at(1);
        let (org, run) = (OrgId::new(&clock, &SystemEntropy), RunId::new(&clock, &SystemEntropy));
        (place, layout, org, run, FileKey::new(&SystemEntropy))
    }

    #[test]
    fn what_is_kept_is_what_was_left_and_only_its_key_opens_it() {
        let (_place, layout, org, run, key) = world();
        let root = layout.run_session(run);
        assert_eq!(keep_session(&layout, org, run, &key, &SystemEntropy).unwrap(), Keeping::Nothing);
        private(&root.join(".agent/sessions/empty")).unwrap();
        assert_eq!(keep_session(&layout, org, run, &key, &SystemEntropy).unwrap(), Keeping::Nothing);
        std::fs::write(root.join(".agent/sessions/a.jsonl"), "what was said").unwrap();
        assert_eq!(keep_session(&layout, org, run, &key, &SystemEntropy).unwrap(), Keeping::Kept(1));
        let sealed = std::fs::read(layout.session(org, run)).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"what"));
        let mode = std::os::unix::fs::MetadataExt::mode(&layout.session(org, run).metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let opened = KeptSession::open(&layout, org, run, &key).unwrap().unwrap();
        assert_eq!(opened, session(&[(".agent/sessions/a.jsonl", "what was said")]));
        let other = KeptSession::open(&layout, org, run, &FileKey::new(&SystemEntropy)).unwrap_err();
        assert_eq!(other.code(), "session-unusable");
        // A file that was moved here from another run.
        let another = RunId::new(&FixedClock::at(2), &SystemEntropy);
        std::fs::rename(layout.session(org, run), layout.session(org, another)).unwrap();
        assert!(KeptSession::open(&layout, org, another, &key).is_err());
        assert_eq!(KeptSession::open(&layout, org, run, &key).unwrap(), None);
    }

    #[test]
    fn links_sockets_and_sizes_of_an_agent_lead_nowhere() {
        let (place, layout, org, run, key) = world();
        let root = layout.run_session(run);
        private(&root.join("s/folder")).unwrap();
        let secret = place.path().join("secret");
        std::fs::write(&secret, "outside").unwrap();
        std::os::unix::fs::symlink(&secret, root.join("s/link")).unwrap();
        std::os::unix::fs::symlink(place.path(), root.join("s/folder/link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("s/socket")).unwrap();
        std::fs::write(root.join("s/real"), "inside").unwrap();
        assert_eq!(keep_session(&layout, org, run, &key, &SystemEntropy).unwrap(), Keeping::Kept(1));
        let kept = KeptSession::open(&layout, org, run, &key).unwrap().unwrap();
        assert_eq!(kept, session(&[("s/real", "inside")]));
        // A hole of a terabyte.
        std::fs::File::create(root.join("s/huge")).unwrap().set_len(1 << 40).unwrap();
        let not = keep_session(&layout, org, run, &key, &SystemEntropy).unwrap();
        assert!(matches!(&not, Keeping::Not(why) if why.contains("64 MiB")), "{not:?}");
        std::fs::remove_file(root.join("s/huge")).unwrap();
        // The folder itself is a link.
        tipstaff_sandbox::remove_tree(&root).unwrap();
        std::os::unix::fs::symlink(place.path(), &root).unwrap();
        let not = keep_session(&layout, org, run, &key, &SystemEntropy).unwrap();
        assert!(matches!(not, Keeping::Not(_)), "{not:?}");
    }

    #[test]
    fn too_many_files_are_not_kept() {
        let (_place, layout, org, run, key) = world();
        let root = layout.run_session(run);
        private(&root).unwrap();
        for number in 0..=MOST_SESSION_ENTRIES {
            std::fs::write(root.join(number.to_string()), "").unwrap();
        }
        let not = keep_session(&layout, org, run, &key, &SystemEntropy).unwrap();
        assert!(matches!(not, Keeping::Not(_)), "{not:?}");
        assert!(!layout.session(org, run).exists());
    }

    #[test]
    fn it_is_laid_out_where_its_folders_are_and_nowhere_else() {
        let place = tempfile::tempdir().unwrap();
        let two = session(&[(".agent/sessions/deep/a", "a"), (".bashrc", "evil"), (".agent/other", "evil")]);
        two.lay_out(place.path(), &[".agent/sessions"]).unwrap();
        assert_eq!(std::fs::read_to_string(place.path().join(".agent/sessions/deep/a")).unwrap(), "a");
        assert!(!place.path().join(".bashrc").exists() && !place.path().join(".agent/other").exists());
    }

    proptest! {
        #[test]
        fn any_session_is_read_back_and_any_bytes_are_survived(
            files in prop::collection::vec(("[a-z.]{1,8}/[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let plain = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            let kept: Vec<_> = files.into_iter().filter(|(path, _)| plain(path)).map(|(path, text)| (path.into(), text)).collect();
            let session = KeptSession { files: kept };
            prop_assert_eq!(KeptSession::from_bytes(&session.to_bytes()), Some(session));
            let _ = KeptSession::from_bytes(&noise);
            let marked = [MARK, &noise].concat();
            for (path, _) in KeptSession::from_bytes(&marked).into_iter().flat_map(|session| session.files) {
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }

        #[test]
        fn no_path_leads_out(path in "[./a\u{0}]{1,12}") {
            let bytes = session(&[(&path, "x")]).to_bytes();
            if let Some(read) = KeptSession::from_bytes(&bytes) {
                prop_assert!(!read.files[0].0.is_absolute());
                prop_assert!(read.files[0].0.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
