//! What set-ups made, kept for later runs of the same org.
//!
//! Promises: an entry is complete or absent, since it gets its name last; one that is not as it was when it was made is not
//! used and made anew; nothing but a set-up's sandbox fills it, and no run writes into it; an entry in use is not removed;
//! two orgs never share one.

use super::Form;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tipstaff_model::OrgId;
use tipstaff_sandbox::{EntryKind, remove_tree, visit_tree, write_out};
use tipstaff_seal::StreamDigest;

/// The version of an entry's description.
const VERSION: u32 = 1;
/// The description of an entry.
const DESCRIPTION: &str = "entry.json";
/// The largest description that is read, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Entries of a tree at most.
pub(crate) const MOST_ENTRIES: u64 = 2_000_000;

/// How much of what set-ups made is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupCacheBounds {
    /// Bytes of all entries of an org together.
    pub bytes: u64,
    /// Entries of an org.
    pub entries: usize,
}

impl Default for SetupCacheBounds {
    fn default() -> Self {
        Self { bytes: 10 * 1024 * 1024 * 1024, entries: 20 }
    }
}

/// What is known about an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupEntry {
    v: u32,
    /// Its key: 64 hexadecimal digits.
    pub key: String,
    /// The repository that it was made for.
    pub repository: String,
    /// The id of the script in git; empty where only files were copied.
    pub script: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_at: i64,
    /// How long that took, in milliseconds.
    pub duration_ms: u64,
    /// Files and folders in it.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What it made that the repository does not ignore: patterns for git.
    pub(crate) exclude: Vec<String>,
    /// The digest of names, sizes, modes and times.
    manifest: String,
    /// The start of the machine that it was made under, until it is known to be on disk.
    boot: Option<String>,
}

/// What a cache says of an entry without using it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSetup {
    /// The entry.
    pub entry: SetupEntry,
    /// When it was used last, in milliseconds since the Unix epoch.
    pub used_at: i64,
    /// Whether a run uses it now.
    pub in_use: bool,
}

/// What set-ups of one org made.
#[derive(Debug, Clone)]
pub struct SetupCache {
    root: PathBuf,
}

// A lock file stays when its entry goes: whoever waits for a lock must not get that of a file that is gone.

/// An entry that is kept from being removed for as long as this value lives.
#[derive(Debug)]
pub(crate) struct HeldEntry {
    pub(crate) entry: SetupEntry,
    /// The layer or the archive.
    pub(crate) content: PathBuf,
    _lock: File,
}

/// What is put into the cache.
pub(crate) struct NewEntry<'a> {
    pub(crate) key: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) script: &'a str,
    pub(crate) made_at: i64,
    pub(crate) duration_ms: u64,
    pub(crate) exclude: &'a [String],
    pub(crate) form: Form,
}

