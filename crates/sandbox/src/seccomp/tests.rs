use super::*;

const ALLOWED: u32 = 0x7fff_0000;
const KILLED: u32 = 0x8000_0000;

fn verdict(exec: ExecPolicy, number: libc::c_long, arguments: [u64; 6]) -> u32 {
    program(exec).run(AUDIT_ARCH, u32::try_from(number).unwrap(), arguments).expect("the filter must answer")
}

fn any(number: libc::c_long, arguments: [u64; 6]) -> u32 {
    verdict(ExecPolicy::Any, number, arguments)
}

#[test]
fn everyday_calls_are_allowed() {
    for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_futex, libc::SYS_mmap, libc::SYS_memfd_create]
    {
        assert_eq!(any(number, [0; 6]), ALLOWED, "{number}");
    }
    // What fork and pthread_create pass.
    assert_eq!(any(libc::SYS_clone, [0x0120_0011, 0, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(any(libc::SYS_clone, [0x003d_0f00, 0, 0, 0, 0, 0]), ALLOWED);
}

#[test]
fn every_listed_call_is_refused_whatever_its_arguments() {
    for (name, number) in table::REFUSED {
        for arguments in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(any(*number, arguments), errno(libc::EPERM), "{name}");
        }
    }
    for (name, number) in table::ABSENT {
        assert_eq!(any(*number, [0; 6]), errno(libc::ENOSYS), "{name}");
    }
}

#[test]
fn the_table_names_each_call_once() {
    let mut numbers: Vec<_> = table::REFUSED.iter().chain(table::ABSENT).map(|(_, number)| *number).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().all(|number| *number > 0));
}

#[test]
fn each_namespace_flag_is_refused_alone_and_with_high_bits_set() {
    for bit in 0..32 {
        let flag = 1_u64 << bit;
        if u64::from(NAMESPACE_FLAGS) & flag != 0 {
            assert_eq!(any(libc::SYS_clone, [flag | 17, 0, 0, 0, 0, 0]), errno(libc::EPERM));
            assert_eq!(any(libc::SYS_clone, [flag | 17 | 1 << 40, 0, 0, 0, 0, 0]), errno(libc::EPERM));
        }
    }
}

#[test]
fn terminal_requests_are_compared_as_32_bits() {
    for request in TERMINAL_REQUESTS {
        let request = u64::from(request);
        assert_eq!(any(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(any(libc::SYS_ioctl, [0, request | 1 << 32, 0, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(any(libc::SYS_ioctl, [0, request | 0xffff_ffff << 32, 0, 0, 0, 0]), errno(libc::EPERM));
    }
    assert_eq!(any(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOWED);
}

#[test]
fn set_id_bits_are_refused_wherever_a_mode_counts() {
    for (number, argument) in table::MODE_ARGUMENT {
        for mode in [0o4755_u64, 0o2755, 0o6777] {
            let mut arguments = [0; 6];
            arguments[*argument as usize] = mode;
            assert_eq!(any(*number, arguments), errno(libc::EPERM), "{number} {mode:o}");
            arguments[*argument as usize] = mode & 0o1777;
            assert_eq!(any(*number, arguments), ALLOWED, "{number}");
        }
    }
    for (number, flags) in table::OPEN_FLAGS_ARGUMENT {
        let mut arguments = [0; 6];
        arguments[*flags as usize + 1] = 0o4777;
        assert_eq!(any(*number, arguments), ALLOWED, "without O_CREAT the mode is noise");
        for creating in [libc::O_CREAT, libc::O_TMPFILE, libc::O_CREAT | libc::O_EXCL] {
            arguments[*flags as usize] = u64::from(creating.cast_unsigned());
            assert_eq!(any(*number, arguments), errno(libc::EPERM));
        }
        arguments[*flags as usize] = u64::from(libc::O_DIRECTORY.cast_unsigned());
        assert_eq!(any(*number, arguments), ALLOWED);
    }
}

#[test]
fn only_listed_sockets_exist() {
    let socket = |family: i32, kind: i32, protocol: i32| {
        any(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0, 0])
    };
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0), ALLOWED);
        assert_eq!(socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0), ALLOWED);
        assert_eq!(socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0), errno(libc::EPERM));
        assert_eq!(socket(family, 10, 0), errno(libc::EPERM), "SOCK_PACKET");
    }
    assert_eq!(socket(libc::AF_INET, libc::SOCK_STREAM, 132), errno(libc::EPROTONOSUPPORT), "SCTP");
    assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), ALLOWED);
    assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, 9), errno(libc::EPROTONOSUPPORT), "AUDIT");
    for family in 3..=46 {
        if [libc::AF_INET6, libc::AF_NETLINK].contains(&family) {
            continue;
        }
        assert_eq!(socket(family, libc::SOCK_STREAM, 0), errno(libc::EAFNOSUPPORT), "{family}");
    }
    let pair = |family: i32| any(libc::SYS_socketpair, [family as u64, 1, 0, 0, 0, 0]);
    assert_eq!((pair(libc::AF_UNIX), pair(30)), (ALLOWED, errno(libc::EAFNOSUPPORT)));
}

