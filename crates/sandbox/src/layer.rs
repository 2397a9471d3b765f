//! Layers that one sandbox wrote and others lie upon: bringing them into a form that can be shared, looking through them,
//! and reading files out of a tree that is not ours.
//!
//! As in [`crate::tree`], every step goes through a descriptor of the directory that it is in and follows no link.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::tree::{DIRECTORY, names, remove_tree};

/// Levels of directories that a layer may have.
const DEPTH: u32 = 200;
/// Names that a report gives at most.
const REPORTED: usize = 20;

/// What [`settle_layer`] found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettledLayer {
    /// How many files of the checkout were changed, replaced or removed in the layer, and are as in the checkout again.
    pub restored: u64,
    /// The first of them.
    pub restored_names: Vec<PathBuf>,
    /// Entries that stay.
    pub entries: u64,
}

/// Makes the upper layer that a finished sandbox wrote into a layer that holds only what is new over `lower`: what
/// changes, hides or replaces a file of `lower` is removed, the kernel's marks are taken off, and pipes, sockets and
/// devices go, too. `.git` at the top goes as a whole. Everything is given to `owner` (user and group) where one is named.
///
/// No process may work in the layer any more.
///
/// # Errors
/// The first step that the system refuses; a tree deeper than 200 levels, or with more than `most` entries.
pub fn settle_layer(
    upper: &Path,
    lower: &Path,
    owner: Option<(u32, u32)>,
    most: u64,
) -> io::Result<SettledLayer> {
    remove_tree(&upper.join(".git"))?;
    let top = rustix::fs::open(upper, DIRECTORY, Mode::empty())?;
    let below = rustix::fs::open(lower, DIRECTORY, Mode::empty())?;
    let mut settling = Settling { owner, most, done: SettledLayer::default() };
    settling.directory(&top, Some(&below), Path::new(""), DEPTH)?;
    Ok(settling.done)
}

struct Settling {
    owner: Option<(u32, u32)>,
    most: u64,
    done: SettledLayer,
}

impl Settling {
    fn restored(&mut self, path: &Path) {
        self.done.restored += 1;
        if self.done.restored_names.len() < REPORTED {
            self.done.restored_names.push(path.to_owned());
        }
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        lower: Option<&OwnedFd>,
        path: &Path,
        depth: u32,
    ) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::other("its folders are nested too deeply"));
        }
        unmark(directory)?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        for (name, _) in names(directory)? {
            let status = rustix::fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(status.st_mode);
            let under = match lower {
                Some(lower) => there(lower.as_fd(), &name)?,
                None => None,
            };
            let under_kind = under.map(|status| FileType::from_raw_mode(status.st_mode));
            let path = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            match (kind, under_kind) {
                (FileType::Directory, None | Some(FileType::Directory)) => {
                    self.count()?;
                    let child = open_own(directory, &name)?;
                    let below = match (lower, under_kind) {
                        (Some(lower), Some(_)) => {
                            Some(rustix::fs::openat(lower, &*name, DIRECTORY, Mode::empty())?)
                        }
                        _ => None,
                    };
                    // Its rights are put back last: until then they are the ones we need.
                    self.directory(&child, below.as_ref(), &path, depth - 1)?;
                    let mode = under.unwrap_or(status).st_mode & 0o7777;
                    rustix::fs::fchmod(&child, Mode::from_raw_mode(mode | 0o700))?;
                    if under_kind.is_some()
                        && rustix::fs::unlinkat(directory, &*name, AtFlags::REMOVEDIR).is_ok()
                    {
                        self.done.entries -= 1;
                    }
                }
                (FileType::RegularFile | FileType::Symlink, None) => {
                    self.count()?;
                    if let Some((uid, gid)) = self.owner {
                        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                        rustix::fs::chownat(directory, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                    }
                }
                (_, under) => {
                    if under.is_some() {
                        self.restored(&path);
                    }
                    remove_tree(&by_descriptor(directory.as_fd(), &name))?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        self.done.entries += 1;
        if self.done.entries > self.most {
            return Err(io::Error::other(format!("it holds more than {} files", self.most)));
        }
        Ok(())
    }
}

/// A directory of the layer, after its owner has every right on it.
fn open_own(parent: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    match rustix::fs::openat(parent, &**name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = rustix::fs::openat(parent, &**name, DIRECTORY | OFlags::PATH, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)?;
            Ok(rustix::fs::openat(parent, &**name, DIRECTORY, Mode::empty())?)
        }
        Ok(directory) => {
            rustix::fs::fchmod(&directory, Mode::RWXU)?;
            Ok(directory)
        }
        Err(error) => Err(error.into()),
    }
}

fn by_descriptor(directory: BorrowedFd<'_>, name: &CString) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

fn there(directory: BorrowedFd<'_>, name: &CString) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, &**name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the kernel's marks off a directory: that it hides the one below, or that it was moved.
fn unmark(directory: &OwnedFd) -> io::Result<()> {
    let mut list = vec![0_u8; 4096];
    let length = match rustix::fs::flistxattr(directory, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        if text.starts_with("trusted.overlay.") || text.starts_with("user.overlay.") {
            rustix::fs::fremovexattr(directory, text)?;
        }
    }
    Ok(())
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// An ordinary file.
    File,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its path within the tree.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Its permissions.
    pub mode: u32,
    /// The length of a file, in bytes; 0 for anything else.
    pub bytes: u64,
    /// When it was changed: seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, i64),
    /// Where a link leads to.
    pub target: Option<PathBuf>,
}

/// Shows every entry of a tree to `look`, directory by directory, in the order of their names.
///
/// # Errors
/// What can't be read; a tree that is too deep, or has more than `most` entries.
pub fn visit_tree(path: &Path, most: u64, look: &mut dyn FnMut(&TreeEntry)) -> io::Result<()> {
    let top = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    let mut left = most;
    visit(&top, Path::new(""), DEPTH, &mut left, look)
}

fn visit(
    directory: &OwnedFd,
    path: &Path,
    depth: u32,
    left: &mut u64,
    look: &mut dyn FnMut(&TreeEntry),
) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = names(directory)?;
    found.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, _) in found {
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("it holds too many files"))?;
        let status = rustix::fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Link,
            _ => EntryKind::Other,
        };
        let target = if kind == EntryKind::Link {
            let target = rustix::fs::readlinkat(directory, &*name, Vec::new())?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes())))
        } else {
            None
        };
        let path = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        look(&TreeEntry {
            path: path.clone(),
            kind,
            mode: status.st_mode & 0o7777,
            bytes: if kind == EntryKind::File { u64::try_from(status.st_size).unwrap_or(0) } else { 0 },
            modified: (status.st_mtime, i64::try_from(status.st_mtime_nsec).unwrap_or(0)),
            target,
        });
        if kind == EntryKind::Directory {
            let depth = depth.checked_sub(1).ok_or_else(|| io::Error::other("it is nested too deeply"))?;
            let child = rustix::fs::openat(directory, &*name, DIRECTORY, Mode::empty())?;
            visit(&child, &path, depth, left, look)?;
        }
    }
    Ok(())
}

