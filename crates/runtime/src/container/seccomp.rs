// SPDX-License-Identifier: Apache-2.0
//! Which system calls code in a sandbox can make, and why. Everything that is not listed is refused.
//!
//! x86_64 only. Numbers in the table's range that it does not list get `EPERM`; numbers beyond it, other architectures
//! and the few listed as unknown get `ENOSYS`, on which libraries fall back to older calls.

use std::collections::BTreeMap;

use nix::libc;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on to the kernel.
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`, as if the kernel did not have it.
    Unknown,
}

/// The place of an argument, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Argument(pub(crate) u8);

/// When a call is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Whatever its arguments.
    Always(Verdict),
    /// Unless one of these flags is set.
    Flags {
        /// Where the flags are.
        argument: Argument,
        /// The flags.
        forbidden: u32,
    },
    /// Only with one of these values.
    OneOf {
        /// Where the value is.
        argument: Argument,
        /// The values.
        allowed: Vec<u32>,
    },
    /// With every value but these.
    NoneOf {
        /// Where the value is.
        argument: Argument,
        /// The values.
        forbidden: Vec<u32>,
    },
    /// `socket(2)`: these families, and the netlink family with protocol 0 (routing) alone.
    Socket {
        /// The families.
        families: Vec<u32>,
        /// The number of the netlink family.
        netlink: u32,
    },
}

#[cfg(test)]
impl Rule {
    /// Decides one call, in plain words: the test compares the program with this.
    pub(crate) fn verdict(&self, arguments: [u32; 6]) -> Verdict {
        let refuse_unless = |holds: bool| if holds { Verdict::Allow } else { Verdict::Refuse };
        match self {
            Rule::Always(verdict) => *verdict,
            Rule::Flags { argument, forbidden } => {
                refuse_unless(arguments[usize::from(argument.0)] & forbidden == 0)
            }
            Rule::OneOf { argument, allowed } => {
                refuse_unless(allowed.contains(&arguments[usize::from(argument.0)]))
            }
            Rule::NoneOf { argument, forbidden } => {
                refuse_unless(!forbidden.contains(&arguments[usize::from(argument.0)]))
            }
            Rule::Socket { families, netlink } => refuse_unless(
                families.contains(&arguments[0]) || (arguments[0] == *netlink && arguments[2] == 0),
            ),
        }
    }
}

/// Calls that are allowed whatever their arguments, by what programs need them for.
const ALLOWED: &[(&str, &[libc::c_long])] = &[
    (
        "files: what can be reached is decided by mounts and ids, not here",
        &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_open,
            libc::SYS_close,
            libc::SYS_stat,
            libc::SYS_fstat,
            libc::SYS_lstat,
            libc::SYS_lseek,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_access,
            libc::SYS_dup,
            libc::SYS_dup2,
            libc::SYS_dup3,
            libc::SYS_sendfile,
            libc::SYS_fcntl,
            libc::SYS_flock,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_truncate,
            libc::SYS_ftruncate,
            libc::SYS_getdents,
            libc::SYS_getdents64,
            libc::SYS_getcwd,
            libc::SYS_chdir,
            libc::SYS_fchdir,
            libc::SYS_rename,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_mkdir,
            libc::SYS_mkdirat,
            libc::SYS_rmdir,
            libc::SYS_creat,
            libc::SYS_link,
            libc::SYS_linkat,
            libc::SYS_unlink,
            libc::SYS_unlinkat,
            libc::SYS_symlink,
            libc::SYS_symlinkat,
            libc::SYS_readlink,
            libc::SYS_readlinkat,
            libc::SYS_chmod,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchmodat2,
            libc::SYS_chown,
            libc::SYS_fchown,
            libc::SYS_lchown,
            libc::SYS_fchownat,
            libc::SYS_umask,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_utimensat,
            libc::SYS_futimesat,
            libc::SYS_statfs,
            libc::SYS_fstatfs,
            libc::SYS_sync,
            libc::SYS_syncfs,
            libc::SYS_readahead,
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_getxattr,
            libc::SYS_lgetxattr,
            libc::SYS_fgetxattr,
            libc::SYS_listxattr,
            libc::SYS_llistxattr,
            libc::SYS_flistxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            libc::SYS_fremovexattr,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_splice,
            libc::SYS_tee,
            libc::SYS_sync_file_range,
            libc::SYS_vmsplice,
            libc::SYS_fallocate,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_copy_file_range,
            libc::SYS_statx,
            libc::SYS_fadvise64,
            libc::SYS_close_range,
            libc::SYS_memfd_create,
            // FIFOs; devices need a capability that is not there.
            libc::SYS_mknod,
            libc::SYS_mknodat,
            libc::SYS_inotify_init,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_rm_watch,
        ],
    ),
    (
        "memory of the process itself",
        &[
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_munmap,
            libc::SYS_brk,
            libc::SYS_mremap,
            libc::SYS_msync,
            libc::SYS_mincore,
            libc::SYS_madvise,
            libc::SYS_mlock,
            libc::SYS_mlock2,
            libc::SYS_munlock,
            libc::SYS_mlockall,
            libc::SYS_munlockall,
            libc::SYS_remap_file_pages,
            libc::SYS_membarrier,
            libc::SYS_pkey_alloc,
            libc::SYS_pkey_free,
            libc::SYS_pkey_mprotect,
            libc::SYS_get_mempolicy,
            libc::SYS_arch_prctl,
        ],
    ),
    (
        "waiting for descriptors and events",
        &[
            libc::SYS_poll,
            libc::SYS_ppoll,
            libc::SYS_select,
            libc::SYS_pselect6,
            libc::SYS_epoll_create,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd,
            libc::SYS_eventfd2,
            libc::SYS_signalfd,
            libc::SYS_signalfd4,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_timerfd_gettime,
            libc::SYS_pipe,
            libc::SYS_pipe2,
            libc::SYS_io_setup,
            libc::SYS_io_destroy,
            libc::SYS_io_submit,
            libc::SYS_io_cancel,
            libc::SYS_io_getevents,
        ],
    ),
    (
        "processes, threads and signals of the sandbox itself: it has a pid namespace of its own",
        &[
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_gettid,
            libc::SYS_getpgrp,
            libc::SYS_getpgid,
            libc::SYS_setpgid,
            libc::SYS_getsid,
            libc::SYS_setsid,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigpending,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_rt_sigsuspend,
            libc::SYS_sigaltstack,
            libc::SYS_pause,
            libc::SYS_restart_syscall,
            libc::SYS_futex,
            libc::SYS_futex_waitv,
            libc::SYS_set_robust_list,
            libc::SYS_get_robust_list,
            libc::SYS_set_tid_address,
            libc::SYS_rseq,
            libc::SYS_prctl,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_getcpu,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_getparam,
            libc::SYS_sched_setparam,
            libc::SYS_sched_getscheduler,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_get_priority_max,
            libc::SYS_sched_get_priority_min,
            libc::SYS_sched_rr_get_interval,
            libc::SYS_sched_getattr,
            libc::SYS_sched_setattr,
            libc::SYS_getpriority,
            libc::SYS_setpriority,
            libc::SYS_ioprio_get,
            libc::SYS_ioprio_set,
            libc::SYS_getrlimit,
            libc::SYS_setrlimit,
            libc::SYS_prlimit64,
            libc::SYS_getrusage,
            libc::SYS_times,
            libc::SYS_capget,
            libc::SYS_capset,
        ],
    ),
    (
        "ids inside the sandbox's own range",
        &[
            libc::SYS_getuid,
            libc::SYS_getgid,
            libc::SYS_geteuid,
            libc::SYS_getegid,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_getgroups,
            libc::SYS_setgroups,
            libc::SYS_setresuid,
            libc::SYS_getresuid,
            libc::SYS_setresgid,
            libc::SYS_getresgid,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
        ],
    ),
    (
        "sockets once they are made: which can be made is decided below, whom they reach by the network namespace",
        &[
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_sendmmsg,
            libc::SYS_recvmmsg,
            libc::SYS_shutdown,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_setsockopt,
            libc::SYS_getsockopt,
        ],
    ),
    (
        "System V and POSIX IPC: the sandbox has an ipc namespace of its own",
        &[
            libc::SYS_shmget,
            libc::SYS_shmat,
            libc::SYS_shmctl,
            libc::SYS_shmdt,
            libc::SYS_semget,
            libc::SYS_semop,
            libc::SYS_semctl,
            libc::SYS_semtimedop,
            libc::SYS_msgget,
            libc::SYS_msgsnd,
            libc::SYS_msgrcv,
            libc::SYS_msgctl,
            libc::SYS_mq_open,
            libc::SYS_mq_unlink,
            libc::SYS_mq_timedsend,
            libc::SYS_mq_timedreceive,
            libc::SYS_mq_notify,
            libc::SYS_mq_getsetattr,
        ],
    ),
    (
        "reading clocks, sleeping and timers; setting a clock is not here",
        &[
            libc::SYS_time,
            libc::SYS_gettimeofday,
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_clock_nanosleep,
            libc::SYS_nanosleep,
            libc::SYS_alarm,
            libc::SYS_getitimer,
            libc::SYS_setitimer,
            libc::SYS_timer_create,
            libc::SYS_timer_settime,
            libc::SYS_timer_gettime,
            libc::SYS_timer_getoverrun,
            libc::SYS_timer_delete,
        ],
    ),
    ("facts about the system and random numbers", &[libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom]),
    (
        "giving up more rights",
        &[
            libc::SYS_seccomp,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ],
    ),
];

/// Flags of `clone(2)` and `unshare(2)` that make kernel namespaces: a new user namespace would give capabilities
/// back, and with them most of the kernel's attack surface.
const NAMESPACE_FLAGS: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// `CLONE_NEWTIME`, which `unshare(2)` takes too (`linux/sched.h`).
const NEW_TIME: u32 = 0x80;
/// The largest number of a system call that this table knows (`mseal`, Linux 6.10).
const LAST_KNOWN: u32 = 462;

/// Returns the rules by number.
pub(crate) fn table() -> BTreeMap<u32, Rule> {
    let mut rules = BTreeMap::new();
    let mut put = |number: libc::c_long, rule: Rule| {
        rules.insert(u32::try_from(number).expect("system call numbers are small and positive"), rule);
    };
    for (_, numbers) in ALLOWED {
        for number in *numbers {
            put(*number, Rule::Always(Verdict::Allow));
        }
    }
    let namespaces = NAMESPACE_FLAGS.cast_unsigned();
    put(libc::SYS_clone, Rule::Flags { argument: Argument(0), forbidden: namespaces });
    put(libc::SYS_unshare, Rule::Flags { argument: Argument(0), forbidden: namespaces | NEW_TIME });
    // Its flags are behind a pointer that a filter cannot follow; libraries fall back to clone.
    put(libc::SYS_clone3, Rule::Always(Verdict::Unknown));
    // Unix and internet sockets, and netlink for the routing tables that getaddrinfo and getifaddrs read. No packet,
    // vsock, kernel crypto or other families: each is attack surface of its own.
    let family = |number: i32| number.cast_unsigned();
    let families = vec![family(libc::AF_UNIX), family(libc::AF_INET), family(libc::AF_INET6)];
    put(libc::SYS_socket, Rule::Socket { families, netlink: family(libc::AF_NETLINK) });
    // Pushing input into a terminal, also through the console's paste buffer.
    put(libc::SYS_ioctl, Rule::NoneOf { argument: Argument(1), forbidden: vec![0x5412, 0x541c] });
    // The usual personalities; not the ones that switch protections of memory off. 0xffffffff only asks.
    put(libc::SYS_personality, Rule::OneOf { argument: Argument(0), allowed: vec![0, 8, u32::MAX] });
    // So that the numbers up to here are refused, not unknown.
    put(libc::c_long::from(LAST_KNOWN), Rule::Always(Verdict::Refuse));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_that_break_sandboxes_are_not_allowed() {
        let rules = table();
        for number in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_fsopen,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_pidfd_getfd,
            libc::SYS_iopl,
            libc::SYS_memfd_secret,
            libc::SYS_fanotify_init,
            libc::SYS_syslog,
            libc::SYS_acct,
            libc::SYS_sethostname,
        ] {
            let number = u32::try_from(number).unwrap();
            let verdict = rules.get(&number).map_or(Verdict::Refuse, |rule| rule.verdict([0; 6]));
            assert_eq!(verdict, Verdict::Refuse, "call {number}");
        }
    }

    #[test]
    fn new_user_namespaces_are_refused_and_threads_are_not() {
        let rules = table();
        let clone = &rules[&u32::try_from(libc::SYS_clone).unwrap()];
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned();
        assert_eq!(clone.verdict([thread, 0, 0, 0, 0, 0]), Verdict::Allow);
        let user = libc::CLONE_NEWUSER.cast_unsigned();
        assert_eq!(clone.verdict([user | thread, 0, 0, 0, 0, 0]), Verdict::Refuse);
    }

    #[test]
    fn raw_packet_and_exotic_sockets_are_refused() {
        let rules = table();
        let socket = &rules[&u32::try_from(libc::SYS_socket).unwrap()];
        let make =
            |family: i32, protocol: u32| socket.verdict([family.cast_unsigned(), 1, protocol, 0, 0, 0]);
        assert_eq!(make(libc::AF_INET6, 6), Verdict::Allow);
        assert_eq!(make(libc::AF_NETLINK, 0), Verdict::Allow);
        assert_eq!(make(libc::AF_NETLINK, 15), Verdict::Refuse);
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_XDP, libc::AF_BLUETOOTH] {
            assert_eq!(make(family, 0), Verdict::Refuse, "family {family}");
        }
    }
}
