// SPDX-License-Identifier: Apache-2.0
//! The agent: PID 1 inside, with the server's connections and the secret.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{call, flags, open, room, text, word};
use crate::line::{Group, Line, Wanted};

const PTRACE_SEIZE: u64 = 0x4206;
/// An address of no process: the kernel looks at rights first.
const NO_ADDRESS: u64 = 4096;

/// What a listing of an empty directory has: `.` and `..`, in bytes.
const EMPTY_LISTING_BYTES: i64 = 48;
/// Files of `/proc/1`, and with which error the kernel keeps everybody out who may not trace the agent.
const CLOSED: [(&str, i32); 9] = [
    ("environ", libc::EACCES),
    ("maps", libc::EACCES),
    ("smaps", libc::EACCES),
    ("auxv", libc::EACCES),
    ("pagemap", libc::EACCES),
    ("io", libc::EACCES),
    ("stack", libc::EACCES),
    ("syscall", libc::EPERM),
    ("personality", libc::EPERM),
];

pub(super) fn lines() -> Vec<Line> {
    let mut lines = tracing();
    lines.extend(files());
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Agent, id, tries, calls)
}

fn tracing() -> Vec<Line> {
    let ptrace =
        |request: u64, pid: u64| call(libc::SYS_ptrace, [word(request), word(pid), word(0), word(0)]);
    let memory = |number| {
        let own = Argument::List(vec![room(64), word(64)]);
        let its = Argument::List(vec![word(NO_ADDRESS), word(64)]);
        call(number, [word(1), own, word(1), its, word(1), word(0)])
    };
    let pidfd = || call(libc::SYS_pidfd_open, [word(1), word(0)]);
    let first = Argument::Result(0);
    vec![
        // Attaching stops whom it traces, and a control's first process must go on.
        line("ptrace-attach", "traces the agent", [ptrace(libc::PTRACE_ATTACH.into(), 1)])
            .outside_by([ptrace(PTRACE_SEIZE, 1)], Wanted::Done),
        line("ptrace-seize", "traces the agent without stopping it", [ptrace(PTRACE_SEIZE, 1)]),
        line("ptrace-traceme", "lets itself be traced", [ptrace(0, 0)]),
        line("process-vm-readv", "reads the agent's memory", [memory(libc::SYS_process_vm_readv)]).harmless(),
        line("process-vm-writev", "writes the agent's memory", [memory(libc::SYS_process_vm_writev)])
            .harmless(),
        line(
            "pidfd-getfd",
            "takes a descriptor of the agent",
            [pidfd(), call(libc::SYS_pidfd_getfd, [first.clone(), word(0), word(0)])],
        ),
        line(
            "process-madvise",
            "advises about the agent's memory",
            [
                pidfd(),
                call(
                    libc::SYS_process_madvise,
                    [first, Argument::List(vec![word(NO_ADDRESS), word(4096)]), word(1), word(20), word(0)],
                ),
            ],
        )
        .harmless(),
        line(
            "kcmp",
            "compares its descriptors with the agent's",
            [call(
                libc::SYS_kcmp,
                [flags(i32::try_from(std::process::id()).unwrap_or(1)), word(1), word(0), word(0), word(0)],
            )],
        )
        .harmless(),
        line(
            "move-pages",
            "asks where the agent's memory lies",
            [call(
                libc::SYS_move_pages,
                [word(1), word(1), Argument::List(vec![word(NO_ADDRESS)]), word(0), room(8), word(0)],
            )],
        )
        .harmless(),
    ]
}

/// Files of `/proc/1` that the kernel shows only to those who may trace the agent.
fn files() -> Vec<Line> {
    let closed = |id: &str, tries: &str, calls: Vec<Call>| line(id, tries, calls).errno(libc::EACCES);
    let readlink = |path: &str| call(libc::SYS_readlink, [text(path), room(4096), word(4096)]);
    let read = |path: &str| open(path, libc::O_RDONLY);
    let mut lines = vec![
        closed("agent-mem-read", "opens /proc/1/mem to read", vec![read("/proc/1/mem")]),
        closed("agent-mem-write", "opens /proc/1/mem to write", vec![open("/proc/1/mem", libc::O_RDWR)]),
        closed("agent-root-link", "reads the link /proc/1/root", vec![readlink("/proc/1/root")]),
        closed("agent-cwd-link", "reads the link /proc/1/cwd", vec![readlink("/proc/1/cwd")]),
        closed("agent-exe-link", "reads the link /proc/1/exe", vec![readlink("/proc/1/exe")]),
        closed("agent-root", "opens /proc/1/root", vec![read("/proc/1/root/")]),
        closed("agent-root-path", "takes hold of /proc/1/root", vec![open("/proc/1/root", libc::O_PATH)]),
        closed("agent-cwd", "opens /proc/1/cwd", vec![read("/proc/1/cwd/")]),
        closed("agent-exe-read", "opens the agent's program", vec![read("/proc/1/exe")]),
        closed(
            "agent-exe-path",
            "takes hold of the agent's program",
            vec![open("/proc/1/exe", libc::O_PATH)],
        ),
        closed(
            "agent-exe-write",
            "opens the agent's program to write",
            vec![open("/proc/1/exe", libc::O_WRONLY)],
        )
        .harmless(),
        closed("agent-fd-link", "reads the link /proc/1/fd/0", vec![readlink("/proc/1/fd/0")]),
        closed("agent-fd", "opens /proc/1/fd/0", vec![read("/proc/1/fd/0")]).harmless(),
        // It lists nothing to those who may not trace the agent.
        line(
            "agent-map-files",
            "lists /proc/1/map_files",
            vec![
                read("/proc/1/map_files"),
                call(libc::SYS_getdents64, [Argument::Result(0), room(4096), word(4096)]),
            ],
        )
        .wall(Wanted::AtMost(EMPTY_LISTING_BYTES))
        .outside(Wanted::MoreThan(EMPTY_LISTING_BYTES)),
    ];
    for (name, errno) in CLOSED {
        // Some of these are opened by anybody, and refuse to be read.
        let calls = vec![
            read(&format!("/proc/1/{name}")),
            call(libc::SYS_read, [Argument::Result(0), room(4096), word(1024)]),
        ];
        lines.push(line(&format!("agent-{name}"), &format!("reads /proc/1/{name}"), calls).errno(errno));
    }
    lines
}
