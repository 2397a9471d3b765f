//! The outer stage: what the forked child does before it becomes bubblewrap.
//!
//! The server has many threads, so the child may use nothing but system calls on data prepared before the fork:
//! no allocation, no lock, no panic. That is why this is a list of operations and an interpreter for it.

use std::ffi::CString;
use std::os::fd::RawFd;

use crate::protocol::{Report, descriptor};
use crate::sys::{self, Errno, MountAttributes, PointerList};

/// Where the stage keeps its mounts: a directory that every user may cross, in the run's private mount namespace.
pub(crate) const STAGE_CANDIDATES: [&str; 4] = ["/mnt", "/media", "/srv", "/tmp"];

/// Copies of descriptors get numbers from here on, out of the way of those that bubblewrap finds.
const SCRATCH: RawFd = 200;
/// The most mounts that can be held at a time.
pub(crate) const SLOTS: usize = 64;

/// One operation of the outer stage.
#[derive(Debug)]
pub(crate) enum StageOperation {
    /// Writes a file in one go: a cgroup's `tasks`, a user namespace's map.
    Write { path: CString, bytes: Vec<u8> },
    /// Joins a cgroup by a descriptor opened by the server.
    JoinCgroup { tasks: RawFd },
    /// Stops mounts from spreading back to the host.
    MakePrivate,
    /// Lets go of a part of the host's tree that no run needs, if it is a mount. bubblewrap reads the whole mount
    /// table again for each of its mounts, so a short table is a fast start.
    Detach { path: CString },
    /// Takes a detached copy of a mount into a slot, with attributes.
    Clone { path: CString, slot: usize, recursive: bool, attributes: u64, idmap: Option<RawFd> },
    /// Mounts the stage's own tmpfs.
    StageRoot { path: CString },
    /// Makes a directory.
    Directory { path: CString },
    /// Makes an empty file.
    File { path: CString },
    /// Attaches a slot's mount.
    Attach { slot: usize, path: CString },
    /// Opens a directory under a fixed number, for an overlay's options.
    OpenDirectory { path: CString, number: RawFd },
    /// Mounts an overlay.
    Overlay { path: CString, options: CString, executable: bool },
    /// Mounts a tmpfs from which nothing can be executed.
    Tmpfs { path: CString, options: CString },
    /// Becomes the run's user.
    Become { uid: u32 },
}

impl StageOperation {
    /// What a failure of this operation is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "user-map",
            Self::JoinCgroup { .. } => "cgroup-join",
            Self::MakePrivate => "private-mounts",
            Self::Detach { .. } => "detach",
            Self::Clone { idmap: Some(_), .. } => "idmapped-mount",
            Self::Clone { .. } => "mount-copy",
            Self::StageRoot { .. } => "stage-root",
            Self::Directory { .. } | Self::File { .. } => "stage-point",
            Self::Attach { .. } => "mount-attach",
            Self::OpenDirectory { .. } => "overlay-directories",
            Self::Overlay { .. } => "overlay",
            Self::Tmpfs { .. } => "tmpfs",
            Self::Become { .. } => "become-user",
        }
    }

    /// The path it is about, for messages.
    pub(crate) fn path(&self) -> Option<&CString> {
        match self {
            Self::Write { path, .. }
            | Self::Detach { path }
            | Self::Clone { path, .. }
            | Self::StageRoot { path }
            | Self::Directory { path }
            | Self::File { path }
            | Self::Attach { path, .. }
            | Self::OpenDirectory { path, .. }
            | Self::Overlay { path, .. }
            | Self::Tmpfs { path, .. } => Some(path),
            Self::JoinCgroup { .. } | Self::MakePrivate | Self::Become { .. } => None,
        }
    }
}

/// Everything the child needs, complete before the fork.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) operations: Vec<StageOperation>,
    /// Descriptors to hand on: the server's number, and the number under which bubblewrap finds it.
    pub(crate) descriptors: Vec<(RawFd, RawFd)>,
    pub(crate) program: CString,
    pub(crate) argv: PointerList,
    pub(crate) envp: PointerList,
    /// The namespaces that the child is born into.
    pub(crate) clone_flags: u64,
    /// The v2 cgroup that the child is born into.
    pub(crate) cgroup: Option<RawFd>,
    /// The server's pid, to notice its death before the death signal is armed.
    pub(crate) parent: i32,
}

/// Runs in the child. Never returns: becomes bubblewrap, or reports and ends.
pub(crate) fn run(launch: &Launch) -> ! {
    let mut status = SCRATCH;
    let (step, errno) = match prepare(launch, &mut status) {
        Ok(()) => (u32::MAX, sys::execute(&launch.program, &launch.argv, &launch.envp)),
        Err(failure) => failure,
    };
    let report = Report::OuterFailed { step, errno }.encode();
    let _ = sys::write_once(status, &report);
    sys::exit_now(125)
}

