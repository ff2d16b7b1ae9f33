// SPDX-License-Identifier: Apache-2.0
//! New kernel namespaces, and getting into others.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{HIGH_BITS, call, flags, open, word};
use crate::line::{Act, Control, Group, Line, Probe, Wanted};

/// `CLONE_NEWTIME` (`linux/sched.h`).
const NEW_TIME: i32 = 0x80;
/// Their names in `/proc/<pid>/ns`, and their flags.
const KINDS: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", NEW_TIME),
];

pub(super) fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = KINDS.map(|(name, flag)| unshare(name, flag)).into();
    // CLONE_NEWTIME has a bit of the exit signal in clone's flags: only unshare and clone3 take it.
    lines.extend(KINDS.iter().filter(|(_, flag)| *flag != NEW_TIME).map(|(name, flag)| clone(name, *flag)));
    lines.extend(KINDS.map(|(name, flag)| clone3(name, flag)));
    lines.extend(others());
    lines.extend(KINDS.map(|(name, _)| enter_own(name)));
    lines.extend(KINDS.map(|(name, _)| open_of_agent(name)));
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Namespaces, id, tries, calls)
}

fn unshare(name: &str, flag: i32) -> Line {
    let calls = [call(libc::SYS_unshare, [flags(flag)])];
    line(&format!("unshare-{name}"), &format!("makes a {name} namespace by unshare"), calls)
}

fn clone_flags(value: u64) -> Call {
    call(libc::SYS_clone, [word(value), word(0), word(0), word(0), word(0)])
}

fn with_child_signal(flag: i32) -> u64 {
    u64::from((flag | libc::SIGCHLD).cast_unsigned())
}

fn clone(name: &str, flag: i32) -> Line {
    let calls = [clone_flags(with_child_signal(flag))];
    line(&format!("clone-{name}"), &format!("makes a {name} namespace by clone"), calls)
}

fn clone3(name: &str, flag: i32) -> Line {
    let flag = u64::from(flag.cast_unsigned());
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls
    let arguments = Argument::List([flag, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0].map(word).to_vec());
    let calls = [call(libc::SYS_clone3, [arguments, word(64)])];
    let tries = format!("makes a {name} namespace by clone3");
    line(&format!("clone3-{name}"), &tries, calls).errno(libc::ENOSYS)
}

fn others() -> Vec<Line> {
    let pidfd = call(libc::SYS_pidfd_open, [word(1), word(0)]);
    let of_agent = call(libc::SYS_setns, [Argument::Result(0), flags(libc::CLONE_NEWNS)]);
    let all = KINDS.iter().filter(|(_, flag)| *flag != NEW_TIME).fold(0, |all, (_, flag)| all | flag);
    vec![
        line("unshare-all", "makes all namespaces at once", [call(libc::SYS_unshare, [flags(all)])]),
        line(
            "clone-user-high-bits",
            "makes a user namespace by clone, with bits above the flags",
            [clone_flags(with_child_signal(libc::CLONE_NEWUSER) | HIGH_BITS)],
        ),
        line("setns-pidfd", "enters the agent's mount namespace by its pidfd", [pidfd, of_agent]),
        Line {
            probe: Probe::Act(Act::SetnsPassed),
            control: Control::Same(Wanted::Done),
            ..line("setns-passed", "enters a namespace whose descriptor came through a socket", [])
        },
    ]
}

fn enter_own(name: &str) -> Line {
    let calls = [
        open(&format!("/proc/self/ns/{name}"), libc::O_RDONLY),
        call(libc::SYS_setns, [Argument::Result(0), word(0)]),
    ];
    // Nobody can enter the user namespace that he is in.
    line(&format!("setns-own-{name}"), &format!("enters its own {name} namespace again"), calls).harmless()
}

fn open_of_agent(name: &str) -> Line {
    let calls = [
        open(&format!("/proc/1/ns/{name}"), libc::O_RDONLY),
        call(libc::SYS_setns, [Argument::Result(0), word(0)]),
    ];
    let tries = format!("enters the agent's {name} namespace");
    line(&format!("setns-agent-{name}"), &tries, calls).errno(libc::EACCES).harmless()
}