/// A file of somebody's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// What it holds.
    pub content: Vec<u8>,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Why a file of somebody's tree is not read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableFile {
    /// The path is none within the tree.
    #[error("it is no path within the repository")]
    Path,
    /// A part of it is a symbolic link.
    #[error("{} is a symbolic link, and links are not followed", .0.display())]
    Link(PathBuf),
    /// It is no ordinary file.
    #[error("it is no ordinary file")]
    NoFile,
    /// It is larger than the bound.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the file `relative` below `root`, of at most `most` bytes, without following a link on the way; `None` when it
/// is not there.
///
/// # Errors
/// [`UnreadableFile`].
pub fn read_beneath(root: &Path, relative: &Path, most: u64) -> Result<Option<FoundFile>, UnreadableFile> {
    let mut parts = Vec::new();
    for part in relative.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            _ => return Err(UnreadableFile::Path),
        }
    }
    let Some((last, folders)) = parts.split_last() else { return Err(UnreadableFile::Path) };
    let system = |error: Errno| UnreadableFile::Io(error.into());
    let top = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut folder = rustix::fs::open(root, top, Mode::empty()).map_err(system)?;
    let mut so_far = PathBuf::new();
    for name in folders {
        so_far.push(name);
        folder = match rustix::fs::openat(&folder, *name, DIRECTORY, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                let status = rustix::fs::statat(&folder, *name, AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
                return Err(match FileType::from_raw_mode(status.st_mode) {
                    FileType::Symlink => UnreadableFile::Link(so_far),
                    _ => system(error),
                });
            }
            Err(error) => return Err(system(error)),
        };
    }
    // Neither a link nor a pipe holds us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&folder, *last, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(UnreadableFile::Link(relative.to_owned())),
        Err(Errno::NXIO) => return Err(UnreadableFile::NoFile),
        Err(error) => return Err(system(error)),
    };
    let status = rustix::fs::fstat(&file).map_err(system)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(UnreadableFile::NoFile);
    }
    let mut content = Vec::new();
    std::fs::File::from(file).take(most.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > most {
        return Err(UnreadableFile::TooLarge(most));
    }
    Ok(Some(FoundFile { content, executable: status.st_mode & 0o100 != 0 }))
}

/// Writes the file system of `path` out to its disk.
///
/// # Errors
/// What the system refuses.
pub fn write_out(path: &Path) -> io::Result<()> {
    let place = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())?;
    Ok(rustix::fs::syncfs(&place)?)
}
