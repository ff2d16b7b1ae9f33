// SPDX-License-Identifier: Apache-2.0
//! The frames between the agent and a driver: `kind: u8`, `id: u64 LE`, `length: u32 LE`, payload.
//!
//! The driver shares its process with the user's code, so its frames are parsed like a stranger's.

use std::io;

use protocol::limits::DRIVER_FRAME_BYTES_MAX;
use tokio::net::unix::pipe;

const RUN: u8 = 1;
const READY: u8 = 16;
const BARRIER: u8 = 17;
const DONE: u8 = 18;
const HEAD_BYTES: usize = 13;

/// What a driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// It takes executions now.
    Ready,
    /// All that was written until now shall be read before it goes on.
    Barrier(u64),
    /// The execution with this id has ended.
    Done(u64, Status),
}

/// How an execution ended, as the driver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Error,
    Interrupted,
}

/// Bytes that are no frame of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver sent a malformed frame")]
pub(super) struct Malformed;

/// The read end of the pipe on which a driver replies.
pub(super) struct Replies {
    pipe: pipe::Receiver,
    bytes: Vec<u8>,
}

/// Source text on its way to the driver, which may take it slowly.
pub(super) struct Feed {
    pipe: pipe::Sender,
    bytes: Vec<u8>,
    sent: usize,
}

impl Replies {
    pub(super) fn new(pipe: pipe::Receiver) -> Replies {
        Replies { pipe, bytes: Vec::new() }
    }

    /// Waits for the next frame; `None` when the driver can send no more. Can be cancelled without loss.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some(frame) = take_frame(&mut self.bytes)? {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 4096];
            if self.pipe.readable().await.is_err() {
                return Ok(None);
            }
            match self.pipe.try_read(&mut buffer) {
                Ok(count) if count > 0 => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Ok(None),
            }
        }
    }
}

impl Feed {
    pub(super) fn new(pipe: pipe::Sender) -> Feed {
        Feed { pipe, bytes: Vec::new(), sent: 0 }
    }

    /// Starts to send source text to be run under an id; nothing else may be on its way.
    pub(super) fn run(&mut self, id: u64, code: &str) {
        // The request came in a frame of far less than 4 GiB.
        let length = u32::try_from(code.len()).unwrap_or(u32::MAX);
        self.sent = 0;
        self.bytes = [&[RUN][..], &id.to_le_bytes(), &length.to_le_bytes(), code.as_bytes()].concat();
    }

    /// Tells whether something is still on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.sent < self.bytes.len()
    }

    /// Sends what the pipe takes. Can be cancelled without loss.
    pub(super) async fn step(&mut self) -> io::Result<()> {
        self.pipe.writable().await?;
        match self.pipe.try_write(self.bytes.get(self.sent..).unwrap_or_default()) {
            Ok(count) => self.sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if !self.is_busy() {
            self.bytes = Vec::new();
            self.sent = 0;
        }
        Ok(())
    }
}

/// Takes one frame off the front, if it is there as a whole.
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Frame>, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [kind, i0, i1, i2, i3, i4, i5, i6, i7, l0, l1, l2, l3] = *head;
    let id = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > DRIVER_FRAME_BYTES_MAX || !matches!(kind, READY | BARRIER | DONE) {
        return Err(Malformed);
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let frame = match (kind, payload) {
        (READY, _) => Frame::Ready,
        (BARRIER, []) => Frame::Barrier(id),
        (DONE, [0]) => Frame::Done(id, Status::Success),
        (DONE, [1]) => Frame::Done(id, Status::Error),
        (DONE, [2]) => Frame::Done(id, Status::Interrupted),
        _ => return Err(Malformed),
    };
    bytes.drain(..HEAD_BYTES + length);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, id: u64, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[kind][..], &id.to_le_bytes(), &length.to_le_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_taken_one_by_one_and_only_whole() {
        let mut input = [bytes(READY, 0, b"3.11"), bytes(BARRIER, 7, b""), bytes(DONE, 9, &[1])].concat();
        let last = input.pop().unwrap();
        assert_eq!(take_frame(&mut input), Ok(Some(Frame::Ready)));
        assert_eq!(take_frame(&mut input), Ok(Some(Frame::Barrier(7))));
        assert_eq!(take_frame(&mut input), Ok(None));
        input.push(last);
        assert_eq!(take_frame(&mut input), Ok(Some(Frame::Done(9, Status::Error))));
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(take_frame(&mut bytes(RUN, 0, b"")), Err(Malformed));
        assert_eq!(take_frame(&mut bytes(DONE, 0, &[3])), Err(Malformed));
        assert_eq!(take_frame(&mut bytes(DONE, 0, &[0, 0])), Err(Malformed));
        assert_eq!(take_frame(&mut [&[READY][..], &[0; 8], &[255; 4]].concat()), Err(Malformed));
    }
}
