// SPDX-License-Identifier: Apache-2.0
//! The kernel's news of refused packets, for the log: `nfnetlink_log`.
//!
//! The rules count every packet, and tell of a few a second for each sandbox.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::netlink::{ACK, Messages, Part, Socket, attribute, received};
use super::router::Shared;
use super::rules::LOG_GROUP;

const CONFIG: u16 = 0x401;
const PACKET: u16 = 0x400;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const PAYLOAD: u16 = 9;
/// Most bytes of a packet that the kernel copies: its headers.
const COPY_BYTES: u32 = 64;

/// Subscribes to the news, in the calling thread's network namespace.
pub(super) fn listen() -> io::Result<Socket> {
    const IPV4: u8 = 2;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let group = LOG_GROUP.to_be_bytes();
    let mut socket = Socket::open(Part::Rules)?;
    for (kind, value) in [
        (CONFIG_COMMAND, vec![BIND]),
        (CONFIG_MODE, [&COPY_BYTES.to_be_bytes()[..], &[COPY_PACKET, 0]].concat()),
    ] {
        let mut messages = Messages::default();
        messages.add(CONFIG, ACK, &[IPV4, 0, group[0], group[1]], |attributes| attributes.put(kind, &value));
        socket.carry_out(messages)?;
    }
    Ok(socket)
}

/// Writes the news into the log, for as long as the task is there.
pub(super) fn watch(socket: Socket, shared: &Arc<Shared>) -> io::Result<AbortHandle> {
    let fd = socket.into_fd();
    rustix::io::ioctl_fionbio(&fd, true)?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that lie about their descriptor; an OwnedFd does not"
    )]
    let readable = AsyncFd::new(fd)?;
    Ok(tokio::spawn(tell_forever(readable, Arc::clone(shared))).abort_handle())
}

async fn tell_forever(socket: AsyncFd<OwnedFd>, shared: Arc<Shared>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        // News that came too fast is lost; the counters have it.
        if let Ok(Ok(count)) = ready.try_io(|fd| Ok(recv(fd.as_fd(), &mut buffer[..], RecvFlags::empty())?.0))
        {
            for message in received(&buffer[..count]).filter(|message| message.kind == PACKET) {
                tell(message.body, &shared);
            }
        }
    }
}

fn tell(body: &[u8], shared: &Shared) {
    let Some(refused) = body.get(4..).and_then(|body| attribute(body, PAYLOAD)).and_then(Refused::read)
    else {
        return;
    };
    let Some(session) = shared.session(refused.from) else { return };
    let Refused { protocol, to, port, .. } = refused;
    tracing::info!(sandbox = %session.id, protocol, %to, port, "network: a packet was refused");
}

/// A packet that was refused.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    from: Ipv4Addr,
    to: Ipv4Addr,
    /// Its number in the registry of protocols: 6 is TCP, 17 UDP.
    protocol: u8,
    port: Option<u16>,
}

impl Refused {
    fn read(packet: &[u8]) -> Option<Refused> {
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let protocol = *packet.get(9)?;
        let header = usize::from(packet.first()? & 0xf) * 4;
        let port = packet.get(header + 2..header + 4).filter(|_| matches!(protocol, 6 | 17));
        let port = port.and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
        Some(Refused { from: address(12)?, to: address(16)?, protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packets_head_is_read_and_half_of_one_is_not() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 2, 169, 254, 169, 254];
        packet.extend([0x9c, 0x40, 0, 80]);
        let refused = Refused::read(&packet).unwrap();
        assert_eq!((refused.to, refused.port), (Ipv4Addr::new(169, 254, 169, 254), Some(80)));
        for length in 0..20 {
            assert_eq!(Refused::read(&packet[..length]), None);
        }
        assert_eq!(Refused::read(&packet[..22]).unwrap().port, None);
    }
}
