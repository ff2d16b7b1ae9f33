// SPDX-License-Identifier: Apache-2.0
//! Carries what a program writes to whoever reads the call, in the order in which it arrives.
//!
//! At most one chunk is taken out of the pipes ahead of the reader: a slow reader slows the program down, and nothing
//! else. Only [`Relay::catch_up`] takes more, at most what the pipes hold at that instant.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::agent::Channel;
use protocol::limits::{OUTPUT_CHUNK_BYTES_MAX, OUTPUT_PENDING_BYTES_MAX};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

use crate::outbox::{Chunk, Outbox};

/// The read ends of a program's standard output and standard error.
pub(crate) struct Pipes {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    buffer: Box<[u8]>,
}

/// The write ends; they belong to the program alone once it runs.
pub(crate) struct Writers {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The pipes, and what was taken out of them and not handed on yet.
pub(crate) struct Relay {
    pipes: Pipes,
    pending: VecDeque<Chunk>,
    pending_bytes: usize,
}

impl Pipes {
    /// Makes both pipes.
    pub(crate) fn open() -> io::Result<(Pipes, Writers)> {
        let (stdout, stdout_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipes = Pipes {
            stdout: Some(pipe::Receiver::from_owned_fd(stdout)?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr)?),
            buffer: vec![0; OUTPUT_CHUNK_BYTES_MAX].into_boxed_slice(),
        };
        Ok((pipes, Writers { stdout: stdout_writer, stderr: stderr_writer }))
    }

    /// Tells whether anybody may still write.
    pub(crate) fn is_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Waits for the next bytes; `None` when nobody can write any more. Can be cancelled without loss.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        while self.is_open() {
            let channel = tokio::select! {
                () = readable(self.stdout.as_ref()) => Channel::Stdout,
                () = readable(self.stderr.as_ref()) => Channel::Stderr,
            };
            if let Some(bytes) = self.try_next(channel) {
                return Some((channel, bytes));
            }
        }
        None
    }

    fn try_next(&mut self, channel: Channel) -> Option<Vec<u8>> {
        let (end, buffer) = self.end(channel);
        match end.as_ref()?.try_read(buffer) {
            Ok(0) => *end = None,
            Ok(count) => return buffer.get(..count).map(<[u8]>::to_vec),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => *end = None,
        }
        None
    }

    /// Takes what a pipe holds at this instant, and no more, so that an endless writer cannot hold us.
    ///
    /// The event loop may not have heard of these bytes yet, so the pipe itself is asked.
    fn take_held(&mut self, channel: Channel) -> Vec<Vec<u8>> {
        let (end, buffer) = self.end(channel);
        let Some(pipe) = end else { return Vec::new() };
        let mut chunks = Vec::new();
        let mut left =
            rustix::io::ioctl_fionread(&*pipe).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        while left > 0 {
            let room = left.min(buffer.len());
            match rustix::io::read(&*pipe, &mut buffer[..room]) {
                Ok(count) if count > 0 => {
                    chunks.push(buffer[..count].to_vec());
                    left -= count;
                }
                Ok(_) | Err(_) => break,
            }
        }
        chunks
    }

    fn end(&mut self, channel: Channel) -> (&mut Option<pipe::Receiver>, &mut [u8]) {
        match channel {
            Channel::Stdout | Channel::BackgroundStdout => (&mut self.stdout, &mut self.buffer),
            Channel::Stderr | Channel::BackgroundStderr => (&mut self.stderr, &mut self.buffer),
        }
    }
}

async fn readable(end: Option<&pipe::Receiver>) {
    match end {
        // An error shows itself again when the pipe is read.
        Some(pipe) => drop(pipe.readable().await),
        None => pending().await,
    }
}

impl Relay {
    /// Starts with nothing pending.
    pub(crate) fn new(pipes: Pipes) -> Relay {
        Relay { pipes, pending: VecDeque::new(), pending_bytes: 0 }
    }

    /// Tells whether anything is pending or may still come.
    pub(crate) fn is_open(&self) -> bool {
        !self.pending.is_empty() || self.pipes.is_open()
    }

    /// Tells whether so much is pending that nothing may be added.
    pub(crate) fn is_full(&self) -> bool {
        self.pending_bytes >= OUTPUT_PENDING_BYTES_MAX
    }

    /// Moves one chunk one step on: to the outbox, or out of the pipes. Can be cancelled without loss.
    pub(crate) async fn step(&mut self, outbox: &Outbox) {
        if self.pending.is_empty() {
            if let Some((channel, bytes)) = self.pipes.next().await {
                self.add(channel, bytes);
            }
            return;
        }
        let place = outbox.place().await;
        if let Some((channel, bytes)) = self.pending.pop_front() {
            self.pending_bytes -= bytes.len();
            if let Some(place) = place {
                place.send((channel, bytes));
            }
        }
    }

    /// Puts a chunk behind what is pending.
    pub(crate) fn add(&mut self, channel: Channel, bytes: Vec<u8>) {
        self.pending_bytes += bytes.len();
        self.pending.push_back((channel, bytes));
    }

    /// Takes over all that was written until now.
    pub(crate) fn catch_up(&mut self) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            for bytes in self.pipes.take_held(channel) {
                self.add(channel, bytes);
            }
        }
    }

    /// Waits for the next bytes from the pipes, past all outboxes; `None` when nobody can write any more. Can be
    /// cancelled without loss.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        self.pipes.next().await
    }

    /// Takes all that is pending.
    pub(crate) fn take_pending(&mut self) -> Vec<Chunk> {
        self.pending_bytes = 0;
        self.pending.drain(..).collect()
    }

    /// Hands on all that is pending.
    pub(crate) async fn flush(&mut self, outbox: &Outbox) {
        while !self.pending.is_empty() {
            self.step(outbox).await;
        }
    }

    /// Lets processes that outlive their command go on writing, into nothing: a closed pipe would kill them.
    pub(crate) fn leave_behind(mut self, places: &Arc<Semaphore>) {
        if !self.pipes.is_open() {
            return;
        }
        let Ok(place) = Arc::clone(places).try_acquire_owned() else { return };
        tokio::spawn(async move {
            while self.pipes.next().await.is_some() {
                tokio::task::yield_now().await;
            }
            drop(place);
        });
    }
}
