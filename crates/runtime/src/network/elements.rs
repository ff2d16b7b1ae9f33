// SPDX-License-Identifier: Apache-2.0
//! Elements of the rules' sets, changed and read in process: a program for each would cost fifty times as much.

use std::io;
use std::time::Duration;

use super::netlink::{ACK, Attributes, CREATE, Messages, Socket, attribute};
use super::rules::{DENIED, ROUTER_TABLE};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_ELEMENT: u16 = 0xa00 | 12;
const GET_ELEMENT: u16 = 0xa00 | 13;
const DELETE_ELEMENT: u16 = 0xa00 | 14;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPRESSION: u16 = 7;
const ELEMENT_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

/// An element of one of the router's sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Element {
    /// The set.
    pub(super) set: &'static str,
    /// Its key, or the first one of a range: fields of four bytes each.
    pub(super) key: Vec<u8>,
    /// The last key of a range.
    pub(super) last: Option<Vec<u8>>,
}

/// Adds elements, for ever or for a time; what is there already gets the new time.
pub(super) fn add(socket: &mut Socket, elements: &[Element], life: Option<Duration>) -> io::Result<()> {
    transaction(socket, |messages| {
        for element in elements {
            put(messages, NEW_ELEMENT, element, life);
            if life.is_some() {
                // Adding once more would leave the time as it is. The three together happen at once.
                put(messages, DELETE_ELEMENT, element, None);
                put(messages, NEW_ELEMENT, element, life);
            }
        }
    })
}

/// Removes elements; those that are not there any more are added first, so that one that just expired is no error.
pub(super) fn remove(socket: &mut Socket, elements: &[Element]) -> io::Result<()> {
    transaction(socket, |messages| {
        for element in elements {
            put(messages, NEW_ELEMENT, element, None);
            put(messages, DELETE_ELEMENT, element, None);
        }
    })
}

/// Reads how many packets of an address were refused.
pub(super) fn refused_packets(socket: &mut Socket, address: [u8; 4]) -> io::Result<u64> {
    let element = Element { set: DENIED, key: address.to_vec(), last: None };
    let mut packets = 0;
    let mut messages = Messages::default();
    put(&mut messages, GET_ELEMENT, &element, None);
    let asked = socket.ask(messages, |answer| {
        packets = counted(answer.body).unwrap_or(packets);
    });
    match asked {
        // Nothing was refused yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        other => other.map(|()| packets),
    }
}

fn counted(body: &[u8]) -> Option<u64> {
    let list = attribute(body.get(4..)?, LIST_ELEMENTS)?;
    let expression = attribute(attribute(list, LIST_ELEMENT)?, ELEMENT_EXPRESSION)?;
    let packets = attribute(attribute(expression, EXPRESSION_DATA)?, COUNTER_PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}

fn transaction(socket: &mut Socket, fill: impl FnOnce(&mut Messages)) -> io::Result<()> {
    const NFTABLES: [u8; 2] = [0, 10];
    let mut messages = Messages::default();
    messages.add(BATCH_BEGIN, 0, &[0, 0, NFTABLES[0], NFTABLES[1]], |_| {});
    fill(&mut messages);
    messages.add(BATCH_END, 0, &[0, 0, NFTABLES[0], NFTABLES[1]], |_| {});
    socket.carry_out(messages)
}

fn put(messages: &mut Messages, act: u16, element: &Element, life: Option<Duration>) {
    const IPV4: u8 = 2;
    let flags = if act == NEW_ELEMENT { ACK | CREATE } else { ACK };
    messages.add(act, flags, &[IPV4, 0, 0, 0], |attributes| {
        attributes.text(LIST_TABLE, ROUTER_TABLE);
        attributes.text(LIST_SET, element.set);
        attributes.nest(LIST_ELEMENTS, |attributes| {
            attributes.nest(LIST_ELEMENT, |attributes| describe(attributes, element, life));
        });
    });
}

fn describe(attributes: &mut Attributes<'_>, element: &Element, life: Option<Duration>) {
    attributes.nest(ELEMENT_KEY, |attributes| attributes.put(DATA_VALUE, &element.key));
    if let Some(last) = &element.last {
        attributes.nest(ELEMENT_KEY_END, |attributes| attributes.put(DATA_VALUE, last));
    }
    if let Some(life) = life {
        let milliseconds = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        attributes.put(ELEMENT_TIMEOUT, &milliseconds.to_be_bytes());
    }
}
