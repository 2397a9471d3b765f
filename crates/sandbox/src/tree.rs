//! Removing and measuring directory trees that an adversary has made.
//!
//! Every step goes through a descriptor of the directory it is in, never through a path of more than one name, and
//! never follows a symbolic link: whatever the tree is made of, nothing outside it is touched.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use serde::Serialize;

/// How far [`tree_usage`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageBound {
    /// Stop after this many directory entries.
    pub entries: u64,
    /// Stop below this depth. At most 256: each level holds a descriptor.
    pub depth: u32,
}

impl Default for UsageBound {
    fn default() -> Self {
        Self { entries: 1_000_000, depth: 128 }
    }
}

/// The size of a tree on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TreeUsage {
    /// Allocated bytes (not apparent size). A file with several names counts once for each.
    pub bytes: u64,
    /// Entries of every kind, the top directory not counted.
    pub files: u64,
    /// False when the bound was reached or a part was unreadable: treat it as over any quota.
    pub complete: bool,
}

pub(crate) const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Removes a tree whatever is in it: directories without permissions, any depth, overlay leftovers. Never
/// follows a symbolic link, never leaves the tree. A path that does not exist is removed already.
///
/// A directory that is not empty is first moved to the top of the tree, so that neither depth nor length of paths
/// matters; two descriptors are open at a time.
///
/// # Errors
/// The first entry that could not be removed; everything else is gone.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no last name"));
    };
    let parent = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty());
    let parent = match parent {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let name = crate::protocol::c_string(name).ok_or(Errno::INVAL)?;
    match rustix::fs::unlinkat(&parent, &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open_directory(&parent, &name)?;
    let mut removal = Removal { top: &top, waiting: Vec::new(), counter: 0, failure: None };
    removal.empty(&top)?;
    while let Some(moved) = removal.waiting.pop() {
        removal.moved_directory(&moved);
    }
    if let Some(failure) = removal.failure {
        return Err(failure.into());
    }
    Ok(rustix::fs::unlinkat(&parent, &*name, AtFlags::REMOVEDIR)?)
}

/// Opens a directory by one name, after giving its owner every right on it.
fn open_directory(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Without O_PATH a directory of mode 000 cannot be opened; chmod through the descriptor's own name
            // cannot be led astray by a swapped link.
            let handle = rustix::fs::openat(parent, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
            unlock(&handle)?;
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
        }
        Ok(directory) => {
            let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
            Ok(directory)
        }
        Err(error) => Err(error),
    }
}

fn unlock(handle: &OwnedFd) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    /// Names, at the top, of directories that were not empty.
    waiting: Vec<CString>,
    counter: u64,
    failure: Option<Errno>,
}

impl Removal<'_> {
    fn note(&mut self, error: Errno) {
        if error != Errno::NOENT {
            self.failure.get_or_insert(error);
        }
    }

    /// Removes what it can of a directory, and moves the directories that are not empty to the top.
    fn empty(&mut self, directory: &OwnedFd) -> rustix::io::Result<()> {
        for entry in names(directory)? {
            let (name, kind) = entry;
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(directory, &*name, AtFlags::empty()) {
                    Ok(()) => continue,
                    Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                    Err(error) => {
                        self.note(error);
                        continue;
                    }
                }
            }
            if rustix::fs::unlinkat(directory, &*name, AtFlags::REMOVEDIR).is_ok() {
                continue;
            }
            self.lift(directory, &name);
        }
        Ok(())
    }

    fn lift(&mut self, directory: &OwnedFd, name: &CStr) {
        // Its own `..` changes with the move, so its owner must have every right on it first.
        if let Err(error) = open_directory(directory, name) {
            return self.note(error);
        }
        for _ in 0..64 {
            self.counter += 1;
            let Ok(fresh) = CString::new(format!(".tipstaff-removal-{}", self.counter)) else { return };
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(directory, name, self.top, &*fresh, flags) {
                Ok(()) => return self.waiting.push(fresh),
                Err(Errno::EXIST) => {}
                Err(error) => return self.note(error),
            }
        }
        self.note(Errno::EXIST);
    }

    fn moved_directory(&mut self, name: &CStr) {
        let outcome = open_directory(self.top, name).and_then(|directory| self.empty(&directory));
        if let Err(error) = outcome {
            return self.note(error);
        }
        if let Err(error) = rustix::fs::unlinkat(self.top, name, AtFlags::REMOVEDIR) {
            self.note(error);
        }
    }
}

/// All names of a directory, read before any of it is changed.
pub(crate) fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut out = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            out.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

/// Measures a tree without following symbolic links and without leaving its filesystem. Entries that vanish
/// meanwhile are not counted. (Of an overlay's state measure `upper`: the kernel's own part has no permissions.)
///
/// # Errors
/// Only when `path` itself cannot be opened.
pub fn tree_usage(path: &Path, bound: UsageBound) -> io::Result<TreeUsage> {
    let top = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    let device = rustix::fs::fstat(&top)?.st_dev;
    let mut measure = Measure { bound, device, usage: TreeUsage { complete: true, ..TreeUsage::default() } };
    measure.directory(&top, bound.depth.min(256));
    Ok(measure.usage)
}

struct Measure {
    bound: UsageBound,
    device: u64,
    usage: TreeUsage,
}

impl Measure {
    /// Recursive; the depth is bounded to 256 levels of a small frame.
    fn directory(&mut self, directory: &OwnedFd, depth: u32) {
        let mut below = Vec::new();
        let mut buffer = Vec::with_capacity(16_384);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                self.usage.complete = false;
                break;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.usage.files >= self.bound.entries {
                self.usage.complete = false;
                return;
            }
            let Ok(status) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.count(&status);
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory && status.st_dev == self.device
            {
                below.push(name.to_owned());
            }
        }
        for name in below {
            if self.usage.files >= self.bound.entries {
                self.usage.complete = false;
                return;
            }
            match rustix::fs::openat(directory, &*name, DIRECTORY, Mode::empty()) {
                Ok(child) if depth > 0 => self.directory(&child, depth - 1),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Ok(_) | Err(_) => self.usage.complete = false,
            }
        }
    }

    fn count(&mut self, status: &Stat) {
        const BLOCK: u64 = 512;
        self.usage.files += 1;
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        self.usage.bytes = self.usage.bytes.saturating_add(blocks.saturating_mul(BLOCK));
    }
}
