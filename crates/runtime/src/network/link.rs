// SPDX-License-Identifier: Apache-2.0
//! Interfaces, addresses and routes (`rtnetlink(7)`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{ACK, Attributes, CREATE, EXCLUSIVE, Messages, REPLACE, Socket};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_GROUP: u16 = 27;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_TO: u16 = 1;
const ROUTE_OUT: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;

const INET: u8 = 2;
const UP: u32 = 0x1;
/// Nobody is asked for hardware addresses, and nobody is answered.
const NO_ARP: u32 = 0x80;
/// The kernel's limit on names.
const NAME_BYTES_MAX: usize = 15;

/// The number that every loopback interface has.
pub(super) const LOOPBACK: u32 = 1;

/// One end of a pair of interfaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its number; the kernel chooses when it is 0, and for both ends when it is 0 here.
    pub(super) index: u32,
    /// Its group: what the rules know it by.
    pub(super) group: u32,
}

/// Makes a pair of interfaces, both down: one here, one in another network namespace.
///
/// Both have the same hardware address. With ARP off, the kernel writes an interface's own address into what it sends,
/// and so it is always the other's: there is no neighbour table that anybody could fill.
pub(super) fn make_pair(
    socket: &mut Socket,
    here: End<'_>,
    there: End<'_>,
    namespace: BorrowedFd<'_>,
    hardware: [u8; 6],
) -> io::Result<()> {
    let mut messages = Messages::default();
    let describe = |attributes: &mut Attributes<'_>, end: End<'_>| {
        assert!(end.name.len() <= NAME_BYTES_MAX, "interfaces are named in this crate");
        attributes.text(LINK_NAME, end.name);
        attributes.put(LINK_ADDRESS, &hardware);
        attributes.number(LINK_GROUP, end.group);
    };
    messages.add(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link(here.index), |attributes| {
        describe(attributes, here);
        attributes.nest(LINK_INFO, |attributes| {
            attributes.text(INFO_KIND, "veth");
            attributes.nest(INFO_DATA, |attributes| {
                attributes.nest_after(VETH_PEER, &link(there.index), |attributes| {
                    describe(attributes, there);
                    attributes.number(LINK_NAMESPACE, namespace.as_raw_fd().cast_unsigned());
                });
            });
        });
    });
    socket.carry_out(messages)
}

/// Removes an interface, and the other end of its pair; it is no error if there is none.
pub(super) fn remove(socket: &mut Socket, name: &str) -> io::Result<()> {
    let mut messages = Messages::default();
    messages.add(DELETE_LINK, ACK, &[0; 16], |attributes| attributes.text(LINK_NAME, name));
    match socket.carry_out(messages) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Brings an interface up.
pub(super) fn bring_up(socket: &mut Socket, index: u32) -> io::Result<()> {
    let flags = if index == LOOPBACK { UP } else { UP | NO_ARP };
    let mut messages = Messages::default();
    messages.add(NEW_LINK, ACK, &[0, index, flags, flags].map(u32::to_ne_bytes).concat(), |_| {});
    socket.carry_out(messages)
}

/// Adds an address; `peer` is who is at the other end.
pub(super) fn add_address(socket: &mut Socket, index: u32, own: Ipv4Addr, peer: Ipv4Addr) -> io::Result<()> {
    let mut messages = Messages::default();
    let fixed = [&[INET, 32, 0, 0][..], &index.to_ne_bytes()].concat();
    messages.add(NEW_ADDRESS, ACK | CREATE | REPLACE, &fixed, |attributes| {
        attributes.put(ADDRESS_LOCAL, &own.octets());
        attributes.put(ADDRESS_ADDRESS, &peer.octets());
    });
    socket.carry_out(messages)
}

/// Sends everything that has no other way to a gateway, which is at the other end of the interface.
pub(super) fn add_default_route(socket: &mut Socket, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    const ON_LINK: u32 = 4;
    let mut messages = Messages::default();
    messages.add(NEW_ROUTE, ACK | CREATE | REPLACE, &route(0, 0, ON_LINK), |attributes| {
        attributes.put(ROUTE_GATEWAY, &gateway.octets());
        attributes.number(ROUTE_OUT, index);
    });
    socket.carry_out(messages)
}

/// Sends what is for one address out of an interface.
pub(super) fn add_route(socket: &mut Socket, index: u32, to: Ipv4Addr) -> io::Result<()> {
    const LINK_SCOPE: u8 = 253;
    let mut messages = Messages::default();
    messages.add(NEW_ROUTE, ACK | CREATE | REPLACE, &route(32, LINK_SCOPE, 0), |attributes| {
        attributes.put(ROUTE_TO, &to.octets());
        attributes.number(ROUTE_OUT, index);
    });
    socket.carry_out(messages)
}

/// The fixed part of a message about an interface.
fn link(index: u32) -> Vec<u8> {
    [0, index, 0, 0].map(u32::to_ne_bytes).concat()
}

/// The fixed part of a message about a route of the main table.
fn route(bits: u8, scope: u8, flags: u32) -> Vec<u8> {
    const MAIN_TABLE: u8 = 254;
    const STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    [&[INET, bits, 0, 0, MAIN_TABLE, STATIC, scope, UNICAST][..], &flags.to_ne_bytes()].concat()
}
