//! From a description to the mount table: one list from which bubblewrap's arguments, the outer stage's
//! operations, the Landlock rules and the plan are all made, so that they cannot disagree.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::landlock::{self, LandlockRule};
use crate::layout::{SystemDirectory, SystemLayout};
use crate::protocol::c_string;
use crate::{Access, ExecPolicy, INSIDE_HOME, INSIDE_WORK, SandboxError, SandboxSpec, Workspace};

/// What is at one place of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path of the host that every user may reach.
    Host(PathBuf),
    /// A mount that the outer stage prepares.
    Staged(Staged),
    Tmpfs {
        size: u64,
        mode: u32,
    },
    Proc,
    Devices,
    Link(PathBuf),
    Text(String),
    Masked,
    /// Makes an earlier entry read-only, now that everything below it is there.
    Sealed,
}

/// A mount that the outer stage prepares, because the run's user could not reach or own it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Staged {
    Copy {
        host: PathBuf,
        is_directory: bool,
        idmap: Option<Owner>,
    },
    /// Without a layer it is read-only; it is still an overlay, since the mount table would name the host's place of a
    /// plain copy to whoever reads it inside.
    Overlay {
        lower: PathBuf,
        /// What lies between the checkout and the run's own layer, with its owner where that is another one.
        over: Option<(PathBuf, Option<Owner>)>,
        layer: Option<Layer>,
        idmap: Option<Owner>,
    },
    Tmpfs {
        size: u64,
        mode: u32,
    },
}

/// The directories of an overlay's writable layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// What the run has written.
    pub(crate) upper: PathBuf,
    /// Where the kernel works: a new one for each mount, since a volatile overlay (one that does not write the whole
    /// disk's cache out at its end) marks it as used up.
    pub(crate) work: PathBuf,
}

impl Layer {
    fn fresh(state: &Path) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let work = state.join(format!("work-{}-{count}", std::process::id()));
        Self { upper: state.join(UPPER), work }
    }
}

/// The owner on disk of what the run's user shall own inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inside: PathBuf,
    pub(crate) source: Source,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

/// The table of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountTable {
    pub(crate) entries: Vec<Entry>,
    pub(crate) landlock: Vec<LandlockRule>,
}

impl MountTable {
    pub(crate) fn compile(spec: &SandboxSpec, layout: &SystemLayout) -> Result<Self, SandboxError> {
        let mut table = Self { entries: Vec::with_capacity(64), landlock: Vec::with_capacity(16) };
        // Landlock's rights hold for everything below a path; a lookup of `/` itself is a ReadDir.
        table.allow("/", landlock::READ_DIR)?;
        table.system(layout)?;
        table.kernel(layout)?;
        table.scratch(spec)?;
        table.installed(spec)?;
        table.home_folders(spec)?;
        table.workspace(spec)?;
        table.seal("/");
        Ok(table)
    }

    fn push(&mut self, inside: impl Into<PathBuf>, source: Source, writable: bool, executable: bool) {
        self.entries.push(Entry { inside: inside.into(), source, writable, executable });
    }

    fn seal(&mut self, inside: &str) {
        self.push(inside, Source::Sealed, false, true);
    }

    fn allow(&mut self, path: impl AsRef<Path>, access: u64) -> Result<(), SandboxError> {
        let path = c_string(path.as_ref()).ok_or_else(|| SandboxError::spec("a path has a zero byte"))?;
        self.landlock.push(LandlockRule { path, access });
        Ok(())
    }

    fn system(&mut self, layout: &SystemLayout) -> Result<(), SandboxError> {
        self.push("/usr", Source::Host("/usr".into()), false, true);
        self.allow("/usr", landlock::READ | landlock::EXECUTE)?;
        for directory in &layout.directories {
            match directory {
                SystemDirectory::Link { path, target } => {
                    self.push(*path, Source::Link(target.clone()), false, true);
                }
                SystemDirectory::Real { path } => {
                    self.push(*path, Source::Host(path.into()), false, true);
                    self.allow(path, landlock::READ | landlock::EXECUTE)?;
                }
            }
        }
        for path in &layout.configuration {
            self.push(*path, Source::Host(path.into()), false, false);
        }
        for (path, text) in SYNTHETIC {
            self.push(*path, Source::Text((*text).to_owned()), false, false);
        }
        self.allow("/etc", landlock::READ)
    }

    fn kernel(&mut self, layout: &SystemLayout) -> Result<(), SandboxError> {
        self.push("/proc", Source::Proc, true, false);
        for path in &layout.masked {
            self.push(*path, Source::Masked, false, false);
        }
        self.allow("/proc", landlock::READ | landlock::WRITE_FILE | landlock::TRUNCATE)?;
        self.push("/dev", Source::Devices, true, false);
        let device = landlock::READ | landlock::WRITE_FILE | landlock::TRUNCATE | landlock::IOCTL_DEV;
        self.allow("/dev", device)
    }

    fn scratch(&mut self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let limits = &spec.limits;
        let places = [
            ("/dev/shm", limits.shm_bytes, 0o1777),
            ("/tmp", limits.tmp_bytes, 0o1777),
            (INSIDE_HOME, limits.home_bytes, 0o700),
        ];
        for (inside, size, mode) in places {
            self.push_scratch(spec, inside, size, mode)?;
            if inside == "/dev/shm" {
                self.seal("/dev");
            }
        }
        Ok(())
    }

