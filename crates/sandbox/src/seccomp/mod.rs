//! The system call filter: default allow, with every call refused that opens kernel surface, privileges, other
//! processes or namespaces. It is the last thing loaded before the command is executed.

mod assembler;
mod table;

use std::sync::OnceLock;

use assembler::{Program, Rule, errno};

use crate::ExecPolicy;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call table is written for x86-64 and aarch64 only");

/// The first number of the x32 calling convention.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// The clone(2) flags that make namespaces.
const NAMESPACE_FLAGS: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
/// The set-user-id and set-group-id bits of a file's mode.
const SET_ID_BITS: u32 = 0o6000;
/// The open(2) flags with which the mode argument counts: `O_CREAT` and `O_TMPFILE` without `O_DIRECTORY`.
const MODE_COUNTS: u32 = libc::O_CREAT.cast_unsigned() | 0o20_000_000;
/// memfd_create(2): the file can never be made executable.
const MFD_NOEXEC_SEAL: u32 = 8;

/// Terminal requests that push input into a terminal, or change what a terminal is.
const TERMINAL_REQUESTS: [u32; 3] = [0x5412, 0x541c, 0x5423];

/// The filter as the kernel takes it: eight bytes an instruction.
pub(crate) fn filter(exec: ExecPolicy) -> &'static [u8] {
    static ANY: OnceLock<Vec<u8>> = OnceLock::new();
    static INSTALLED: OnceLock<Vec<u8>> = OnceLock::new();
    let cell = match exec {
        ExecPolicy::Any => &ANY,
        ExecPolicy::InstalledOnly => &INSTALLED,
    };
    cell.get_or_init(|| program(exec).bytes())
}

/// The rules in words, for plans.
pub(crate) fn describe(exec: ExecPolicy) -> Vec<String> {
    let refused: Vec<_> = table::REFUSED.iter().map(|(name, _)| *name).collect();
    let absent: Vec<_> = table::ABSENT.iter().map(|(name, _)| *name).collect();
    let mut rules = vec![
        format!("EPERM: {}", refused.join(" ")),
        format!("ENOSYS: {}", absent.join(" ")),
        "EPERM: clone with a namespace flag".into(),
        "EPERM: ioctl TIOCSTI TIOCLINUX TIOCSETD, compared as 32 bits".into(),
        "EPERM: a set-user-id or set-group-id bit in chmod, open, creat or mknod".into(),
        "EAFNOSUPPORT: socket of another family than UNIX, INET, INET6, NETLINK_ROUTE".into(),
        "EPERM: raw and packet sockets".into(),
        "kill: another architecture's calls, x32 included".into(),
    ];
    if exec == ExecPolicy::InstalledOnly {
        rules.push("EPERM: memfd_create without MFD_NOEXEC_SEAL".into());
    }
    rules
}

fn program(exec: ExecPolicy) -> Program {
    let mut program = Program::default();
    program.load_architecture();
    program.unless_equal_kill(AUDIT_ARCH);
    program.load_number();
    #[cfg(target_arch = "x86_64")]
    program.if_at_least_kill(X32_BIT);
    program.search(&rules(exec));
    program
}

/// Which number is judged how, in the order of the numbers.
fn rules(exec: ExecPolicy) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut on = |number: libc::c_long, fill: &dyn Fn(&mut Program)| {
        // Every number of both architectures fits; one that did not would never match.
        rules.push((u32::try_from(number).unwrap_or(u32::MAX), Program::block(|block| fill(block))));
    };
    for (_, number) in table::REFUSED {
        on(*number, &|block| block.answer(errno(libc::EPERM)));
    }
    for (_, number) in table::ABSENT {
        on(*number, &|block| block.answer(errno(libc::ENOSYS)));
    }
    on(libc::SYS_clone, &|block| {
        block.load_argument(0);
        block.if_any_bit(NAMESPACE_FLAGS, errno(libc::EPERM));
        block.allow();
    });
    on(libc::SYS_ioctl, &|block| {
        block.load_argument(1);
        for request in TERMINAL_REQUESTS {
            block.if_equal(request, errno(libc::EPERM));
        }
        block.allow();
    });
    for (number, argument) in table::MODE_ARGUMENT {
        on(*number, &|block| {
            block.load_argument(*argument);
            block.if_any_bit(SET_ID_BITS, errno(libc::EPERM));
            block.allow();
        });
    }
    for (number, flags) in table::OPEN_FLAGS_ARGUMENT {
        on(*number, &|block| {
            block.load_argument(*flags);
            block.unless_any_bit_allow(MODE_COUNTS);
            block.load_argument(flags + 1);
            block.if_any_bit(SET_ID_BITS, errno(libc::EPERM));
            block.allow();
        });
    }
    on(libc::SYS_socket, &socket_rules);
    on(libc::SYS_socketpair, &|block| {
        block.load_argument(0);
        block.if_equal_allow(libc::AF_UNIX.cast_unsigned());
        block.answer(errno(libc::EAFNOSUPPORT));
    });
    if exec == ExecPolicy::InstalledOnly {
        on(libc::SYS_memfd_create, &|block| {
            block.load_argument(1);
            block.unless_any_bit(MFD_NOEXEC_SEAL, errno(libc::EPERM));
            block.allow();
        });
    }
    rules.sort_by_key(|(number, _)| *number);
    rules
}

fn socket_rules(block: &mut Program) {
    const TYPE_MASK: u32 = 0xf;
    const SOCK_PACKET: i32 = 10;
    block.load_argument(0);
    block.when_equal(libc::AF_UNIX.cast_unsigned(), |unix| {
        unix.load_argument(1);
        unix.mask(TYPE_MASK);
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            unix.if_equal_allow(kind.cast_unsigned());
        }
        unix.answer(errno(libc::EPERM));
    });
    for family in [libc::AF_INET, libc::AF_INET6] {
        block.when_equal(family.cast_unsigned(), |internet| {
            internet.load_argument(1);
            internet.mask(TYPE_MASK);
            for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET] {
                internet.if_equal(kind.cast_unsigned(), errno(libc::EPERM));
            }
            internet.load_argument(2);
            for protocol in table::INTERNET_PROTOCOLS {
                internet.if_equal_allow(protocol.cast_unsigned());
            }
            internet.answer(errno(libc::EPROTONOSUPPORT));
        });
    }
    block.when_equal(libc::AF_NETLINK.cast_unsigned(), |netlink| {
        netlink.load_argument(2);
        netlink.if_equal_allow(libc::NETLINK_ROUTE.cast_unsigned());
        netlink.answer(errno(libc::EPROTONOSUPPORT));
    });
    block.answer(errno(libc::EAFNOSUPPORT));
}

#[cfg(test)]
mod tests;
