//! Landlock: the second wall around files, which no later mount or namespace trick can move.

use std::ffi::CString;
use std::os::fd::RawFd;

use crate::sys::{self, Errno};

pub(crate) const EXECUTE: u64 = 1;
pub(crate) const WRITE_FILE: u64 = 1 << 1;
pub(crate) const READ_FILE: u64 = 1 << 2;
pub(crate) const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
pub(crate) const TRUNCATE: u64 = 1 << 14;
pub(crate) const IOCTL_DEV: u64 = 1 << 15;

/// Reading of files and directories.
pub(crate) const READ: u64 = READ_FILE | READ_DIR;
/// Everything but executing and making device nodes.
pub(crate) const READ_WRITE: u64 = READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE;
/// The rights that make sense on a file.
const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;
const CREATE_RULESET_VERSION: usize = 1;
const RULE_PATH_BENEATH: usize = 1;

/// What is allowed at and below one path. Everything else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LandlockRule {
    pub(crate) path: CString,
    pub(crate) access: u64,
}

#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The kernel's Landlock version; 0 when there is none.
#[expect(unsafe_code, reason = "Landlock has no libc binding")]
pub(crate) fn version() -> u32 {
    // SAFETY: with this flag the kernel takes no structure.
    let answer =
        unsafe { sys::call(libc::SYS_landlock_create_ruleset, [0, 0, CREATE_RULESET_VERSION, 0, 0, 0]) };
    answer.ok().and_then(|version| u32::try_from(version).ok()).unwrap_or(0)
}

/// The rights that a kernel of that version can refuse.
pub(crate) fn handled(version: u32) -> u64 {
    match version {
        0 => 0,
        1 => REFER - 1,
        2 => TRUNCATE - 1,
        3 | 4 => IOCTL_DEV - 1,
        _ => (IOCTL_DEV << 1) - 1,
    }
}

/// Confines this thread, and all it will ever start, to `rules`. Needs `no_new_privs`.
#[expect(unsafe_code, reason = "Landlock has no libc binding")]
pub(crate) fn restrict(rules: &[LandlockRule]) -> Result<(), Errno> {
    let version = version();
    if version == 0 {
        return Err(libc::ENOSYS);
    }
    let handled = handled(version);
    let attributes = RulesetAttributes {
        handled_access_fs: handled,
        handled_access_net: 0,
        scoped: if version >= 6 { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 },
    };
    let size = if version >= 6 { size_of::<RulesetAttributes>() } else { size_of::<u64>() };
    // SAFETY: the structure is live, and `size` is at most its size.
    let ruleset = unsafe {
        sys::call(libc::SYS_landlock_create_ruleset, [(&raw const attributes) as usize, size, 0, 0, 0, 0])
    }? as RawFd;
    for rule in rules {
        add(ruleset, rule, handled)?;
    }
    // SAFETY: integers only.
    unsafe { sys::call(libc::SYS_landlock_restrict_self, [ruleset as usize, 0, 0, 0, 0, 0]) }?;
    sys::close(ruleset);
    Ok(())
}

#[expect(unsafe_code, reason = "Landlock has no libc binding")]
fn add(ruleset: RawFd, rule: &LandlockRule, handled: u64) -> Result<(), Errno> {
    // SAFETY: the path is a live NUL-terminated string.
    let parent_fd = unsafe { libc::open(rule.path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    if parent_fd < 0 {
        return Err(sys::last_errno());
    }
    // SAFETY: a zeroed stat is a valid place for the kernel to write to.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the place live.
    if unsafe { libc::fstat(parent_fd, &raw mut status) } != 0 {
        return Err(sys::last_errno());
    }
    let mut allowed_access = rule.access & handled;
    if status.st_mode & libc::S_IFMT != libc::S_IFDIR {
        allowed_access &= FILE_RIGHTS;
    }
    let beneath = PathBeneath { allowed_access, parent_fd };
    // SAFETY: the structure is live; the kernel knows its size from the rule's kind.
    unsafe {
        sys::call(
            libc::SYS_landlock_add_rule,
            [ruleset as usize, RULE_PATH_BENEATH, (&raw const beneath) as usize, 0, 0, 0],
        )
    }?;
    sys::close(parent_fd);
    Ok(())
}