impl SetupCache {
    /// The cache of an org below `root`, which is made when missing.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn open(root: &Path, org: OrgId) -> io::Result<Self> {
        let root = root.join(org.to_string());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        Ok(Self { root })
    }

    fn place(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.root.join(format!("{key}.lock"))
    }

    fn lock_file(&self, key: &str) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.lock_path(key))
    }

    /// The entry with this key, if it is there and as it was made.
    pub(crate) fn find(&self, key: &str, form: Form) -> io::Result<Option<HeldEntry>> {
        if !self.place(key).is_dir() {
            return Ok(None);
        }
        let lock = self.lock_file(key)?;
        lock.lock_shared()?;
        let Ok(entry) = self.read(key) else { return Ok(None) };
        let content = self.place(key).join(form.as_str());
        let sound = entry.boot.as_ref().is_none_or(|boot| *boot == boot_id())
            && measure(&content, form).is_ok_and(|found| found.manifest == entry.manifest);
        if !sound {
            return Ok(None);
        }
        // The lock file's time is when the entry was last used.
        lock.write_all_at(b"used\n", 0)?;
        Ok(Some(HeldEntry { entry, content, _lock: lock }))
    }

    fn read(&self, key: &str) -> io::Result<SetupEntry> {
        use std::io::Read;
        let mut text = String::new();
        let file = File::open(self.place(key).join(DESCRIPTION))?;
        file.take(LARGEST).read_to_string(&mut text)?;
        let entry: SetupEntry = serde_json::from_str(&text)?;
        if entry.v != VERSION || entry.key != key {
            return Err(io::Error::other("it is of another version, or another entry's"));
        }
        Ok(entry)
    }

    /// Takes `content`, a layer or an archive that nobody works in any more, in place of what is there under the key.
    /// `None` when the entry that is there is in use, or the content can't be described; it is where it was then.
    pub(crate) fn keep(&self, new: &NewEntry<'_>, content: &Path) -> io::Result<Option<HeldEntry>> {
        let lock = self.lock_file(new.key)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let Ok(found) = measure(content, new.form) else { return Ok(None) };
        let making = self.root.join(format!(".making-{}", new.key));
        // We hold the lock: whatever has this name was left by a dead process.
        remove_tree(&making)?;
        std::fs::DirBuilder::new().mode(0o700).create(&making)?;
        let entry = SetupEntry {
            v: VERSION,
            key: new.key.to_owned(),
            repository: new.repository.to_owned(),
            script: new.script.to_owned(),
            made_at: new.made_at,
            duration_ms: new.duration_ms,
            entries: found.entries,
            bytes: found.bytes,
            exclude: new.exclude.to_vec(),
            manifest: found.manifest,
            boot: Some(boot_id()),
        };
        let moved = making.join(new.form.as_str());
        std::fs::rename(content, &moved)?;
        let named = write(&making.join(DESCRIPTION), &entry).and_then(|()| {
            self.forget(new.key)?;
            std::fs::rename(&making, self.place(new.key))
        });
        if let Err(error) = named {
            std::fs::rename(&moved, content)?;
            return Err(error);
        }
        // From "alone" to "shared" is two steps: between them somebody may remove it.
        lock.unlock()?;
        self.find(new.key, new.form)?
            .map_or_else(|| Err(io::Error::other("it was removed meanwhile")), |held| Ok(Some(held)))
    }

    /// Removes the entry whose lock is held alone.
    fn forget(&self, key: &str) -> io::Result<()> {
        let place = self.place(key);
        if !place.exists() {
            return Ok(());
        }
        // Out of sight first, so that a kill in the middle leaves no half entry under its name.
        let trash = self.root.join(format!(".trash-{key}"));
        remove_tree(&trash)?;
        std::fs::rename(&place, &trash)?;
        remove_tree(&trash)
    }

    /// Marks what is on disk by now as such: from then on it is also good after the machine's next start.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write_out(&self) -> io::Result<()> {
        let waiting: Vec<SetupEntry> = self
            .keys()?
            .iter()
            .filter_map(|key| self.read(key).ok())
            .filter(|entry| entry.boot.is_some())
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let boot = boot_id();
        write_out(&self.root)?;
        for mut entry in waiting.into_iter().filter(|entry| entry.boot.as_ref() == Some(&boot)) {
            let lock = self.lock_file(&entry.key)?;
            // Shared is enough: the description is replaced as a whole, and nobody else changes it to something else.
            if lock.try_lock_shared().is_ok() && self.place(&entry.key).is_dir() {
                entry.boot = None;
                write(&self.place(&entry.key).join(DESCRIPTION), &entry)?;
            }
        }
        Ok(())
    }

    fn keys(&self) -> io::Result<Vec<String>> {
        let is_key = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let entries = std::fs::read_dir(&self.root)?.flatten();
        Ok(entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_key(name))
            .collect())
    }

    /// All entries, the one that was used last first.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn list(&self) -> io::Result<Vec<ListedSetup>> {
        let mut found = Vec::new();
        for key in self.keys()? {
            let Ok(entry) = self.read(&key) else { continue };
            let used = self.lock_path(&key).metadata().and_then(|status| status.modified());
            let used_at = used
                .ok()
                .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map_or(entry.made_at, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
            let in_use = matches!(self.lock_file(&key)?.try_lock(), Err(TryLockError::WouldBlock));
            found.push(ListedSetup { entry, used_at, in_use });
        }
        found.sort_by(|one, other| (other.used_at, &other.entry.key).cmp(&(one.used_at, &one.entry.key)));
        Ok(found)
    }

    /// Removes every entry that `wanted` wants gone and nobody uses, broken ones included when `all`; the keys of those
    /// removed and of those in use.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn clear(
        &self,
        wanted: &dyn Fn(&SetupEntry) -> bool,
        all: bool,
    ) -> io::Result<(Vec<String>, Vec<String>)> {
        let (mut removed, mut busy) = (Vec::new(), Vec::new());
        for key in self.keys()? {
            let asked = self.read(&key).map_or(all, |entry| all || wanted(&entry));
            if !asked {
                continue;
            }
            let lock = self.lock_file(&key)?;
            match lock.try_lock() {
                Ok(()) => {
                    self.forget(&key)?;
                    removed.push(key);
                }
                Err(TryLockError::WouldBlock) => busy.push(key),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok((removed, busy))
    }

    /// Removes what dead processes left, what can't be used, and then the entries that were used longest ago, until the
    /// bounds hold. Those in use stay. Returns how many were removed.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn prune(&self, bounds: SetupCacheBounds) -> io::Result<usize> {
        for entry in std::fs::read_dir(&self.root)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let left = name.strip_prefix(".making-").or_else(|| name.strip_prefix(".trash-"));
            if let Some(key) = left
                && self.lock_file(key)?.try_lock().is_ok()
            {
                remove_tree(&entry.path())?;
            }
        }
        let listed = self.list()?;
        let (mut bytes, mut count) = (0_u64, 0_usize);
        let mut surplus = Vec::new();
        for one in &listed {
            bytes = bytes.saturating_add(one.entry.bytes);
            count += 1;
            if bytes > bounds.bytes || count > bounds.entries {
                surplus.push(one.entry.key.clone());
                bytes -= one.entry.bytes;
                count -= 1;
            }
        }
        let readable: Vec<&str> = listed.iter().map(|one| one.entry.key.as_str()).collect();
        let broken = self.keys()?.into_iter().filter(|key| !readable.contains(&key.as_str()));
        surplus.extend(broken);
        let mut removed = 0;
        for key in surplus {
            let lock = self.lock_file(&key)?;
            if lock.try_lock().is_ok() {
                self.forget(&key)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// What content amounts to.
struct Measured {
    manifest: String,
    entries: u64,
    bytes: u64,
}

/// Looks through a layer or an archive, without reading what the files hold.
fn measure(content: &Path, form: Form) -> io::Result<Measured> {
    let mut digest = StreamDigest::default();
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    if form == Form::Archive {
        let status = content.symlink_metadata()?;
        if !status.is_file() {
            return Err(io::Error::other("it is no archive"));
        }
        let modified = status.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        digest.update(format!("{} {}", status.len(), modified.as_nanos()).as_bytes());
        return Ok(Measured { manifest: digest.hex(), entries: 1, bytes: status.len() });
    }
    visit_tree(content, MOST_ENTRIES, &mut |entry| {
        entries += 1;
        bytes = bytes.saturating_add(entry.bytes);
        let kind = match entry.kind {
            EntryKind::Directory => "d",
            EntryKind::File => "f",
            EntryKind::Link => "l",
            EntryKind::Other => "o",
        };
        let path = entry.path.as_os_str().as_encoded_bytes();
        digest.update(format!("{kind} {:o} {} {}:", entry.mode, entry.bytes, path.len()).as_bytes());
        digest.update(path);
        if entry.kind == EntryKind::File {
            digest.update(format!(" {}.{}", entry.modified.0, entry.modified.1).as_bytes());
        }
        if let Some(target) = &entry.target {
            let target = target.as_os_str().as_encoded_bytes();
            digest.update(format!(" {}:", target.len()).as_bytes());
            digest.update(target);
        }
        digest.update(b"\n");
    })?;
    Ok(Measured { manifest: digest.hex(), entries, bytes })
}

/// Which start of the machine this is.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Writes a description so that a crash leaves the old or the new one.
fn write(path: &Path, entry: &SetupEntry) -> io::Result<()> {
    use std::io::Write;
    let draft = path.with_extension("json-new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(entry)?)?;
    file.sync_all()?;
    std::fs::rename(draft, path)
}