#[test]
fn foreign_calling_conventions_are_killed() {
    let program = program(ExecPolicy::Any);
    assert_eq!(program.run(0x4000_0003, 1, [0; 6]), Some(KILLED), "i386");
    assert_eq!(program.run(0, 1, [0; 6]), Some(KILLED));
    #[cfg(target_arch = "x86_64")]
    for number in [0x4000_0000_u32, 0x4000_0001, 0x4000_0000 | 272, u32::MAX] {
        assert_eq!(program.run(AUDIT_ARCH, number, [0; 6]), Some(KILLED), "{number:x}");
    }
}

#[test]
fn executable_memory_files_need_the_any_policy() {
    for (exec, plain) in [(ExecPolicy::Any, ALLOWED), (ExecPolicy::InstalledOnly, errno(libc::EPERM))] {
        assert_eq!(verdict(exec, libc::SYS_memfd_create, [0, 1, 0, 0, 0, 0]), plain);
        assert_eq!(verdict(exec, libc::SYS_memfd_create, [0, 0x10, 0, 0, 0, 0]), plain, "MFD_EXEC");
        assert_eq!(verdict(exec, libc::SYS_memfd_create, [0, 0x9, 0, 0, 0, 0]), ALLOWED);
    }
}

#[test]
fn no_number_is_judged_twice_and_no_block_is_too_long_for_its_jump() {
    for exec in [ExecPolicy::Any, ExecPolicy::InstalledOnly] {
        let rules = rules(exec);
        assert!(rules.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(rules.iter().all(|(_, block)| block.len() < 255 && block.len() > 0));
    }
}

#[test]
fn calls_that_no_rule_names_are_allowed() {
    let named: Vec<_> = rules(ExecPolicy::InstalledOnly).into_iter().map(|(number, _)| number).collect();
    for number in (0..600).filter(|number| !named.contains(number)) {
        assert_eq!(verdict(ExecPolicy::InstalledOnly, number.into(), [u64::MAX; 6]), ALLOWED, "{number}");
    }
}

#[test]
fn the_program_fits_the_kernel_and_its_encoding() {
    for exec in [ExecPolicy::Any, ExecPolicy::InstalledOnly] {
        let program = program(exec);
        assert!(program.len() < 4096);
        assert_eq!(filter(exec).len(), program.len() * 8);
    }
}

proptest::proptest! {
    #[test]
    fn every_call_gets_one_of_the_known_answers(number: u32, arguments: [u64; 6]) {
        let answer = program(ExecPolicy::InstalledOnly).run(AUDIT_ARCH, number, arguments).unwrap();
        let known = [ALLOWED, KILLED, errno(libc::EPERM), errno(libc::ENOSYS), errno(libc::EAFNOSUPPORT),
            errno(libc::EPROTONOSUPPORT)];
        proptest::prop_assert!(known.contains(&answer));
    }
}
