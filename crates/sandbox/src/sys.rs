//! The few system calls that neither std nor rustix offers, each behind a checked function.
//!
//! Everything here is async-signal-safe and free of allocation: the outer stage calls it between fork and exec.

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::RawFd;

/// An error number of the kernel.
pub(crate) type Errno = c_int;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
pub(crate) const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

const OPEN_TREE_CLONE: usize = 1;
const MOVE_MOUNT_F_EMPTY_PATH: usize = 0x4;
const AT_RECURSIVE: usize = 0x8000;

/// Makes one system call with up to six machine words.
///
/// # Safety
/// Every word must be what that call expects; a pointer must be valid for as long as the kernel uses it.
#[expect(unsafe_code, reason = "the one place where a raw system call is made")]
pub(crate) unsafe fn call(number: libc::c_long, words: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = words;
    // SAFETY: the caller vouches for the words.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(last_errno()) } else { Ok(result.cast_unsigned() as usize) }
}

/// The calling thread's last error number.
#[expect(unsafe_code, reason = "errno is reached through a pointer")]
pub(crate) fn last_errno() -> Errno {
    // SAFETY: the pointer is to this thread's own errno and always valid.
    unsafe { *libc::__errno_location() }
}

fn pointer(text: &CStr) -> usize {
    text.as_ptr() as usize
}

const fn word(value: c_int) -> usize {
    value as isize as usize
}

/// open_tree(2): a detached copy of the mount at `path`.
#[expect(unsafe_code, reason = "open_tree(2) has no safe binding that is signal-safe")]
pub(crate) fn open_tree_clone(path: &CStr, recursive: bool) -> Result<RawFd, Errno> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as usize | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is a live NUL-terminated string.
    let fd = unsafe { call(libc::SYS_open_tree, [word(libc::AT_FDCWD), pointer(path), flags, 0, 0, 0]) }?;
    Ok(fd as RawFd)
}

/// move_mount(2): attaches a detached mount.
#[expect(unsafe_code, reason = "move_mount(2) between fork and exec")]
pub(crate) fn move_mount_to(mount: RawFd, path: &CStr) -> Result<(), Errno> {
    // SAFETY: both strings are live and NUL-terminated.
    unsafe {
        call(
            libc::SYS_move_mount,
            [word(mount), pointer(c""), word(libc::AT_FDCWD), pointer(path), MOVE_MOUNT_F_EMPTY_PATH, 0],
        )
    }?;
    Ok(())
}

/// mount_setattr(2) on a mount held by a descriptor.
#[expect(unsafe_code, reason = "mount_setattr(2) has no safe binding")]
pub(crate) fn mount_set_attributes(
    mount: RawFd,
    attributes: &MountAttributes,
    recursive: bool,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH as usize | if recursive { AT_RECURSIVE } else { 0 };
    let address = std::ptr::from_ref(attributes) as usize;
    // SAFETY: the structure is live, and its size is passed with it.
    unsafe {
        call(
            libc::SYS_mount_setattr,
            [word(mount), pointer(c""), flags, address, size_of::<MountAttributes>(), 0],
        )
    }?;
    Ok(())
}

/// mount(2).
#[expect(unsafe_code, reason = "mount(2) between fork and exec")]
pub(crate) fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> Result<(), Errno> {
    // SAFETY: all strings are live and NUL-terminated.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast::<c_void>())
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// umount2(2) with `MNT_DETACH`. What is not a mount, or may not be let go, stays.
#[expect(unsafe_code, reason = "umount2(2) between fork and exec")]
pub(crate) fn detach(path: &CStr) {
    // SAFETY: `path` is a live NUL-terminated string.
    let _ = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// mkdir(2).
#[expect(unsafe_code, reason = "mkdir(2) between fork and exec")]
pub(crate) fn mkdir(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `path` is a live NUL-terminated string.
    let result = unsafe { libc::mkdir(path.as_ptr(), mode) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Makes an empty file; open(2) with `O_CREAT | O_EXCL`.
#[expect(unsafe_code, reason = "open(2) between fork and exec")]
pub(crate) fn touch(path: &CStr) -> Result<(), Errno> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: `path` is a live NUL-terminated string.
    let fd = unsafe { libc::open(path.as_ptr(), flags, 0o444) };
    if fd < 0 {
        return Err(last_errno());
    }
    close(fd);
    Ok(())
}

/// Opens a directory as a mere path; the descriptor has the given number.
#[expect(unsafe_code, reason = "open(2) between fork and exec")]
pub(crate) fn open_path_at_number(path: &CStr, number: RawFd) -> Result<(), Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `path` is a live NUL-terminated string.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    if fd == number {
        return Ok(());
    }
    let moved = duplicate_to(fd, number, true);
    close(fd);
    moved
}

/// Writes all of `bytes` with one write(2); a short write is an error.
#[expect(unsafe_code, reason = "write(2) between fork and exec")]
pub(crate) fn write_once(fd: RawFd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the buffer is live and its length is its own.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
    match usize::try_from(written) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(libc::EIO),
        Err(_) => Err(last_errno()),
    }
}

/// Writes `bytes` to the file at `path` with one write(2).
#[expect(unsafe_code, reason = "open(2) between fork and exec")]
pub(crate) fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: `path` is a live NUL-terminated string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(last_errno());
    }
    let result = write_once(fd, bytes);
    close(fd);
    result
}

