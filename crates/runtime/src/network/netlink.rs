// SPDX-License-Identifier: Apache-2.0
//! Messages to the kernel about networks (`netlink(7)`): put together, sent, and their acknowledgements awaited.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use protocol::limits::{NETLINK_BYTES_MAX, NETLINK_WAIT};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// Wants an acknowledgement.
pub(super) const ACK: u16 = 0x4;
/// Makes what is not there.
pub(super) const CREATE: u16 = 0x400;
/// Fails when it is there.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// Takes the place of what is there.
pub(super) const REPLACE: u16 = 0x100;

const REQUEST: u16 = 0x1;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 0x2;
const HEADER_BYTES: usize = 16;

/// One or more messages that are sent together.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: u32,
    acknowledged: u32,
}

impl Messages {
    /// Adds a message: what it is, its flags, its fixed part, its attributes.
    pub(super) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.count += 1;
        self.acknowledged += u32::from(flags & ACK != 0);
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(fixed);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("messages are small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes of a message that is being put together.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.fill(kind, |bytes| bytes.extend(value));
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.fill(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        });
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.fill(kind | NESTED, |bytes| fill(&mut Attributes { bytes }));
    }

    /// Adds an attribute that begins with a fixed part, as that of a veth's other end does.
    pub(super) fn nest_after(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        self.fill(kind | NESTED, |bytes| {
            bytes.extend(fixed);
            fill(&mut Attributes { bytes });
        });
    }

    fn fill(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend(0_u16.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        fill(self.bytes);
        let length = u16::try_from(self.bytes.len() - start).expect("attributes are small");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes one after the other; ends at the first that is none.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

/// Finds an attribute.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// What it is.
    pub(super) kind: u16,
    /// The request that it answers.
    pub(super) sequence: u32,
    /// All after its header.
    pub(super) body: &'a [u8],
}

/// Reads the messages of one datagram; ends at the first that is none.
pub(super) fn received(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = word(8)?;
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind, sequence, body })
    })
}

/// The part of the kernel that a socket speaks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Interfaces, addresses and routes.
    Routes,
    /// Rules, and news of packets.
    Rules,
}

/// A socket to one part of the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// Added to the sequence numbers of messages, so that a late answer is not taken for another's.
    offset: u32,
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    pub(super) fn open(part: Part) -> io::Result<Socket> {
        Socket::open_with(part, 0)
    }

    /// Opens one that gets the news of IPv4 addresses that come and go.
    pub(super) fn news_of_addresses() -> io::Result<Socket> {
        const IPV4_ADDRESSES: u32 = 0x10;
        Socket::open_with(Part::Routes, IPV4_ADDRESSES)
    }

    fn open_with(part: Part, groups: u32) -> io::Result<Socket> {
        let protocol = match part {
            Part::Routes => None,
            Part::Rules => Some(NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(NETLINK_WAIT))?;
        Ok(Socket { fd, buffer: vec![0; NETLINK_BYTES_MAX], offset: 0 })
    }

    /// Takes the descriptor out.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends messages and waits until all that want to be are acknowledged; the first refusal is the error.
    pub(super) fn carry_out(&mut self, messages: Messages) -> io::Result<()> {
        self.ask(messages, |_| {})
    }

    /// As [`Socket::carry_out`], and shows what else the kernel answers.
    pub(super) fn ask(
        &mut self,
        mut messages: Messages,
        mut each: impl FnMut(&Received<'_>),
    ) -> io::Result<()> {
        let first = self.offset.wrapping_add(1);
        number(&mut messages.bytes, self.offset);
        self.offset = self.offset.wrapping_add(messages.count);
        send(&self.fd, &messages.bytes, SendFlags::empty())?;
        let deadline = Instant::now() + NETLINK_WAIT;
        let mut waiting = messages.acknowledged;
        let mut refusal = None;
        while waiting > 0 {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (count, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
            for message in received(&self.buffer[..count]) {
                if message.sequence.wrapping_sub(first) >= messages.count {
                    continue;
                }
                match refused(&message) {
                    None => each(&message),
                    Some(0) => waiting = waiting.saturating_sub(1),
                    Some(errno) => {
                        refusal = refusal.or(Some(errno));
                        waiting = waiting.saturating_sub(1);
                    }
                }
            }
            // After a refusal not every message is acknowledged any more.
            if let Some(errno) = refusal {
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the error number of an acknowledgement, 0 in good cases; `None` when it is no acknowledgement.
fn refused(message: &Received<'_>) -> Option<i32> {
    let number = message.body.get(..4).and_then(|bytes| bytes.try_into().ok());
    (message.kind == ERROR).then(|| number.map_or(0, |bytes| i32::from_ne_bytes(bytes).saturating_neg()))
}

/// Adds an offset to all sequence numbers.
fn number(bytes: &mut [u8], offset: u32) {
    let mut at = 0;
    while let Some(Ok(length)) = bytes.get(at..at + 4).map(<[u8; 4]>::try_from) {
        let field: [u8; 4] = bytes[at + 8..at + 12].try_into().expect("four bytes");
        bytes[at + 8..at + 12].copy_from_slice(&u32::from_ne_bytes(field).wrapping_add(offset).to_ne_bytes());
        at += u32::from_ne_bytes(length) as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_can_be_read() {
        let mut messages = Messages::default();
        messages.add(16, ACK, &[1, 2, 3, 4], |attributes| {
            attributes.text(3, "eth0");
            attributes.nest(18, |attributes| attributes.number(1, 7));
        });
        messages.add(20, 0, &[], |attributes| attributes.put(1, &[9]));
        number(&mut messages.bytes, 100);
        let all: Vec<Received<'_>> = received(&messages.bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(16, 101), (20, 102)]);
        assert_eq!(attribute(&all[0].body[4..], 3), Some(&b"eth0\0"[..]));
        let nested = attribute(&all[0].body[4..], 18).unwrap();
        assert_eq!(attribute(nested, 1), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(attribute(all[1].body, 1), Some(&[9][..]));
        assert_eq!(messages.acknowledged, 1);
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        for bytes in [&[][..], &[1], &[4, 0], &[200, 0, 1, 0, 1], &[3, 0, 0, 0], &[0; 40]] {
            assert_eq!(received(bytes).count(), 0);
            assert!(attributes(bytes).count() <= bytes.len());
        }
    }
}
