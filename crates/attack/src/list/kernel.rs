// SPDX-License-Identifier: Apache-2.0
//! Parts of the kernel that programs in a sandbox have no use for, and that holes were found in again and again.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{HERE, HIGH_BITS, call, flags, no_descriptor, open, room, text, word, words};
use crate::line::{Act, Control, Group, Line, Probe, Wanted};

/// The keyring of the process itself: it ends with it (`keyctl(2)`).
const PROCESS_KEYRING: u64 = (-2_i64).cast_unsigned();
/// A flag that no kernel knows, where wrong flags are refused after missing rights.
const NO_FLAG: u64 = 0x8000;
/// `adjtimex(2)`: set the length of a tick.
const ADJ_TICK: u32 = 0x4000;
/// `personality(2)`.
const NO_RANDOM_ADDRESSES: u64 = 0x0004_0000;
const READ_IMPLIES_EXECUTE: u64 = 0x0040_0000;

pub(super) fn lines() -> Vec<Line> {
    let mut lines = keys();
    lines.extend(machinery());
    lines.extend(handles());
    lines.extend(memory());
    lines.extend(clocks());
    lines.extend(loading());
    lines.extend(machine());
    lines.extend(terminals());
    lines.extend(priorities());
    lines.extend(unknown());
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Kernel, id, tries, calls)
}

fn keys() -> Vec<Line> {
    vec![
        line(
            "add-key",
            "puts a key into its keyring",
            [call(
                libc::SYS_add_key,
                [text("user"), text(crate::MARK), text("secret"), word(6), word(PROCESS_KEYRING)],
            )],
        ),
        line(
            "keyctl",
            "asks for its keyring",
            [call(libc::SYS_keyctl, [word(0), word(PROCESS_KEYRING), word(1)])],
        ),
        line("keyctl-session", "makes a session keyring", [call(libc::SYS_keyctl, [word(1), word(0)])]),
        line(
            "request-key",
            "asks for a key",
            [call(libc::SYS_request_key, [text("user"), text(crate::MARK), word(0), word(PROCESS_KEYRING)])],
        )
        .harmless(),
    ]
}

fn machinery() -> Vec<Line> {
    // BPF_MAP_CREATE: array, key of 4 bytes, value of 4 bytes, one entry.
    let map = words(&[2, 4, 4, 1], 72);
    // BPF_PROG_LOAD: socket filter of "r0 = 0; exit".
    let instructions = words(&[0x0000_00b7, 0, 0x0000_0095, 0], 16);
    let program =
        Argument::List(vec![word(1 | (2 << 32)), instructions, text("GPL"), word(0), word(0), word(0)]);
    vec![
        line("bpf-map", "makes a BPF map", [call(libc::SYS_bpf, [word(0), map, word(72)])]),
        line("bpf-program", "loads a BPF program", [call(libc::SYS_bpf, [word(5), program, word(48)])]),
        line(
            "perf-event-open",
            "counts its own processor time by perf",
            [call(
                libc::SYS_perf_event_open,
                [words(&[1, 128], 128), word(0), no_descriptor(), no_descriptor(), word(0)],
            )],
        ),
        line(
            "userfaultfd",
            "handles faults of the kernel's accesses",
            [call(libc::SYS_userfaultfd, [word(0)])],
        ),
        line("userfaultfd-user", "handles its own page faults", [call(libc::SYS_userfaultfd, [word(1)])]),
        line("io-uring-setup", "makes an io_uring", [call(libc::SYS_io_uring_setup, [word(4), room(120)])]),
        line(
            "io-uring-enter",
            "submits to an io_uring",
            [call(libc::SYS_io_uring_enter, [no_descriptor(), word(1), word(0), word(0), word(0), word(0)])],
        )
        .harmless(),
        line(
            "io-uring-register",
            "registers with an io_uring",
            [call(libc::SYS_io_uring_register, [no_descriptor(), word(0), word(0), word(0)])],
        )
        .harmless(),
        line(
            "fanotify-init",
            "watches files of everybody",
            [call(libc::SYS_fanotify_init, [word(0), word(0)])],
        ),
    ]
}

fn handles() -> Vec<Line> {
    // 12 bytes of a handle of type 1, which belongs to no file.
    let handle = || words(&[12, 1, 0xffff, 0, 0], 32);
    vec![
        line(
            "name-to-handle",
            "gets a handle of a file",
            [call(libc::SYS_name_to_handle_at, [HERE, text("/"), words(&[128], 256), room(8), word(0)])],
        ),
        line(
            "open-by-handle",
            "opens a file by a made-up handle",
            [call(libc::SYS_open_by_handle_at, [HERE, handle(), word(0)])],
        )
        .harmless(),
    ]
}

