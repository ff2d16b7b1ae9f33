// SPDX-License-Identifier: Apache-2.0
//! The one message from the outer process to the inner one: the overlay mounts and volumes, by descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Most overlay mounts and volumes in one plan.
pub(crate) const MOUNTS_MAX: usize = 48;

const GO: u8 = 1;

/// The outer process's end.
pub(crate) struct Sender(OwnedFd);

/// The inner process's end.
pub(crate) struct Receiver(OwnedFd);

/// Makes both ends.
pub(crate) fn channel() -> io::Result<(Sender, Receiver)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Sender(a), Receiver(b)))
}

impl Sender {
    /// Hands the mounts over; the ids of the inner process are mapped by then.
    pub(crate) fn go(self, mounts: &[OwnedFd]) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOUNTS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other(format!("more than {MOUNTS_MAX} mounts")));
        }
        sendmsg(&self.0, &[IoSlice::new(&[GO])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Receiver {
    /// Waits for the mounts; `None` when the outer process ends without sending them.
    pub(crate) fn wait_for_mounts(self) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOUNTS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes != 1 || byte != [GO] {
            return Ok(None);
        }
        let mut mounts = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                mounts.extend(descriptors);
            }
        }
        Ok(Some(mounts))
    }
}
