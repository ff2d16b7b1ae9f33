// SPDX-License-Identifier: Apache-2.0
//! Mounting in every form, and uncovering what the wall covers.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{HERE, call, flags, no_descriptor, room, text, word};
use crate::line::{Group, Line, Wanted};

/// `fsconfig(2)`: make the file system.
const CMD_CREATE: u64 = 6;
/// `move_mount(2)`: the source is the descriptor itself.
const FROM_EMPTY_PATH: u64 = 4;
const OPEN_TREE_CLONE: u64 = 1;
/// `open_tree_attr(2)`, Linux 6.15.
const OPEN_TREE_ATTR: libc::c_long = 467;
/// `statmount(2)`, Linux 6.8.
const STATMOUNT: libc::c_long = 457;
/// Bytes of `struct mount_attr`.
const ATTRIBUTES_BYTES: usize = 32;

pub(super) fn lines() -> Vec<Line> {
    let mut lines = classic();
    lines.extend(uncovering());
    lines.extend(by_descriptor());
    lines.extend(roots());
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Mounts, id, tries, calls)
}

fn mount(from: Option<&str>, to: &str, kind: Option<&str>, how: u64, data: Option<&str>) -> Call {
    let optional = |value: Option<&str>| value.map_or(word(0), text);
    call(libc::SYS_mount, [optional(from), text(to), optional(kind), word(how), optional(data)])
}

/// `mount(2)` as it always was.
fn classic() -> Vec<Line> {
    let new = |kind: &str| {
        let calls = [mount(Some("none"), "/tmp", Some(kind), 0, None)];
        line(&format!("mount-{kind}"), &format!("mounts a {kind}"), calls)
    };
    let mut lines: Vec<Line> = ["tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup2"].map(new).into();
    let no_such = Some("msb_attack_no_such_controller");
    lines.extend([
        line(
            "mount-cgroup",
            "mounts a cgroup v1 hierarchy",
            [mount(Some("none"), "/tmp", Some("cgroup"), 0, no_such)],
        )
        .harmless(),
        line(
            "mount-overlay",
            "mounts an overlay",
            [mount(Some("none"), "/tmp", Some("overlay"), 0, Some("lowerdir=/tmp:/dev"))],
        ),
        line(
            "mount-ext4",
            "mounts a block device",
            [mount(Some("/dev/msb-attack"), "/tmp", Some("ext4"), 0, None)],
        )
        .harmless(),
        line("mount-bind", "binds / to /tmp", [mount(Some("/"), "/tmp", None, libc::MS_BIND, None)]),
        line(
            "mount-rbind",
            "binds /proc and all below to /tmp",
            [mount(Some("/proc"), "/tmp", None, libc::MS_BIND | libc::MS_REC, None)],
        ),
        line("mount-move", "moves /proc to /tmp", [mount(Some("/proc"), "/tmp", None, libc::MS_MOVE, None)]),
        line("mount-shared", "lets mounts of / spread", [mount(None, "/", None, libc::MS_SHARED, None)]),
        line(
            "mount-slave",
            "lets mounts spread to /",
            [mount(None, "/", None, libc::MS_SLAVE | libc::MS_REC, None)],
        ),
        line(
            "remount-root",
            "mounts / again, without its flags",
            [mount(None, "/", None, libc::MS_REMOUNT | libc::MS_BIND, None)],
        ),
    ]);
    lines
}

/// Makes a mount of what is there, so that a control has what the wall has.
fn itself(path: &str) -> Call {
    mount(Some(path), path, None, libc::MS_BIND, None)
}

/// What the wall covers, and what is read-only.
fn uncovering() -> Vec<Line> {
    let writable = |path: &str| mount(None, path, None, libc::MS_REMOUNT | libc::MS_BIND, None);
    let away = |path: &str, how: i32| call(libc::SYS_umount2, [text(path), flags(how)]);
    vec![
        line("remount-proc-sys", "makes /proc/sys writable", [writable("/proc/sys")])
            .outside_by([itself("/proc/sys"), writable("/proc/sys")], Wanted::Done),
        line("remount-sys", "makes /sys writable", [writable("/sys")]),
        line("umount-proc-sys", "unmounts the read-only /proc/sys", [away("/proc/sys", 0)])
            .outside_by([itself("/proc/sys"), away("/proc/sys", 0)], Wanted::Done),
        line(
            "umount-kallsyms",
            "unmounts what covers /proc/kallsyms",
            [away("/proc/kallsyms", libc::MNT_DETACH)],
        )
        .outside_by([itself("/proc/kallsyms"), away("/proc/kallsyms", libc::MNT_DETACH)], Wanted::Done),
        line("umount-proc", "unmounts /proc", [away("/proc", libc::MNT_DETACH)]),
        line("umount-dev", "unmounts /dev", [away("/dev", libc::MNT_DETACH)]),
        line("umount-root", "unmounts /", [away("/", libc::MNT_DETACH)]),
        line(
            "bind-over-kallsyms",
            "binds a file over /proc/kallsyms",
            [mount(Some("/proc/self/status"), "/proc/kallsyms", None, libc::MS_BIND, None)],
        ),
    ]
}

