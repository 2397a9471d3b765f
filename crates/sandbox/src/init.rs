//! The init stage: what happens inside the namespaces, after bubblewrap and before the command.
//!
//! One thread, no heap tricks, no output: it reads its orders, puts on the last layers in their order, and
//! becomes the command. Any failure ends it; a layer is never skipped.

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::protocol::{INIT_ARGUMENT, InitStep, Orders, Report, descriptor};
use crate::sys::{self, Errno, PointerList};
use crate::{landlock, seccomp_load};

/// How many connections may wait for the broker.
const LISTEN_BACKLOG: i32 = 1024;

type Failure = (InitStep, Errno);

/// The first line of `main` of every program that hosts the sandbox: when this process is the init stage inside
/// a sandbox, finishes the confinement, executes the command and never returns; else returns at once.
///
/// It costs one look at the arguments.
pub fn init_stage_if_requested() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument.as_bytes() == INIT_ARGUMENT.as_bytes()) {
        let (step, errno) = run();
        let report = Report::InitFailed { step, errno }.encode();
        let _ = sys::write_once(descriptor::STATUS, &report);
        sys::exit_now(126);
    }
}

fn run() -> Failure {
    let orders = match orders() {
        Ok(orders) => orders,
        Err(failure) => return failure,
    };
    match confine(&orders) {
        Ok(()) => execute(&orders),
        Err(failure) => failure,
    }
}

fn at(step: InitStep) -> impl Fn(Errno) -> Failure {
    move |errno| (step, errno)
}

fn orders() -> Result<Orders, Failure> {
    let mut bytes = Vec::new();
    let mut file = File::from(adopt(descriptor::ORDERS));
    file.read_to_end(&mut bytes)
        .map_err(|error| (InitStep::Orders, error.raw_os_error().unwrap_or(libc::EIO)))?;
    Orders::decode(&bytes).ok_or((InitStep::Orders, libc::EBADMSG))
}

#[expect(unsafe_code, reason = "descriptors arrive by number")]
fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the outer stage put an open descriptor there, and nothing else in this process knows of it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn confine(orders: &Orders) -> Result<(), Failure> {
    let status = adopt(descriptor::STATUS);
    let result = confine_with(orders, status.as_fd());
    // The number stays open for the last report; exec closes it.
    std::mem::forget(status);
    result
}

fn confine_with(orders: &Orders, status: BorrowedFd<'_>) -> Result<(), Failure> {
    for (number, stream) in (descriptor::STDIO..).zip(0..3) {
        sys::duplicate_to(number, stream, false).map_err(at(InitStep::Streams))?;
    }
    rustix::io::fcntl_setfd(status, rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| (InitStep::Streams, error.raw_os_error()))?;
    if let Some(port) = orders.listen_port {
        hand_out_listener(port, status).map_err(|error| (InitStep::Listener, error.raw_os_error()))?;
    }
    drop_capabilities().map_err(at(InitStep::Capabilities))?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(at(InitStep::NoNewPrivileges))?;
    refuse_nested_namespaces().map_err(at(InitStep::NestedNamespaces))?;
    for (resource, value) in &orders.resource_limits {
        limit(*resource, *value).map_err(at(InitStep::Limits))?;
    }
    landlock::restrict(&orders.landlock).map_err(at(InitStep::Landlock))?;
    rustix::process::chdir(orders.cwd.as_c_str())
        .map_err(|error| (InitStep::WorkingDirectory, error.raw_os_error()))?;
    Ok(())
}

/// The listener is bound in this network namespace and keeps it; accepting happens outside.
fn hand_out_listener(port: u16, status: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let listener =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))?;
    rustix::net::listen(&listener, LISTEN_BACKLOG)?;
    let descriptors = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(rustix::io::Errno::NOMEM);
    }
    let report = Report::Listener.encode();
    rustix::net::sendmsg(status, &[IoSlice::new(&report)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// All five sets to zero, checked.
#[expect(unsafe_code, reason = "capset(2) takes structures")]
fn drop_capabilities() -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut capability = 0;
    while let Ok(present) = sys::prctl(libc::PR_CAPBSET_READ, capability, 0) {
        if present == 1 {
            sys::prctl(libc::PR_CAPBSET_DROP, capability, 0)?;
        }
        capability += 1;
    }
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0)?;
    let header = [VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: the header and the two triples of sets are live and of the version's size.
    unsafe {
        sys::call(libc::SYS_capset, [(&raw const header) as usize, (&raw const none) as usize, 0, 0, 0, 0])
    }?;
    Ok(())
}

#[expect(unsafe_code, reason = "unshare(2) is unsafe in general, not with this flag")]
/// bubblewrap's `--disable-userns` has set the limit of the outer namespace; here it is proved.
fn refuse_nested_namespaces() -> Result<(), Errno> {
    // SAFETY: a user namespace changes credentials only, and on success this process ends at once.
    match unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) } {
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.raw_os_error()),
        Ok(()) => Err(libc::EEXIST),
    }
}

/// Sets both the soft and the hard limit; a hard limit that is lower already stays.
#[expect(unsafe_code, reason = "setrlimit(2) by the kernel's number of the resource")]
fn limit(resource: u32, value: u64) -> Result<(), Errno> {
    let mut current = [0_u64; 2];
    // SAFETY: the kernel's structure is two 64-bit words, live during the call.
    unsafe { sys::call(libc::SYS_prlimit64, [0, resource as usize, 0, (&raw mut current) as usize, 0, 0]) }?;
    let [_, hard] = current;
    let wanted = [value.min(hard); 2];
    // SAFETY: as above.
    unsafe { sys::call(libc::SYS_prlimit64, [0, resource as usize, (&raw const wanted) as usize, 0, 0, 0]) }?;
    Ok(())
}

/// Descriptors, the filter, and then the command.
fn execute(orders: &Orders) -> Failure {
    let argv = PointerList::new(orders.argv.clone());
    let envp = PointerList::new(orders.env.clone());
    let Some(program) = orders.argv.first() else { return (InitStep::Execute, libc::ENOENT) };
    let candidates = candidates(program, &orders.path);
    let keep_status = sys::duplicate_to(descriptor::STATUS, 3, true)
        .and_then(|()| sys::close_from(4))
        .and_then(|()| sys::duplicate_to(3, descriptor::STATUS, true))
        .and_then(|()| sys::write_once(3, &Report::Ready.encode()));
    sys::close(3);
    if let Err(errno) = keep_status {
        return (InitStep::Descriptors, errno);
    }
    // Rust's runtime ignores SIGPIPE; the command must not inherit that.
    sys::reset_signals();
    if let Err(errno) = seccomp_load::load(&orders.seccomp) {
        return (InitStep::Seccomp, errno);
    }
    let mut refusal = libc::ENOENT;
    for candidate in &candidates {
        let errno = sys::execute(candidate, &argv, &envp);
        // Like a shell: a later directory is tried, but "not allowed" beats "not there".
        if errno != libc::ENOENT && errno != libc::ENOTDIR {
            refusal = errno;
        }
    }
    (InitStep::Execute, refusal)
}

fn candidates(program: &CString, path: &[CString]) -> Vec<CString> {
    if program.to_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let mut out = Vec::with_capacity(path.len());
    for directory in path {
        let mut full = directory.to_bytes().to_vec();
        full.push(b'/');
        full.extend_from_slice(program.to_bytes());
        out.extend(CString::new(full));
    }
    out
}
