//! The mount table as bubblewrap's arguments and as the outer stage's operations.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::path::Path;

use crate::layout::SystemLayout;
use crate::mounts::{Entry, Layer, MountTable, Owner, Source, Staged};
use crate::protocol::{INIT_ARGUMENT, c_string, descriptor};
use crate::stage::{self, StageOperation};
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use crate::{RunIdentity, SandboxError};

/// Whether the sources are the staged ones, or harmless stand-ins of the same kind for a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    Staged,
    StandIns,
}

/// bubblewrap's arguments, without the command; and the texts of the files whose descriptors they name.
pub(crate) struct Arguments {
    pub(crate) list: Vec<OsString>,
    pub(crate) files: Vec<String>,
}

/// The namespaces and the identity inside: the same for every sandbox.
const FIXED: [&str; 17] = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup",
    "--disable-userns",
    "--die-with-parent",
    "--hostname",
    "sandbox",
    "--uid",
    "1000",
    "--gid",
    "1000",
    "--chdir",
    "/",
    "--clearenv",
];

pub(crate) fn bubblewrap(table: &MountTable, layout: &SystemLayout, sources: Sources) -> Arguments {
    let mut out = Arguments { list: FIXED.map(OsString::from).to_vec(), files: Vec::new() };
    if sources == Sources::Staged {
        out.push(["--info-fd".into(), descriptor::INFO.to_string().into()]);
    }
    let mut staged = 0;
    for entry in &table.entries {
        out.entry(entry, layout, sources, &mut staged);
    }
    out
}

/// The command that bubblewrap is given: our init stage, by descriptor, so that the program needs no place in the
/// mount table, cannot be found inside, and stays the one that the server was started from.
pub(crate) fn init_command() -> [OsString; 2] {
    [format!("/proc/self/fd/{}", descriptor::INIT_PROGRAM).into(), INIT_ARGUMENT.into()]
}

impl Arguments {
    fn push<const N: usize>(&mut self, words: [OsString; N]) {
        self.list.extend(words);
    }

    fn entry(&mut self, entry: &Entry, layout: &SystemLayout, sources: Sources, staged: &mut usize) {
        let inside = OsString::from(&entry.inside);
        let bind = if entry.writable { "--bind" } else { "--ro-bind" };
        match &entry.source {
            Source::Host(path) => self.push(["--ro-bind".into(), path.into(), inside]),
            Source::Staged(mount) => {
                let source = match (sources, mount) {
                    (Sources::Staged, _) => stage_point(layout.stage, *staged),
                    (Sources::StandIns, Staged::Copy { is_directory: false, .. }) => "/usr/bin/true".into(),
                    (Sources::StandIns, _) => "/usr/share".into(),
                };
                *staged += 1;
                self.push([bind.into(), source.into(), inside]);
            }
            Source::Tmpfs { size, mode } => self.push([
                "--perms".into(),
                format!("{mode:04o}").into(),
                "--size".into(),
                size.to_string().into(),
                "--tmpfs".into(),
                inside,
            ]),
            Source::Proc => self.push(["--proc".into(), inside]),
            Source::Devices => self.push(["--dev".into(), inside]),
            Source::Link(target) => self.push(["--symlink".into(), target.into(), inside]),
            Source::Text(text) => {
                let number = descriptor::FILES + RawFd::try_from(self.files.len()).unwrap_or(0);
                self.files.push(text.clone());
                self.push([
                    "--perms".into(),
                    "0444".into(),
                    "--file".into(),
                    number.to_string().into(),
                    inside,
                ]);
            }
            Source::Masked => self.push(["--ro-bind".into(), "/dev/null".into(), inside]),
            Source::Sealed => self.push(["--remount-ro".into(), inside]),
        }
    }

    /// As `--args` wants them: each ended by a zero byte.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let mut out = Vec::with_capacity(4096);
        for word in &self.list {
            out.extend_from_slice(word.as_bytes());
            out.push(0);
        }
        out
    }
}

fn stage_point(stage: &str, index: usize) -> String {
    format!("{stage}/{index}")
}

/// The user namespaces by which owners are mapped, ready before the fork.
pub(crate) type OwnerMaps = HashMap<Owner, RawFd>;

/// Under which numbers the outer stage opens the directories of an overlay's layer. The server keeps the numbers
/// taken until after the fork, so that nothing else can sit there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNumbers {
    pub(crate) upper: RawFd,
    pub(crate) work: RawFd,
}

/// The outer stage's operations for the staged mounts of `table`, in their order.
pub(crate) fn stage_operations(
    table: &MountTable,
    layout: &SystemLayout,
    identity: &RunIdentity,
    maps: &OwnerMaps,
    numbers: LayerNumbers,
) -> Result<Vec<StageOperation>, SandboxError> {
    let (copies, places) = (Vec::new(), Vec::new());
    let mut builder = Builder { copies, places, stage: layout.stage, identity, maps, numbers, slot: 0 };
    let mut index = 0;
    for entry in &table.entries {
        if let Source::Staged(staged) = &entry.source {
            builder.staged(index, staged, entry)?;
            index += 1;
        }
    }
    let Builder { copies, places, .. } = builder;
    let mut operations = vec![StageOperation::MakePrivate];
    // Every source is taken before the stage covers anything.
    operations.extend(copies);
    if identity.is_dedicated() {
        operations.push(StageOperation::Detach { path: text("/sys")? });
    }
    operations.push(StageOperation::StageRoot { path: text(layout.stage)? });
    operations.extend(places);
    Ok(operations)
}