fn memory() -> Vec<Line> {
    let personality = |persona: u64| call(libc::SYS_personality, [word(persona)]);
    vec![
        line("personality-addresses", "switches random addresses off", [personality(NO_RANDOM_ADDRESSES)]),
        line(
            "personality-execute",
            "makes all that is readable executable",
            [personality(READ_IMPLIES_EXECUTE)],
        ),
        line(
            "personality-high-bits",
            "the same, with bits above the number",
            [personality(READ_IMPLIES_EXECUTE | HIGH_BITS)],
        ),
        line(
            "memfd-secret",
            "takes memory that the kernel cannot see",
            [call(libc::SYS_memfd_secret, [word(0)])],
        ),
        line(
            "modify-ldt",
            "reads its table of segments",
            [call(libc::SYS_modify_ldt, [word(0), room(64), word(64)])],
        ),
    ]
}

/// Clocks: the values are such that no kernel sets a clock to them.
fn clocks() -> Vec<Line> {
    let no_time = || Argument::List(vec![word(0), word(u64::MAX)]);
    let no_tick = || words(&[ADJ_TICK], 208);
    vec![
        line("clock-settime", "sets the clock", [call(libc::SYS_clock_settime, [word(0), no_time()])])
            .harmless(),
        line("settimeofday", "sets the time of day", [call(libc::SYS_settimeofday, [no_time(), word(0)])])
            .harmless(),
        line("adjtimex", "changes the speed of the clock", [call(libc::SYS_adjtimex, [no_tick()])])
            .harmless(),
        line(
            "clock-adjtime",
            "changes the speed of a clock",
            [call(libc::SYS_clock_adjtime, [word(0), no_tick()])],
        )
        .harmless(),
        line(
            "time-offsets",
            "moves its monotonic clock",
            [
                open("/proc/self/timens_offsets", libc::O_WRONLY),
                call(libc::SYS_write, [Argument::Result(0), text("1 1 0\n"), word(6)]),
            ],
        )
        .wall(Wanted::OneOf(vec![crate::Answer::Error(libc::EPERM), crate::Answer::Error(libc::EACCES)]))
        .outside_by(
            [
                call(libc::SYS_unshare, [word(0x80)]),
                open("/proc/self/timens_offsets", libc::O_WRONLY),
                call(libc::SYS_write, [Argument::Result(1), text("1 1 0\n"), word(6)]),
            ],
            Wanted::Done,
        ),
    ]
}

/// Other code in the kernel, or another kernel: nothing here could be loaded.
fn loading() -> Vec<Line> {
    let kexec = call(libc::SYS_kexec_load, [word(0), word(0), word(0), word(NO_FLAG)]);
    vec![
        line(
            "init-module",
            "loads a module from memory",
            [call(libc::SYS_init_module, [room(16), word(0), text("")])],
        )
        .harmless(),
        line(
            "finit-module",
            "loads a module from a file",
            [call(libc::SYS_finit_module, [no_descriptor(), text(""), word(0)])],
        )
        .harmless(),
        line(
            "delete-module",
            "removes a module",
            [call(libc::SYS_delete_module, [text("msb_attack_no_such_module"), flags(libc::O_NONBLOCK)])],
        )
        .harmless(),
        line("kexec-load", "loads another kernel", [kexec]).harmless(),
        line(
            "kexec-file-load",
            "loads another kernel from a file",
            [call(
                libc::SYS_kexec_file_load,
                [no_descriptor(), no_descriptor(), word(0), word(0), word(NO_FLAG)],
            )],
        )
        .harmless(),
    ]
}

