// SPDX-License-Identifier: Apache-2.0
//! `/proc` and `/sys`: switches of the kernel are opened to write, never written.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{call, open, read_first, room, text, word};
use crate::answer::Answer;
use crate::line::{Control, Group, Line, Wanted};

/// What a listing of an empty directory has: `.` and `..`, in bytes.
const EMPTY_LISTING_BYTES: i64 = 48;

/// Switches that are files.
const SWITCHES: &[(&str, &str)] = &[
    ("sysrq", "/proc/sysrq-trigger"),
    ("sysrq-mask", "/proc/sys/kernel/sysrq"),
    ("core-pattern", "/proc/sys/kernel/core_pattern"),
    ("core-pipe-limit", "/proc/sys/kernel/core_pipe_limit"),
    ("modprobe", "/proc/sys/kernel/modprobe"),
    ("hotplug", "/proc/sys/kernel/hotplug"),
    ("poweroff", "/proc/sys/kernel/poweroff_cmd"),
    ("hostname", "/proc/sys/kernel/hostname"),
    ("domainname", "/proc/sys/kernel/domainname"),
    ("panic", "/proc/sys/kernel/panic"),
    ("pid-max", "/proc/sys/kernel/pid_max"),
    ("threads-max", "/proc/sys/kernel/threads-max"),
    ("kptr-restrict", "/proc/sys/kernel/kptr_restrict"),
    ("randomize-va", "/proc/sys/kernel/randomize_va_space"),
    ("shmmax", "/proc/sys/kernel/shmmax"),
    ("keys-quota", "/proc/sys/kernel/keys/maxkeys"),
    ("drop-caches", "/proc/sys/vm/drop_caches"),
    ("overcommit", "/proc/sys/vm/overcommit_memory"),
    ("mmap-min-addr", "/proc/sys/vm/mmap_min_addr"),
    ("file-max", "/proc/sys/fs/file-max"),
    ("suid-dumpable", "/proc/sys/fs/suid_dumpable"),
    ("binfmt-register", "/proc/sys/fs/binfmt_misc/register"),
    ("mqueue-max", "/proc/sys/fs/mqueue/queues_max"),
    ("ip-forward", "/proc/sys/net/ipv4/ip_forward"),
    ("max-user-namespaces", "/proc/sys/user/max_user_namespaces"),
    ("irq-affinity", "/proc/irq/default_smp_affinity"),
    ("mtrr", "/proc/mtrr"),
    ("uevent-helper", "/sys/kernel/uevent_helper"),
    ("profiling", "/sys/kernel/profiling"),
    ("power-state", "/sys/power/state"),
    ("pci-rescan", "/sys/bus/pci/rescan"),
    ("block-uevent", "/sys/devices/system/cpu/cpu0/uevent"),
    ("huge-pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("release-agent", "/sys/fs/cgroup/release_agent"),
    ("cgroup-subtree", "/sys/fs/cgroup/cgroup.procs"),
    ("efi-vars", "/sys/firmware/efi/efivars"),
];

/// Files that tell about the host or its kernel, and are covered or closed.
const SECRETS: &[(&str, &str)] = &[
    ("kcore", "/proc/kcore"),
    ("kallsyms", "/proc/kallsyms"),
    ("keys", "/proc/keys"),
    ("timer-list", "/proc/timer_list"),
    ("modules", "/proc/modules"),
    ("sched-debug", "/proc/sched_debug"),
    ("latency-stats", "/proc/latency_stats"),
];
/// Files of which the kernel keeps everybody out who is not its own root.
const CLOSED: &[(&str, &str)] = &[
    ("kmsg", "/proc/kmsg"),
    ("slabinfo", "/proc/slabinfo"),
    ("vmallocinfo", "/proc/vmallocinfo"),
    ("kpagecount", "/proc/kpagecount"),
    ("kpageflags", "/proc/kpageflags"),
    ("pagetypeinfo", "/proc/pagetypeinfo"),
];
/// Directories that are empty inside.
const COVERED: &[(&str, &str)] = &[
    ("acpi", "/proc/acpi"),
    ("scsi", "/proc/scsi"),
    ("firmware", "/sys/firmware"),
    ("sys-fs", "/sys/fs"),
    ("sys-kernel", "/sys/kernel"),
    ("sys-module", "/sys/module"),
    ("sys-power", "/sys/power"),
    ("dmi", "/sys/devices/virtual/dmi"),
];

pub(super) fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = SWITCHES.iter().map(|(name, path)| switch(name, path)).collect();
    lines.extend(SECRETS.iter().map(|(name, path)| secret(name, path)));
    lines.extend(CLOSED.iter().map(|(name, path)| closed(name, path)));
    lines.extend(COVERED.iter().map(|(name, path)| covered(name, path)));
    lines.extend(own_program());
    lines.extend(made());
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::ProcAndSys, id, tries, calls)
}