struct Builder<'a> {
    copies: Vec<StageOperation>,
    places: Vec<StageOperation>,
    stage: &'a str,
    identity: &'a RunIdentity,
    maps: &'a OwnerMaps,
    numbers: LayerNumbers,
    slot: usize,
}

impl Builder<'_> {
    fn staged(&mut self, index: usize, staged: &Staged, entry: &Entry) -> Result<(), SandboxError> {
        let point = stage_point(self.stage, index);
        match staged {
            Staged::Copy { host, is_directory, idmap } => {
                self.copy(host, &point, *is_directory, entry, idmap.as_ref())
            }
            Staged::Overlay { lower, over, layer, idmap } => {
                let lowers = [
                    over.as_ref().map(|(path, owner)| (path, owner.as_ref())),
                    Some((lower, idmap.as_ref())),
                ];
                self.overlay(lowers.into_iter().flatten(), layer.as_ref(), &point, entry.executable)
            }
            Staged::Tmpfs { size, mode } => {
                let (uid, gid) = (self.identity.uid(), self.identity.gid());
                let options = format!("mode={mode:o},size={size},uid={uid},gid={gid}");
                self.places.push(StageOperation::Directory { path: text(&point)? });
                self.places.push(StageOperation::Tmpfs { path: text(&point)?, options: text(options)? });
                Ok(())
            }
        }
    }

    fn copy(
        &mut self,
        host: &Path,
        point: &str,
        is_directory: bool,
        entry: &Entry,
        idmap: Option<&Owner>,
    ) -> Result<(), SandboxError> {
        let mut attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
        if !entry.writable {
            attributes |= MOUNT_ATTR_RDONLY;
        }
        if !entry.executable {
            attributes |= MOUNT_ATTR_NOEXEC;
        }
        self.clone_to(host, point, is_directory, attributes, idmap)
    }

    fn clone_to(
        &mut self,
        host: &Path,
        point: &str,
        is_directory: bool,
        attributes: u64,
        idmap: Option<&Owner>,
    ) -> Result<(), SandboxError> {
        let slot = self.slot;
        self.slot += 1;
        if slot >= stage::SLOTS {
            return Err(SandboxError::spec(format!("more than {} mounts from outside", stage::SLOTS)));
        }
        let idmap = match idmap {
            Some(owner) => Some(*self.maps.get(owner).ok_or_else(|| SandboxError::StartFailed {
                step: "idmap",
                detail: "the owner's map was not prepared".into(),
            })?),
            None => None,
        };
        // A map of owners works on one filesystem; elsewhere, what is mounted below comes along.
        let recursive = is_directory && idmap.is_none();
        self.copies.push(StageOperation::Clone { path: text(host)?, slot, recursive, attributes, idmap });
        let path = text(point)?;
        self.places.push(if is_directory {
            StageOperation::Directory { path: path.clone() }
        } else {
            StageOperation::File { path: path.clone() }
        });
        self.places.push(StageOperation::Attach { slot, path });
        Ok(())
    }

    /// `lowers` are the read-only layers, the topmost first.
    fn overlay<'l>(
        &mut self,
        lowers: impl Iterator<Item = (&'l std::path::PathBuf, Option<&'l Owner>)>,
        layer: Option<&Layer>,
        point: &str,
        executable: bool,
    ) -> Result<(), SandboxError> {
        let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY;
        let mut points = Vec::with_capacity(2);
        for (lower, idmap) in lowers {
            let lower_point = format!("{point}-lower{}", if points.is_empty() { "" } else { "-2" });
            self.clone_to(lower, &lower_point, true, attributes, idmap)?;
            points.push(lower_point);
        }
        let lower_point = points.join(":");
        // Root may keep marks of renamed directories in attributes that no run can write; others may not.
        let marks = if self.identity.is_dedicated() { "redirect_dir=on" } else { "userxattr" };
        let options = if let Some(layer) = layer {
            let LayerNumbers { upper, work } = self.numbers;
            for (path, number) in [(&layer.upper, upper), (&layer.work, work)] {
                self.copies.push(StageOperation::OpenDirectory { path: text(path)?, number });
            }
            format!(
                "lowerdir={lower_point},upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{work},{marks}"
            )
        } else if points.len() > 1 {
            format!("lowerdir={lower_point},{marks}")
        } else {
            // The kernel takes no overlay of one layer.
            let empty = format!("{point}-empty");
            self.places.push(StageOperation::Directory { path: text(&empty)? });
            format!("lowerdir={lower_point}:{empty},{marks}")
        };
        self.places.push(StageOperation::Directory { path: text(point)? });
        self.places.push(StageOperation::Overlay { path: text(point)?, options: text(options)?, executable });
        Ok(())
    }
}

fn text(value: impl AsRef<std::ffi::OsStr>) -> Result<CString, SandboxError> {
    c_string(value).ok_or_else(|| SandboxError::spec("a path has a zero byte"))
}
