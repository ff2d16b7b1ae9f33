// SPDX-License-Identifier: Apache-2.0
//! Which system calls code in a sandbox can make, and why. Everything that is not listed is refused.
//!
//! x86_64 only. Numbers in the table's range that it does not list get `EPERM`; numbers beyond it, other architectures
//! and the few listed as unknown get `ENOSYS`, on which libraries fall back to older calls.

mod allowed;

use std::collections::BTreeMap;

use nix::libc;

use self::allowed::ALLOWED;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on to the kernel.
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`, as if the kernel did not have it.
    Unknown,
    /// Nothing is done, and the caller is told that it was.
    Pretend,
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
    /// Only with one of these values in some of the bits.
    Masked {
        /// Where the value is.
        argument: Argument,
        /// The bits that are looked at.
        mask: u32,
        /// The values.
        allowed: Vec<u32>,
    },
    /// `ioctl(2)`: not these commands, nor any of these types of command (the second byte).
    Command {
        /// The commands.
        forbidden: Vec<u32>,
        /// The types, in their place.
        forbidden_types: Vec<u32>,
    },
    /// `socket(2)`: unix sockets; internet sockets of these types and protocols; netlink with protocol 0 (routing) alone.
    Socket {
        /// What is asked of an internet socket, beside its family.
        types: Vec<u32>,
        /// Its protocols.
        protocols: Vec<u32>,
    },
    /// `setrlimit(2)` and `prlimit64(2)`: a change of one limit is not done, and said to be.
    KeptLimit {
        /// Where the number of the limit is.
        argument: Argument,
        /// The limit.
        limit: u32,
        /// The place of the new value, which is there if this is a change, and of the old one, for which nothing could
        /// be told; always a change where nothing is said.
        new_and_old: Option<(Argument, Argument)>,
    },
}

/// `AF_UNIX`, `AF_INET`, `AF_INET6` and `AF_NETLINK`, as a filter sees them.
pub(crate) const FAMILIES: [u32; 4] = [
    libc::AF_UNIX.cast_unsigned(),
    libc::AF_INET.cast_unsigned(),
    libc::AF_INET6.cast_unsigned(),
    libc::AF_NETLINK.cast_unsigned(),
];
/// The bits of a socket's type that are the type; the others are flags (`socket(2)`).
pub(crate) const SOCKET_TYPE_MASK: u32 = 0xf;
/// The bits of an ioctl command that are its type (`ioctl(2)`).
pub(crate) const COMMAND_TYPE_MASK: u32 = 0xff00;

#[cfg(test)]
impl Rule {
    /// Decides one call, in plain words: the test compares the program with this.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of an argument is meant")]
    pub(crate) fn verdict(&self, arguments: [u64; 6]) -> Verdict {
        let low = |argument: Argument| arguments[usize::from(argument.0)] as u32;
        let refuse_unless = |holds: bool| if holds { Verdict::Allow } else { Verdict::Refuse };
        match self {
            Rule::Always(verdict) => *verdict,
            Rule::Flags { argument, forbidden } => refuse_unless(low(*argument) & forbidden == 0),
            Rule::OneOf { argument, allowed } => refuse_unless(allowed.contains(&low(*argument))),
            Rule::Masked { argument, mask, allowed } => {
                refuse_unless(allowed.contains(&(low(*argument) & mask)))
            }
            Rule::Command { forbidden, forbidden_types } => {
                let command = low(Argument(1));
                let known = forbidden.contains(&command);
                refuse_unless(!known && !forbidden_types.contains(&(command & COMMAND_TYPE_MASK)))
            }
            Rule::Socket { types, protocols } => {
                let [family, kind, protocol] = [0, 1, 2].map(|place| low(Argument(place)));
                let [unix, inet, inet6, netlink] = FAMILIES;
                let internet = family == inet || family == inet6;
                let usual = types.contains(&(kind & SOCKET_TYPE_MASK)) && protocols.contains(&protocol);
                refuse_unless(family == unix || (internet && usual) || (family == netlink && protocol == 0))
            }
            Rule::KeptLimit { argument, limit, .. } if low(*argument) != *limit => Verdict::Allow,
            Rule::KeptLimit { new_and_old: None, .. } => Verdict::Pretend,
            Rule::KeptLimit { new_and_old: Some((new, old)), .. } => {
                match (arguments[usize::from(new.0)], arguments[usize::from(old.0)]) {
                    (0, _) => Verdict::Allow,
                    (_, 0) => Verdict::Pretend,
                    _ => Verdict::Refuse,
                }
            }
        }
    }
}

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
    // It says which pages of a file are in memory, and so what others run of the files that all sandboxes share.
    put(libc::SYS_mincore, Rule::Always(Verdict::Unknown));
    // Unix sockets; internet sockets that carry TCP, UDP and echo requests; netlink for the routing tables that
    // getaddrinfo and getifaddrs read. No raw, packet, vsock or kernel crypto sockets and no rare protocols: each is
    // attack surface of its own, and some load a module of the kernel when they are asked for.
    let number = |number: i32| number.cast_unsigned();
    let types = vec![number(libc::SOCK_STREAM), number(libc::SOCK_DGRAM)];
    let protocols = [libc::IPPROTO_IP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP];
    let protocols = protocols.into_iter().chain([libc::IPPROTO_ICMPV6]).map(number).collect();
    put(libc::SYS_socket, Rule::Socket { types, protocols });
    // Other families have pairs too, or load a module to find out that they have none.
    put(libc::SYS_socketpair, Rule::OneOf { argument: Argument(0), allowed: vec![number(libc::AF_UNIX)] });
    // Pushing input into a terminal, also through the console's paste buffer. And whole types: block devices, consoles,
    // loop devices, virtual machines, and the kernel namespaces' own; nothing inside is one of these.
    put(
        libc::SYS_ioctl,
        Rule::Command {
            forbidden: vec![0x5412, 0x541c],
            forbidden_types: vec![0x1200, 0x4b00, 0x4c00, 0x5600, 0xae00, 0xb700],
        },
    );
    // Files, FIFOs and sockets. Devices need a capability that is not there, too, but for the one that marks a file as
    // deleted in a layer.
    let kinds = vec![0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
    for (call, argument) in [(libc::SYS_mknod, Argument(1)), (libc::SYS_mknodat, Argument(2))] {
        put(call, Rule::Masked { argument, mask: libc::S_IFMT, allowed: kinds.clone() });
    }
    // The limit on core dumps stays at the one value that means "none". Lowering it to 0 would start a program of the
    // host that takes dumps, and programs that do so for safety take a refusal for a failure.
    let limit = libc::RLIMIT_CORE;
    put(libc::SYS_setrlimit, Rule::KeptLimit { argument: Argument(0), limit, new_and_old: None });
    let new_and_old = Some((Argument(2), Argument(3)));
    put(libc::SYS_prlimit64, Rule::KeptLimit { argument: Argument(1), limit, new_and_old });
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
        let thread = u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned());
        assert_eq!(clone.verdict([thread, 0, 0, 0, 0, 0]), Verdict::Allow);
        let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        assert_eq!(clone.verdict([user | thread, 0, 0, 0, 0, 0]), Verdict::Refuse);
    }

    #[test]
    fn raw_packet_and_exotic_sockets_are_refused() {
        let rules = table();
        let socket = &rules[&u32::try_from(libc::SYS_socket).unwrap()];
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let make = |family: i32, kind: i32, protocol: i32| {
            let [family, kind, protocol] =
                [family, kind | flags, protocol].map(|n| u64::from(n.cast_unsigned()));
            socket.verdict([family, kind, protocol, 0, 0, 0])
        };
        let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
        for (family, kind, protocol) in [
            (libc::AF_INET6, stream, libc::IPPROTO_TCP),
            (libc::AF_INET, stream, 0),
            (libc::AF_INET, datagram, libc::IPPROTO_ICMP),
            (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, 0),
        ] {
            assert_eq!(make(family, kind, protocol), Verdict::Allow, "{family} {kind} {protocol}");
        }
        for (family, kind, protocol) in [
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
            (libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
            (libc::AF_INET, stream, libc::IPPROTO_SCTP),
            (libc::AF_INET6, stream, libc::IPPROTO_MPTCP),
            (libc::AF_INET, 10, 3), // the old packet sockets
        ] {
            assert_eq!(make(family, kind, protocol), Verdict::Refuse, "{family} {kind} {protocol}");
        }
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_XDP, libc::AF_BLUETOOTH] {
            assert_eq!(make(family, datagram, 0), Verdict::Refuse, "family {family}");
        }
        let pair = &rules[&u32::try_from(libc::SYS_socketpair).unwrap()];
        assert_eq!(pair.verdict([1, 1, 0, 0, 0, 0]), Verdict::Allow);
        assert_eq!(pair.verdict([30, 1, 0, 0, 0, 0]), Verdict::Refuse, "TIPC has pairs");
    }

    #[test]
    fn devices_cannot_be_made_or_commanded() {
        let rules = table();
        let rule = |number: libc::c_long| &rules[&u32::try_from(number).unwrap()];
        let make = |mode: u32| rule(libc::SYS_mknodat).verdict([0, 0, u64::from(mode), 0, 0, 0]);
        assert_eq!([0o644, 0o100_644, 0o10_644].map(make), [Verdict::Allow; 3]);
        assert_eq!([0o20_666, 0o60_666, 0o40_755].map(make), [Verdict::Refuse; 3]);
        let command = |command: u64| rule(libc::SYS_ioctl).verdict([0, command, 0, 0, 0, 0]);
        // Window size, terminal settings, bytes that can be read, close on exec.
        assert_eq!([0x5413, 0x5401, 0x541b, 0x5451].map(command), [Verdict::Allow; 4]);
        // Pushing input and pasting, KVM_CREATE_VM, LOOP_SET_FD, BLKROSET, NS_GET_USERNS, and with a high half.
        let refused = [0x5412, 0x541c, 0xae01, 0x4c00, 0x125d, 0xb701, 0xffff_ffff_0000_5412];
        assert_eq!(refused.map(command), [Verdict::Refuse; 7]);
    }

    #[test]
    fn the_limit_on_core_dumps_stays_and_other_limits_can_change() {
        let rules = table();
        let rule = |number: libc::c_long| &rules[&u32::try_from(number).unwrap()];
        let set = |limit: u64| rule(libc::SYS_setrlimit).verdict([limit, 1 << 40, 0, 0, 0, 0]);
        assert_eq!((set(7), set(4)), (Verdict::Allow, Verdict::Pretend));
        let change =
            |limit: u64, new: u64, old: u64| rule(libc::SYS_prlimit64).verdict([0, limit, new, old, 0, 0]);
        assert_eq!(change(7, 1 << 40, 1 << 40), Verdict::Allow);
        assert_eq!(change(4, 0, 1 << 40), Verdict::Allow, "it can be asked");
        assert_eq!(change(4, 1 << 40, 0), Verdict::Pretend);
        assert_eq!(change(4, 1 << 40, 1 << 40), Verdict::Refuse, "nobody fills the old value in");
    }
}
