//! Which system calls are judged how. Calls newer than the bindings are given by number; those numbers are the
//! same on both architectures.

use libc::c_long;

/// A call's name and number.
pub(super) type Call = (&'static str, c_long);

macro_rules! calls {
    ($($name:ident => $number:expr),* $(,)?) => { &[$((stringify!($name), $number)),*] };
}

/// Refused with EPERM on every architecture.
const REFUSED_EVERYWHERE: &[Call] = calls! {
    unshare => libc::SYS_unshare,
    setns => libc::SYS_setns,
    mount => libc::SYS_mount,
    umount2 => libc::SYS_umount2,
    pivot_root => libc::SYS_pivot_root,
    chroot => libc::SYS_chroot,
    open_tree => libc::SYS_open_tree,
    open_tree_attr => 467,
    move_mount => libc::SYS_move_mount,
    fsopen => libc::SYS_fsopen,
    fsconfig => libc::SYS_fsconfig,
    fsmount => libc::SYS_fsmount,
    fspick => libc::SYS_fspick,
    mount_setattr => libc::SYS_mount_setattr,
    statmount => 457,
    listmount => 458,
    bpf => libc::SYS_bpf,
    perf_event_open => libc::SYS_perf_event_open,
    userfaultfd => libc::SYS_userfaultfd,
    io_uring_setup => libc::SYS_io_uring_setup,
    io_uring_enter => libc::SYS_io_uring_enter,
    io_uring_register => libc::SYS_io_uring_register,
    ptrace => libc::SYS_ptrace,
    process_vm_readv => libc::SYS_process_vm_readv,
    process_vm_writev => libc::SYS_process_vm_writev,
    process_madvise => libc::SYS_process_madvise,
    process_mrelease => libc::SYS_process_mrelease,
    pidfd_getfd => libc::SYS_pidfd_getfd,
    kcmp => libc::SYS_kcmp,
    keyctl => libc::SYS_keyctl,
    add_key => libc::SYS_add_key,
    request_key => libc::SYS_request_key,
    kexec_load => libc::SYS_kexec_load,
    kexec_file_load => libc::SYS_kexec_file_load,
    init_module => libc::SYS_init_module,
    finit_module => libc::SYS_finit_module,
    delete_module => libc::SYS_delete_module,
    open_by_handle_at => libc::SYS_open_by_handle_at,
    name_to_handle_at => libc::SYS_name_to_handle_at,
    fanotify_init => libc::SYS_fanotify_init,
    fanotify_mark => libc::SYS_fanotify_mark,
    quotactl => libc::SYS_quotactl,
    quotactl_fd => libc::SYS_quotactl_fd,
    swapon => libc::SYS_swapon,
    swapoff => libc::SYS_swapoff,
    reboot => libc::SYS_reboot,
    acct => libc::SYS_acct,
    settimeofday => libc::SYS_settimeofday,
    clock_settime => libc::SYS_clock_settime,
    clock_adjtime => libc::SYS_clock_adjtime,
    adjtimex => libc::SYS_adjtimex,
    syslog => libc::SYS_syslog,
    personality => libc::SYS_personality,
    sethostname => libc::SYS_sethostname,
    setdomainname => libc::SYS_setdomainname,
    vhangup => libc::SYS_vhangup,
    lookup_dcookie => libc::SYS_lookup_dcookie,
    nfsservctl => libc::SYS_nfsservctl,
    migrate_pages => libc::SYS_migrate_pages,
    move_pages => libc::SYS_move_pages,
    lsm_set_self_attr => 460,
};

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[Call] = calls! {
    iopl => libc::SYS_iopl,
    ioperm => libc::SYS_ioperm,
    modify_ldt => libc::SYS_modify_ldt,
    uselib => libc::SYS_uselib,
    ustat => libc::SYS_ustat,
    sysfs => libc::SYS_sysfs,
    _sysctl => libc::SYS__sysctl,
    create_module => 174,
    get_kernel_syms => 177,
    query_module => 178,
};
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[Call] = &[];

const COUNT: usize = REFUSED_EVERYWHERE.len() + REFUSED_HERE.len();

const fn joined() -> [Call; COUNT] {
    let mut out = [("", -1); COUNT];
    let mut index = 0;
    while index < COUNT {
        let (from, at) = if index < REFUSED_EVERYWHERE.len() {
            (REFUSED_EVERYWHERE, index)
        } else {
            (REFUSED_HERE, index - REFUSED_EVERYWHERE.len())
        };
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler, where out of bounds is an error"
        )]
        {
            out[index] = from[at];
        }
        index += 1;
    }
    out
}

static REFUSED_ALL: [Call; COUNT] = joined();

/// Refused with EPERM.
pub(super) static REFUSED: &[Call] = &REFUSED_ALL;

/// Answered with ENOSYS, so that programs fall back to an older call whose arguments can be judged.
pub(super) const ABSENT: &[Call] = calls! {
    clone3 => libc::SYS_clone3,
    openat2 => libc::SYS_openat2,
};

/// Calls with a file mode, and which argument it is.
#[cfg(target_arch = "x86_64")]
pub(super) const MODE_ARGUMENT: &[(c_long, u32)] = &[
    (libc::SYS_chmod, 1),
    (libc::SYS_creat, 1),
    (libc::SYS_mknod, 1),
    (libc::SYS_mkdir, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    (libc::SYS_mkdirat, 2),
];
/// Calls with a file mode, and which argument it is.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const MODE_ARGUMENT: &[(c_long, u32)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    (libc::SYS_mkdirat, 2),
];
const FCHMODAT2: c_long = 452;

/// Calls with open flags and then a mode, and which argument the flags are.
#[cfg(target_arch = "x86_64")]
pub(super) const OPEN_FLAGS_ARGUMENT: &[(c_long, u32)] = &[(libc::SYS_open, 1), (libc::SYS_openat, 2)];
/// Calls with open flags and then a mode, and which argument the flags are.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OPEN_FLAGS_ARGUMENT: &[(c_long, u32)] = &[(libc::SYS_openat, 2)];

/// The default protocol, ICMP, TCP, UDP, ICMPv6, MPTCP.
pub(super) const INTERNET_PROTOCOLS: [i32; 6] = [0, 1, 6, 17, 58, 262];