/// Not there, not writable for who one is, or read-only: any of them keeps it as it is.
fn shut() -> Wanted {
    Wanted::OneOf([libc::EACCES, libc::EROFS, libc::ENOENT].map(Answer::Error).to_vec())
}

fn switch(name: &str, path: &'static str) -> Line {
    line(&format!("write-{name}"), &format!("opens {path} to write"), [open(path, libc::O_WRONLY)])
        .wall(shut())
        .needs(path)
}

fn secret(name: &str, path: &'static str) -> Line {
    line(&format!("read-{name}"), &format!("reads {path}"), [open(path, libc::O_RDONLY), read_first()])
        .wall(Wanted::Hidden(0))
        .outside(Wanted::MoreThan(0))
        .needs(path)
}

fn closed(name: &str, path: &'static str) -> Line {
    line(&format!("read-{name}"), &format!("opens {path}"), [open(path, libc::O_RDONLY | libc::O_NONBLOCK)])
        .wall(Wanted::OneOf([libc::EACCES, libc::EPERM, libc::ENOENT].map(Answer::Error).to_vec()))
        .needs(path)
}

fn covered(name: &str, path: &'static str) -> Line {
    let list = call(libc::SYS_getdents64, [Argument::Result(0), room(4096), word(4096)]);
    line(
        &format!("list-{name}"),
        &format!("lists {path}"),
        [open(path, libc::O_RDONLY | libc::O_DIRECTORY), list],
    )
    .wall(Wanted::Hidden(EMPTY_LISTING_BYTES))
    .outside(Wanted::MoreThan(EMPTY_LISTING_BYTES))
    .needs(path)
}

/// The program that runs, and the way to the agent's.
fn own_program() -> Vec<Line> {
    let write = open("/proc/self/exe", libc::O_WRONLY);
    let mut own = line("write-own-program", "opens its own program to write", [write]).errno(libc::ETXTBSY);
    own.control = Control::Needless("no kernel lets a program be written while it runs");
    vec![own]
}

/// Files that somebody could put where the kernel or others look.
fn made() -> Vec<Line> {
    let create = libc::O_CREAT | libc::O_WRONLY;
    let mut lines = Vec::new();
    for (name, path, errno) in [
        ("proc", "/proc/msb-attack", libc::ENOENT),
        ("sys", "/sys/msb-attack", libc::EROFS),
        ("sys-fs", "/sys/fs/cgroup/msb-attack/x", libc::ENOENT),
    ] {
        let mut line =
            line(&format!("create-{name}"), &format!("makes the file {path}"), [open(path, create)])
                .errno(errno);
        line.control = Control::Needless("no kernel takes files there");
        lines.push(line);
    }
    let lower = [
        open("/proc/self/oom_score_adj", libc::O_WRONLY),
        call(libc::SYS_write, [Argument::Result(0), text("-1000"), word(5)]),
    ];
    lines.push(line("oom-score", "keeps itself from the kernel's memory killer", lower).errno(libc::EACCES));
    lines
}
