// SPDX-License-Identifier: Apache-2.0
//! Device nodes: making them, and the ones of virtual machines and loop devices.

use nix::libc;
use sys::attempt::{Argument, Call};

use super::{But, refused};
use crate::abi::{HERE, call, flags, open, room, text, word};
use crate::line::{Group, Line};

const KVM_GET_API_VERSION: u64 = 0xAE00;
const LOOP_GET_STATUS64: u64 = 0x4C05;
/// `open(2)` for a device that is only asked.
const ASK: i32 = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Character devices.
const CHARACTER: [(&str, u32, u32); 11] = [
    ("mem", 1, 1),
    ("null", 1, 3),
    ("port", 1, 4),
    ("kmsg", 1, 11),
    ("console", 5, 1),
    ("tty0", 4, 0),
    ("tun", 10, 200),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("loop-control", 10, 237),
    ("vhost-net", 10, 238),
];
/// Block devices.
const BLOCK: [(&str, u32, u32); 5] =
    [("ram0", 1, 0), ("loop0", 7, 0), ("sda", 8, 0), ("vda", 253, 0), ("nvme0n1", 259, 0)];
/// Devices that must not be there.
const ABSENT: [&str; 14] = [
    "kvm",
    "loop-control",
    "loop0",
    "fuse",
    "net/tun",
    "mem",
    "port",
    "kmsg",
    "vhost-net",
    "vsock",
    "sda",
    "vda",
    "uinput",
    "mapper/control",
];

pub(super) fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> =
        CHARACTER.map(|(name, major, minor)| node(name, libc::S_IFCHR, major, minor)).into();
    lines.extend(BLOCK.map(|(name, major, minor)| node(name, libc::S_IFBLK, major, minor)));
    lines.extend(ABSENT.map(absent));
    lines.extend(asked());
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Devices, id, tries, calls)
}

fn mknod(name: &str, kind: u32, major: u32, minor: u32) -> Call {
    let path = format!("/tmp/msb-attack-{name}");
    call(libc::SYS_mknod, [text(&path), word(u64::from(kind | 0o666)), word(libc::makedev(major, minor))])
}

fn node(name: &str, kind: u32, major: u32, minor: u32) -> Line {
    let (sort, what) = if kind == libc::S_IFCHR { ("c", "character") } else { ("b", "block") };
    line(
        &format!("mknod-{sort}-{name}"),
        &format!("makes the {what} device {name}"),
        [mknod(&format!("{sort}-{name}"), kind, major, minor)],
    )
}

fn absent(name: &str) -> Line {
    let path = format!("/dev/{name}");
    let id = format!("device-{}", name.replace('/', "-"));
    let mut line = line(&id, &format!("opens {path}"), [open(&path, libc::O_PATH)]).errno(libc::ENOENT);
    line.control = crate::line::Control::Needless("what is in /dev is the wall's own list");
    line
}

fn asked() -> Vec<Line> {
    let ioctl = |request: u64, argument: Argument| {
        call(libc::SYS_ioctl, [Argument::Result(1), word(request), argument])
    };
    vec![
        line(
            "kvm-ioctl",
            "asks KVM for its version",
            [
                mknod("asked-kvm", libc::S_IFCHR, 10, 232),
                open("/tmp/msb-attack-asked-kvm", ASK),
                ioctl(KVM_GET_API_VERSION, word(0)),
            ],
        )
        .needs("/sys/class/misc/kvm"),
        line(
            "loop-ioctl",
            "asks a loop device for its file",
            [
                mknod("asked-loop", libc::S_IFBLK, 7, 0),
                open("/tmp/msb-attack-asked-loop", libc::O_RDONLY | libc::O_NONBLOCK),
                ioctl(LOOP_GET_STATUS64, room(232)),
            ],
        )
        .harmless()
        .needs("/sys/block/loop0"),
        line(
            "mknodat",
            "makes a device by mknodat",
            [call(
                libc::SYS_mknodat,
                [
                    HERE,
                    text("/tmp/msb-attack-at"),
                    word(u64::from(libc::S_IFCHR | 0o666)),
                    word(libc::makedev(1, 1)),
                ],
            )],
        ),
        line(
            "mknod-dev",
            "makes a device in /dev",
            [call(
                libc::SYS_mknod,
                [
                    text("/dev/msb-attack-node"),
                    word(u64::from(libc::S_IFCHR | 0o666)),
                    word(libc::makedev(1, 3)),
                ],
            )],
        )
        .wall(crate::line::Wanted::OneOf(vec![
            crate::Answer::Error(libc::EPERM),
            crate::Answer::Error(libc::EROFS),
        ])),
        line(
            "dev-file",
            "makes a file in /dev",
            [call(
                libc::SYS_openat,
                [HERE, text("/dev/msb-attack-file"), flags(libc::O_CREAT | libc::O_WRONLY), word(0o600)],
            )],
        )
        .errno(libc::EROFS),
    ]
}
