// SPDX-License-Identifier: Apache-2.0
//! Kinds of sockets: each is a protocol's worth of code in the kernel.
//!
//! A kernel loads the module of a family when somebody asks for a socket of it. So the control asks for a kind of socket
//! that there is not: that is refused before anything is loaded, but after every look at the caller.

use nix::libc;
use sys::attempt::Call;

use super::{But, refused};
use crate::abi::{HIGH_BITS, call, flags, room, word};
use crate::line::{Group, Line, Wanted};

/// A kind of socket that there is not (`linux/net.h`: the last one is 10).
const NO_KIND: i32 = 15;

/// Families, by their names.
const FAMILIES: [(&str, i32); 27] = [
    ("ax25", libc::AF_AX25),
    ("ipx", libc::AF_IPX),
    ("appletalk", libc::AF_APPLETALK),
    ("netrom", libc::AF_NETROM),
    ("x25", libc::AF_X25),
    ("rose", libc::AF_ROSE),
    ("key", libc::AF_KEY),
    ("llc", libc::AF_LLC),
    ("rds", libc::AF_RDS),
    ("pppox", libc::AF_PPPOX),
    ("can", libc::AF_CAN),
    ("tipc", libc::AF_TIPC),
    ("bluetooth", libc::AF_BLUETOOTH),
    ("iucv", libc::AF_IUCV),
    ("rxrpc", libc::AF_RXRPC),
    ("isdn", libc::AF_ISDN),
    ("phonet", libc::AF_PHONET),
    ("ieee802154", libc::AF_IEEE802154),
    ("caif", libc::AF_CAIF),
    ("alg", libc::AF_ALG),
    ("nfc", libc::AF_NFC),
    ("vsock", libc::AF_VSOCK),
    ("kcm", 41),
    ("qipcrtr", 42),
    ("smc", 43),
    ("xdp", libc::AF_XDP),
    ("mctp", 45),
];
/// Protocols of netlink other than routing.
const NETLINK: [(&str, i32); 10] = [
    ("usersock", 2),
    ("sock-diag", 4),
    ("xfrm", 6),
    ("audit", 9),
    ("connector", 11),
    ("netfilter", 12),
    ("uevent", 15),
    ("generic", 16),
    ("rdma", 20),
    ("crypto", 21),
];

pub(super) fn lines() -> Vec<Line> {
    let mut lines = vec![
        line("raw-icmp", "makes a raw socket", [socket(libc::AF_INET, libc::SOCK_RAW, 1)]),
        line("raw-icmp6", "makes a raw socket for IPv6", [socket(libc::AF_INET6, libc::SOCK_RAW, 58)]),
        line("raw-all", "makes a raw socket for any protocol", [socket(libc::AF_INET, libc::SOCK_RAW, 255)]),
        line("packet-raw", "makes a packet socket", [socket(libc::AF_PACKET, libc::SOCK_RAW, 0)]),
        line(
            "packet-datagram",
            "makes a packet socket without headers",
            [socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)],
        ),
        line(
            "packet-high-bits",
            "makes a packet socket, with bits above the family",
            [call(
                libc::SYS_socket,
                [
                    word(HIGH_BITS | u64::from(libc::AF_PACKET.cast_unsigned())),
                    flags(libc::SOCK_RAW),
                    word(0),
                ],
            )],
        ),
        line(
            "packet-flags",
            "makes a packet socket with flags in its kind",
            [socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)],
        ),
        line(
            "socketpair-netlink",
            "makes netlink sockets as a pair",
            [call(libc::SYS_socketpair, [flags(libc::AF_NETLINK), flags(libc::SOCK_RAW), word(16), room(8)])],
        )
        .harmless(),
        line(
            "socketpair-packet",
            "makes packet sockets as a pair",
            [call(libc::SYS_socketpair, [flags(libc::AF_PACKET), flags(libc::SOCK_RAW), word(0), room(8)])],
        )
        .harmless(),
    ];
    lines.extend(FAMILIES.map(|(name, family)| of_family(name, family)));
    lines.extend(NETLINK.map(|(name, protocol)| of_netlink(name, protocol)));
    lines
}

fn line(id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    refused(Group::Sockets, id, tries, calls)
}

fn socket(family: i32, kind: i32, protocol: i32) -> Call {
    call(libc::SYS_socket, [flags(family), flags(kind), flags(protocol)])
}

fn of_family(name: &str, family: i32) -> Line {
    let kind = match family {
        libc::AF_ALG | libc::AF_TIPC => libc::SOCK_SEQPACKET,
        libc::AF_XDP | libc::AF_KEY | libc::AF_BLUETOOTH | libc::AF_CAN => libc::SOCK_RAW,
        libc::AF_VSOCK => libc::SOCK_STREAM,
        _ => libc::SOCK_DGRAM,
    };
    let protocol = if family == libc::AF_KEY { 2 } else { 0 };
    line(
        &format!("socket-{name}"),
        &format!("makes a socket of the family {name}"),
        [socket(family, kind, protocol)],
    )
    .outside_by([socket(family, NO_KIND, protocol)], Wanted::Reached)
}

fn of_netlink(name: &str, protocol: i32) -> Line {
    line(
        &format!("netlink-{name}"),
        &format!("makes a netlink socket for {name}"),
        [socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)],
    )
    .outside_by([socket(libc::AF_NETLINK, NO_KIND, protocol)], Wanted::Reached)
}