fn machine() -> Vec<Line> {
    let nowhere = || text("/msb-attack-no-such-file");
    vec![
        line(
            "reboot",
            "restarts the machine",
            [call(libc::SYS_reboot, [word(0), word(0), word(0), word(0)])],
        )
        .harmless(),
        line("swapon", "adds swap", [call(libc::SYS_swapon, [nowhere(), word(0)])]).harmless(),
        line("swapoff", "takes swap away", [call(libc::SYS_swapoff, [nowhere()])]).harmless(),
        line("acct", "writes accounts of processes", [call(libc::SYS_acct, [nowhere()])]).harmless(),
        line(
            "quotactl",
            "asks for disk quotas",
            [call(libc::SYS_quotactl, [word(0x0080_0004 << 8), nowhere(), word(0), room(64)])],
        )
        .harmless(),
        line(
            "quotactl-fd",
            "asks for disk quotas by descriptor",
            [call(libc::SYS_quotactl_fd, [no_descriptor(), word(0x0080_0004 << 8), word(0), room(64)])],
        )
        .harmless(),
        line(
            "syslog-read",
            "reads the kernel's messages",
            [call(libc::SYS_syslog, [word(3), room(4096), word(4096)])],
        ),
        line(
            "syslog-size",
            "asks how long the kernel's messages are",
            [call(libc::SYS_syslog, [word(10), word(0), word(0)])],
        ),
        line("iopl", "asks for all ports of the hardware", [call(libc::SYS_iopl, [word(3)])]),
        line(
            "ioperm",
            "asks for a port of the hardware",
            [call(libc::SYS_ioperm, [word(0x80), word(1), word(1)])],
        ),
        line(
            "sethostname",
            "renames the machine",
            [call(libc::SYS_sethostname, [text(crate::MARK), word(10)])],
        ),
        line(
            "setdomainname",
            "renames the machine's domain",
            [call(libc::SYS_setdomainname, [text(crate::MARK), word(10)])],
        ),
    ]
}

/// Typing into a terminal that somebody else reads.
fn terminals() -> Vec<Line> {
    let act = |id: &str, tries: &str, added: u64| Line {
        probe: Probe::Act(Act::TypeAhead(added)),
        control: Control::Same(Wanted::Done),
        ..line(id, tries, [])
    };
    let console = |added: u64| {
        let request = libc::TIOCLINUX | added;
        [
            open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY),
            call(libc::SYS_ioctl, [Argument::Result(0), word(request), words(&[3], 16)]),
        ]
    };
    vec![
        act("tiocsti", "types into a terminal", 0),
        act("tiocsti-high-bits", "types into a terminal, with bits above the request", HIGH_BITS),
        line("tioclinux", "pastes into the console", console(0)).harmless(),
        line(
            "tioclinux-high-bits",
            "pastes into the console, with bits above the request",
            console(HIGH_BITS),
        )
        .harmless(),
    ]
}

/// Being served before everybody else.
fn priorities() -> Vec<Line> {
    let policy = |id: &str, tries: &str, policy: i32| {
        line(id, tries, [call(libc::SYS_sched_setscheduler, [word(0), flags(policy), words(&[1], 4)])])
    };
    // Size, policy, flags, nice, priority, runtime, deadline, period: 1 ms of every 10.
    let deadline =
        Argument::List([48 | (6 << 32), 0, 0, 1_000_000, 10_000_000, 10_000_000].map(word).to_vec());
    vec![
        policy("sched-fifo", "becomes a realtime process (FIFO)", libc::SCHED_FIFO),
        policy("sched-rr", "becomes a realtime process (RR)", libc::SCHED_RR),
        line(
            "sched-deadline",
            "becomes a process with deadlines",
            [call(libc::SYS_sched_setattr, [word(0), deadline, word(0)])],
        ),
        line(
            "nice",
            "raises its priority",
            [call(libc::SYS_setpriority, [word(0), word(0), word((-20_i64).cast_unsigned())])],
        )
        .errno(libc::EACCES),
        line(
            "ioprio-realtime",
            "gets the disk before others",
            [call(libc::SYS_ioprio_set, [word(1), word(0), word(1 << 13)])],
        ),
    ]
}

/// Numbers that the wall's table does not have.
fn unknown() -> Vec<Line> {
    let nothing = "no kernel has this call: it answers the same";
    let unknown = |id: &str, number: u32| Line {
        control: Control::Needless(nothing),
        ..line(
            id,
            &format!("makes a call with the number {number}"),
            [Call { entry: sys::attempt::Entry::Native, number, arguments: vec![] }],
        )
        .errno(libc::ENOSYS)
    };
    // getxattrat(2) of Linux 6.13: a real call that is newer than the table.
    let newer = call(464, [HERE, text("/"), word(0), text("user.x"), room(16), word(16)]);
    vec![
        line("newer-call", "makes a call that is newer than the wall", [newer])
            .errno(libc::ENOSYS)
            .harmless(),
        unknown("unknown-1000", 1000),
        unknown("unknown-large", 0x3fff_ffff),
        unknown("unknown-negative", u32::MAX),
    ]
}
