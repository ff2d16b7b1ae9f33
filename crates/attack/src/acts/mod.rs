// SPDX-License-Identifier: Apache-2.0
//! Lines that take more than a list of calls.

mod memory;
mod processes;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use attack::abi::{call, word};
use attack::{Act, Answer};
use nix::libc;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use sys::attempt::{Argument, Call, attempt};

use crate::run;

pub(crate) use processes::{close_standard, hold_many, multiply_until_killed};

/// How long a call of an act may take, in seconds.
const CALL_SECONDS: u32 = 5;

/// Does it and says what came back.
pub(crate) fn act(act: Act) -> Answer {
    let done = match act {
        Act::SetnsPassed => setns_passed(),
        Act::TypeAhead(added) => type_ahead(added),
        Act::Multiply(kind, most) => processes::multiply(kind, most).map(Answer::Returned),
        Act::Take(kind, most) => memory::take(kind, most).map(Answer::Returned),
        Act::Descriptors(most) => descriptors(most).map(Answer::Returned),
    };
    done.unwrap_or_else(|error| Answer::Unable(error.to_string()))
}

/// Makes one call; its error is the answer.
fn one(call: Call) -> Answer {
    run::answer(attempt(&[call], CALL_SECONDS), 0)
}

fn descriptor(of: &OwnedFd) -> Argument {
    word(u64::from(of.as_raw_fd().unsigned_abs()))
}

fn setns_passed() -> io::Result<Answer> {
    let namespace = open("/proc/self/ns/uts", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let passed = pass(&namespace)?;
    drop(namespace);
    Ok(one(call(libc::SYS_setns, [descriptor(&passed), word(0)])))
}

/// Sends a descriptor through a socket and takes it out at the other end.
fn pass(namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sent = [std::os::fd::AsFd::as_fd(namespace)];
    if !control.push(SendAncillaryMessage::ScmRights(&sent)) {
        return Err(io::Error::other("there is no room for one descriptor"));
    }
    sendmsg(&here, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&there, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("no descriptor came through the socket"))
}

fn type_ahead(added: u64) -> io::Result<Answer> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let path = ptsname(&ours, Vec::new())?;
    let terminal = open(path.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    let request = word(libc::TIOCSTI | added);
    Ok(one(call(libc::SYS_ioctl, [descriptor(&terminal), request, attack::abi::text("x")])))
}

fn descriptors(most: u32) -> io::Result<i64> {
    let (first, _other) = rustix::pipe::pipe()?;
    let mut held = Vec::new();
    while held.len() < usize::try_from(most).unwrap_or(usize::MAX) {
        match rustix::io::dup(&first) {
            Ok(one) => held.push(one),
            Err(_) => break,
        }
    }
    Ok(i64::try_from(held.len()).unwrap_or(i64::MAX))
}