/// close(2). A failure leaves nothing to do.
#[expect(unsafe_code, reason = "descriptors are bare numbers between fork and exec")]
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the callers own the descriptor they pass.
    let _ = unsafe { libc::close(fd) };
}

/// A copy of `fd` whose number is at least `minimum`, closed on exec.
#[expect(unsafe_code, reason = "fcntl(2) between fork and exec")]
pub(crate) fn duplicate_above(fd: RawFd, minimum: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: no pointer is passed.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, minimum) };
    if copy < 0 { Err(last_errno()) } else { Ok(copy) }
}

/// Makes `number` a copy of `fd`.
#[expect(unsafe_code, reason = "dup3(2) between fork and exec")]
pub(crate) fn duplicate_to(fd: RawFd, number: RawFd, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: no pointer is passed; the caller knows that `number` is its to replace.
    let result = unsafe { libc::dup3(fd, number, flags) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Closes every descriptor from `first` upward.
#[expect(unsafe_code, reason = "close_range(2) closes descriptors that std may believe open")]
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: called only right before exec, in a process that uses none of them any more.
    unsafe { call(libc::SYS_close_range, [word(first), u32::MAX as usize, 0, 0, 0, 0]) }?;
    Ok(())
}

/// prctl(2) with integer arguments only.
#[expect(unsafe_code, reason = "prctl(2) between fork and exec")]
pub(crate) fn prctl(option: c_int, second: usize, third: usize) -> Result<usize, Errno> {
    // SAFETY: the options used in this crate take integers, no pointer.
    unsafe { call(libc::SYS_prctl, [word(option), second, third, 0, 0, 0]) }
}

/// Becomes `id` as user and group, without supplementary groups, for good. Raw calls: they change this task only,
/// where libc would look for the threads of the parent.
#[expect(unsafe_code, reason = "setresuid(2) as a raw call between fork and exec")]
pub(crate) fn become_user(id: u32) -> Result<(), Errno> {
    let id = id as usize;
    // SAFETY: an empty group list needs no pointer; the others take integers.
    unsafe {
        call(libc::SYS_setgroups, [0; 6])?;
        call(libc::SYS_setresgid, [id, id, id, 0, 0, 0])?;
        call(libc::SYS_setresuid, [id, id, id, 0, 0, 0])?;
    }
    Ok(())
}

/// setsid(2).
#[expect(unsafe_code, reason = "setsid(2) between fork and exec")]
pub(crate) fn new_session() -> Result<(), Errno> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::setsid() };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Gives every signal its default action and blocks none.
#[expect(unsafe_code, reason = "signal dispositions are inherited by exec")]
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: an action of all zeroes is SIG_DFL without flags; the kernel refuses SIGKILL and SIGSTOP.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            let _ = libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    restore_signals(0);
}

/// Blocks every signal for this thread; gives what was blocked before.
#[cfg(target_arch = "x86_64")]
pub(crate) fn block_signals() -> u64 {
    set_signal_mask(u64::MAX)
}

/// Blocks exactly the signals of `mask` for this thread.
pub(crate) fn restore_signals(mask: u64) {
    set_signal_mask(mask);
}

#[expect(unsafe_code, reason = "libc's own call would leave its internal signals out")]
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: two sets of the kernel's own size (8 bytes), live during the call. It cannot fail.
    unsafe {
        let (new, old) = ((&raw const mask) as usize, (&raw mut before) as usize);
        let _ = call(libc::SYS_rt_sigprocmask, [word(libc::SIG_SETMASK), new, old, size_of::<u64>(), 0, 0]);
    }
    before
}

/// execve(2). Returns only on failure.
#[expect(unsafe_code, reason = "execve(2) takes arrays of pointers")]
pub(crate) fn execute(program: &CStr, argv: &PointerList, envp: &PointerList) -> Errno {
    // SAFETY: both lists end with a null pointer and own the strings they point to.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    last_errno()
}

/// Ends the process without running anything of the parent's.
#[expect(unsafe_code, reason = "_exit(2) between fork and exec")]
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// A null-terminated list of strings, as execve(2) wants it, made before the fork.
#[derive(Debug)]
pub(crate) struct PointerList {
    pointers: Vec<*const libc::c_char>,
    _owned: Vec<std::ffi::CString>,
}

#[expect(unsafe_code, reason = "raw pointers are not Send by themselves")]
// SAFETY: the pointers point into strings that the same value owns and never changes.
unsafe impl Send for PointerList {}
#[expect(unsafe_code, reason = "raw pointers are not Sync by themselves")]
// SAFETY: as above; nothing is mutable.
unsafe impl Sync for PointerList {}

impl PointerList {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _owned: strings }
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}
