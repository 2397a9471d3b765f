//! The one thread that forks.
//!
//! The death signal of Linux is bound to the parent *thread*: a child forked by a pool's thread would die when the
//! pool shrinks. So one thread that lives as long as the process forks every sandbox, and when the process dies,
//! however it dies, every sandbox dies with it.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use crate::SandboxError;
use crate::stage::{self, Launch};
use crate::sys::{self, Errno};

/// A forked child.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pidfd: OwnedFd,
}

struct Job {
    launch: Launch,
    answer: SyncSender<(Launch, Result<Child, Errno>)>,
}

/// Forks the child of `launch`. The descriptors it names must stay open until this returns.
pub(crate) fn fork(launch: Launch) -> Result<Child, SandboxError> {
    static THREAD: OnceLock<Option<Sender<Job>>> = OnceLock::new();
    let thread = THREAD.get_or_init(spawn_thread).as_ref();
    let lost = || SandboxError::StartFailed { step: "fork", detail: "the forking thread is gone".into() };
    let (answer, result) = sync_channel(1);
    thread.ok_or_else(lost)?.send(Job { launch, answer }).map_err(|_| lost())?;
    let (launch, child) = result.recv().map_err(|_| lost())?;
    drop(launch);
    child.map_err(|errno| {
        let error = std::io::Error::from_raw_os_error(errno);
        if errno == libc::EPERM || errno == libc::ENOSPC {
            crate::sandbox::namespaces_refused(&error)
        } else {
            SandboxError::StartFailed { step: "fork", detail: error.to_string() }
        }
    })
}

fn spawn_thread() -> Option<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let work = move || {
        for Job { launch, answer } in jobs {
            let child = clone_child(&launch);
            // Whoever asked may be gone; then the pidfd closes and the child ends with its status socket.
            let _ = answer.send((launch, child));
        }
    };
    std::thread::Builder::new().name("sandbox-fork".into()).spawn(work).ok()?;
    Some(sender)
}

/// `struct clone_args` of clone3(2), up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone_child(launch: &Launch) -> Result<Child, Errno> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: CLONE_PIDFD | launch.clone_flags | launch.cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        cgroup: launch.cgroup.map_or(0, |fd| u64::from(fd.cast_unsigned())),
        ..CloneArguments::default()
    };
    clone_and_run(&mut arguments, launch)?;
    Ok(Child { pidfd: adopt(pidfd) })
}

#[expect(unsafe_code, reason = "descriptors arrive by number")]
fn adopt(pidfd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put a fresh descriptor there, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(pidfd) }
}

/// The child shares the memory until it executes bubblewrap, while this thread stands still: as posix_spawn(3) does,
/// since a copy of a server's page tables costs more than all of our layers.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a child with a stack of its own in shared memory needs the bare instruction")]
fn clone_and_run(arguments: &mut CloneArguments, launch: &Launch) -> Result<(), Errno> {
    const CLONE_VM: u64 = 0x100;
    const CLONE_VFORK: u64 = 0x4000;
    const STACK: usize = 256 * 1024;
    extern "C" fn child(launch: &Launch) -> ! {
        stage::run(launch)
    }
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    arguments.flags |= CLONE_VM | CLONE_VFORK;
    arguments.stack = stack.as_mut_ptr() as u64;
    arguments.stack_size = STACK as u64;
    // No signal handler of the server may run in the child, on its stack and in the shared memory.
    let before = sys::block_signals();
    let result: isize;
    // SAFETY: the parent comes back with a pid or an error, its registers as the kernel keeps them. The child starts
    // at the same place with zero and the new stack, 16 bytes aligned, and calls `child`, which never returns; it
    // uses system calls on prepared data only. `CLONE_VFORK` keeps this thread, the stack and `launch` still until
    // the child has left the shared memory.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r12") child as extern "C" fn(&Launch) -> !,
            in("r13") std::ptr::from_ref(launch),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    sys::restore_signals(before);
    drop(stack);
    if result < 0 { Err(Errno::try_from(-result).unwrap_or(libc::EIO)) } else { Ok(()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "fork with a pidfd, namespaces and a cgroup is clone3(2) only")]
fn clone_and_run(arguments: &mut CloneArguments, launch: &Launch) -> Result<(), Errno> {
    let address = std::ptr::from_mut(arguments) as usize;
    // SAFETY: without CLONE_VM this is fork(2): the child has its own copy of everything, and `stage::run` uses
    // system calls on prepared data only, as the other threads' locks may be held for ever.
    let pid = unsafe { sys::call(libc::SYS_clone3, [address, size_of::<CloneArguments>(), 0, 0, 0, 0]) }?;
    if pid == 0 {
        stage::run(launch);
    }
    Ok(())
}