const DESCRIPTORS_STEP: u32 = u32::MAX - 1;
const SESSION_STEP: u32 = u32::MAX - 2;
const PARENT_STEP: u32 = u32::MAX - 3;

/// The name of a step outside the list of operations.
pub(crate) fn step_name(step: u32) -> &'static str {
    match step {
        u32::MAX => "execute-bubblewrap",
        DESCRIPTORS_STEP => "descriptors",
        SESSION_STEP => "session",
        PARENT_STEP => "death-signal",
        _ => "unknown",
    }
}

fn prepare(launch: &Launch, status: &mut RawFd) -> Result<(), (u32, Errno)> {
    let at = |step: u32| move |errno: Errno| (step, errno);
    // First the status socket: without it no failure can be told.
    for (source, target) in &launch.descriptors {
        if *target == descriptor::STATUS {
            *status = sys::duplicate_above(*source, SCRATCH).map_err(at(DESCRIPTORS_STEP))?;
        }
    }
    sys::new_session().map_err(at(SESSION_STEP))?;
    let mut slots = [-1; SLOTS];
    for (index, operation) in (0_u32..).zip(&launch.operations) {
        operate(operation, &mut slots).map_err(at(index))?;
    }
    // Changing the user clears the death signal, so it is armed after that; then the parent is looked for.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0).map_err(at(PARENT_STEP))?;
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != launch.parent) {
        return Err((PARENT_STEP, libc::ESRCH));
    }
    pass_descriptors(launch, status).map_err(at(DESCRIPTORS_STEP))?;
    sys::reset_signals();
    Ok(())
}

fn operate(operation: &StageOperation, slots: &mut [RawFd; SLOTS]) -> Result<(), Errno> {
    match operation {
        StageOperation::Write { path, bytes } => sys::write_file(path, bytes),
        StageOperation::JoinCgroup { tasks } => sys::write_once(*tasks, b"0"),
        StageOperation::MakePrivate => {
            sys::mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE | libc::MS_SILENT, c"")
        }
        StageOperation::Detach { path } => {
            sys::detach(path);
            Ok(())
        }
        StageOperation::Clone { path, slot, recursive, attributes, idmap } => {
            let mount = sys::open_tree_clone(path, *recursive)?;
            let wanted = MountAttributes {
                set: *attributes | if idmap.is_some() { sys::MOUNT_ATTR_IDMAP } else { 0 },
                clear: 0,
                propagation: 0,
                userns_fd: idmap.map_or(0, |fd| u64::from(fd.cast_unsigned())),
            };
            sys::mount_set_attributes(mount, &wanted, *recursive)?;
            *slots.get_mut(*slot).ok_or(libc::ENFILE)? = mount;
            Ok(())
        }
        StageOperation::StageRoot { path } => sys::mount(
            c"tmpfs",
            path,
            c"tmpfs",
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            c"mode=0755,size=65536",
        ),
        StageOperation::Directory { path } => sys::mkdir(path, 0o755),
        StageOperation::File { path } => sys::touch(path),
        StageOperation::Attach { slot, path } => {
            let mount = *slots.get(*slot).ok_or(libc::ENFILE)?;
            sys::move_mount_to(mount, path)?;
            sys::close(mount);
            Ok(())
        }
        StageOperation::OpenDirectory { path, number } => sys::open_path_at_number(path, *number),
        StageOperation::Overlay { path, options, executable } => {
            let noexec = if *executable { 0 } else { libc::MS_NOEXEC };
            sys::mount(c"overlay", path, c"overlay", libc::MS_NOSUID | libc::MS_NODEV | noexec, options)
        }
        StageOperation::Tmpfs { path, options } => {
            sys::mount(c"tmpfs", path, c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, options)
        }
        StageOperation::Become { uid } => sys::become_user(*uid),
    }
}

/// Gives every descriptor its number, and closes all others. Two passes: a source may sit on another's target.
fn pass_descriptors(launch: &Launch, status: &mut RawFd) -> Result<(), Errno> {
    let mut copies = [(-1, -1); 32];
    let mut highest = 2;
    for ((source, target), copy) in launch.descriptors.iter().zip(copies.iter_mut()) {
        *copy = (sys::duplicate_above(*source, SCRATCH)?, *target);
    }
    for (copy, target) in copies.iter().filter(|(copy, _)| *copy >= 0) {
        sys::duplicate_to(*copy, *target, false)?;
        highest = highest.max(*target);
    }
    *status = descriptor::STATUS;
    sys::close_from(highest + 1)
}