/// The newer calls, which work on descriptors.
fn by_descriptor() -> Vec<Line> {
    let fsopen = |kind: &str| call(libc::SYS_fsopen, [text(kind), word(0)]);
    let create = |of: Argument| call(libc::SYS_fsconfig, [of, word(CMD_CREATE), word(0), word(0), word(0)]);
    let fsmount = |of: Argument| call(libc::SYS_fsmount, [of, word(0), word(0)]);
    let tree = |path: &str| call(libc::SYS_open_tree, [HERE, text(path), word(OPEN_TREE_CLONE)]);
    let attach = |of: usize| {
        call(
            libc::SYS_move_mount,
            [Argument::Result(of), text(""), HERE, text("/tmp"), word(FROM_EMPTY_PATH)],
        )
    };
    // attr_set, attr_clr (read-only), propagation, user namespace.
    let clear = || Argument::List([0, libc::MOUNT_ATTR_RDONLY, 0, 0].map(word).to_vec());
    let setattr = |path: &str| {
        call(libc::SYS_mount_setattr, [HERE, text(path), word(0), clear(), word(ATTRIBUTES_BYTES as u64)])
    };
    vec![
        line("fsopen-tmpfs", "makes a tmpfs by descriptor", [fsopen("tmpfs")]),
        line("fsopen-proc", "makes a /proc by descriptor", [fsopen("proc")]),
        line(
            "fsmount-whole",
            "makes and attaches a tmpfs by descriptor",
            [fsopen("tmpfs"), create(Argument::Result(0)), fsmount(Argument::Result(0)), attach(2)],
        ),
        line("fsconfig", "configures a file system", [create(no_descriptor())]).harmless(),
        line("fsmount", "makes a mount of a file system", [fsmount(no_descriptor())]).harmless(),
        line(
            "fspick",
            "picks the file system of / to change it",
            [call(libc::SYS_fspick, [HERE, text("/"), word(0)])],
        ),
        line("open-tree", "copies the mount of /", [tree("/")]),
        line(
            "open-tree-plain",
            "takes hold of the mount of /proc",
            [call(libc::SYS_open_tree, [HERE, text("/proc"), word(0)])],
        ),
        line("move-mount-copy", "copies /proc to /tmp", [tree("/proc"), attach(0)]),
        line(
            "move-mount",
            "moves /proc to /tmp by path",
            [call(libc::SYS_move_mount, [HERE, text("/proc"), HERE, text("/tmp"), word(0)])],
        ),
        line("mount-setattr-root", "clears the flags of /", [setattr("/")]),
        line("mount-setattr-proc-sys", "makes /proc/sys writable by attributes", [setattr("/proc/sys")])
            .outside_by([itself("/proc/sys"), setattr("/proc/sys")], Wanted::Done),
        line(
            "open-tree-attr",
            "copies /proc/sys and clears its flags, by a newer call",
            [call(
                OPEN_TREE_ATTR,
                [HERE, text("/proc/sys"), word(OPEN_TREE_CLONE), clear(), word(ATTRIBUTES_BYTES as u64)],
            )],
        )
        .errno(libc::ENOSYS),
        line(
            "statmount",
            "reads what a mount is made of",
            [call(STATMOUNT, [room(32), room(512), word(512), word(0)])],
        )
        .harmless(),
    ]
}

/// Another root directory.
fn roots() -> Vec<Line> {
    vec![
        line("pivot-root", "makes /tmp the root", [call(libc::SYS_pivot_root, [text("/tmp"), text("/tmp")])]),
        line("chroot", "changes the root directory", [call(libc::SYS_chroot, [text("/tmp")])]),
        line("chroot-same", "changes the root directory to itself", [call(libc::SYS_chroot, [text("/")])]),
    ]
}