    /// A sized tmpfs. bubblewrap's own can be executed from, so under the strict policy the stage makes it.
    fn push_scratch(
        &mut self,
        spec: &SandboxSpec,
        inside: &str,
        size: u64,
        mode: u32,
    ) -> Result<(), SandboxError> {
        let executable = spec.exec == ExecPolicy::Any;
        let source = if executable {
            Source::Tmpfs { size, mode }
        } else {
            Source::Staged(Staged::Tmpfs { size, mode })
        };
        let writable = inside != INSIDE_WORK || spec.access == Access::ReadWrite;
        self.push(inside, source, writable, executable);
        self.allow(inside, work_rights(writable, executable))
    }

    fn installed(&mut self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let granted = spec.grants.iter().flat_map(|grant| &grant.directories).map(|path| (path, path));
        let mounted = spec.read_only_mounts.iter().map(|mount| (&mount.host, &mount.inside));
        let mut places: Vec<_> = granted.chain(mounted).collect();
        // A directory comes before what is mounted inside it.
        places.sort_by_key(|(_, inside)| inside.components().count());
        places.dedup();
        for (host, inside) in places {
            check_inside(inside)?;
            let status = host.symlink_metadata().map_err(|error| {
                SandboxError::spec(format!("{} cannot be mounted: {error}", host.display()))
            })?;
            if status.is_symlink() || !host.is_absolute() {
                return Err(SandboxError::spec(format!(
                    "{} is a link or not absolute: name the real place",
                    host.display()
                )));
            }
            let copy = Staged::Copy { host: host.clone(), is_directory: status.is_dir(), idmap: None };
            self.push(inside, Source::Staged(copy), false, true);
            self.allow(inside, landlock::READ | landlock::EXECUTE)?;
        }
        Ok(())
    }

    fn home_folders(&mut self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        for folder in &spec.home_folders {
            let below = folder.inside.strip_prefix(INSIDE_HOME).ok();
            let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
            if !below.is_some_and(|below| !below.as_os_str().is_empty() && plain(below)) {
                let inside = folder.inside.display();
                return Err(SandboxError::spec(format!("{inside} is no folder of the home folder")));
            }
            let idmap = owner_to_map(spec, &folder.host)?;
            let copy = Staged::Copy { host: folder.host.clone(), is_directory: true, idmap };
            let executable = spec.exec == ExecPolicy::Any;
            self.push(&folder.inside, Source::Staged(copy), true, executable);
            self.allow(&folder.inside, work_rights(true, executable))?;
        }
        Ok(())
    }

    fn workspace(&mut self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        let executable = spec.exec == ExecPolicy::Any;
        let writable = spec.access == Access::ReadWrite;
        let staged = match &spec.workspace {
            Workspace::Empty => {
                return self.push_scratch(spec, INSIDE_WORK, spec.limits.tmp_bytes, 0o755);
            }
            Workspace::Directory { path } => {
                let idmap = owner_to_map(spec, path)?;
                Staged::Copy { host: path.clone(), is_directory: true, idmap }
            }
            // A read-only run needs no layer of its own, but sees the one that an earlier one wrote.
            Workspace::Overlay { lower, over, state } => {
                let idmap = owner_to_map(spec, lower)?;
                let over = match over {
                    Some(path) => Some((path.clone(), owner_to_map(spec, path)?)),
                    None => None,
                };
                let layer = (writable || state.join(UPPER).exists()).then(|| Layer::fresh(state));
                Staged::Overlay { lower: lower.clone(), over, layer, idmap }
            }
        };
        self.push(INSIDE_WORK, Source::Staged(staged), writable, executable);
        self.allow(INSIDE_WORK, work_rights(writable, executable))
    }
}

/// The directory of the run's own layer, in an overlay's state.
const UPPER: &str = "upper";

const SYNTHETIC: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n"),
    ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
];

fn work_rights(writable: bool, executable: bool) -> u64 {
    let rights = if writable { landlock::READ_WRITE } else { landlock::READ };
    if executable { rights | landlock::EXECUTE } else { rights }
}

/// Whose files must appear as the run's user's: the owner's, unless it is that user already.
fn owner_to_map(spec: &SandboxSpec, path: &Path) -> Result<Option<Owner>, SandboxError> {
    let status = path
        .symlink_metadata()
        .map_err(|error| SandboxError::spec(format!("{} is unusable: {error}", path.display())))?;
    if !status.is_dir() || !path.is_absolute() {
        return Err(SandboxError::spec(format!("{} is not an absolute directory", path.display())));
    }
    let owner = Owner { uid: status.uid(), gid: status.gid() };
    let is_own = owner.uid == spec.identity.uid() && owner.gid == spec.identity.gid();
    if spec.identity.is_dedicated() { Ok((!is_own).then_some(owner)) } else { Ok(None) }
}

/// Places that a mount from outside may not cover.
pub(crate) fn check_inside(inside: &Path) -> Result<(), SandboxError> {
    const RESERVED: [&str; 9] =
        ["/usr", "/proc", "/dev", "/sys", "/etc", "/tmp", "/run", "/var", INSIDE_WORK];
    let plain = inside.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let reserved = RESERVED.iter().any(|place| inside.starts_with(place)) || inside == Path::new(INSIDE_HOME);
    let covers = inside == Path::new("/") || Path::new(INSIDE_HOME).starts_with(inside);
    if !inside.is_absolute() || !plain || reserved || covers {
        return Err(SandboxError::spec(format!("nothing can be mounted at {} inside", inside.display())));
    }
    Ok(())
}
