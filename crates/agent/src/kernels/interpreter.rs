// SPDX-License-Identifier: Apache-2.0
//! A running interpreter with its driver, and how it gets there.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use protocol::agent::Language;
use protocol::limits::{COMMAND_DRAIN_WAIT, COMPLAINT_BYTES_MAX, KERNEL_START_WAIT};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::spawn::{End, Program, Stage};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Agent;
use crate::kernels::background::Background;
use crate::kernels::driver::{self, Driver};
use crate::kernels::frames::{Feed, Frame, Replies};
use crate::loader;
use crate::outbox::Chunk;
use crate::process::{Process, StartError};
use crate::relay::{Pipes, Relay, Writers};

/// Where the driver finds its ends of the pipes, and its own source.
const REQUESTS_FD: i32 = 200;
const REPLIES_FD: i32 = 201;
const ACKS_FD: i32 = 202;
const SOURCE_FD: i32 = 203;

/// A kernel that is alive.
pub(super) struct Interpreter {
    pub(super) process: Process,
    pub(super) relay: Relay,
    pub(super) feed: Feed,
    pub(super) replies: Replies,
    pub(super) acks: pipe::Sender,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    /// The image has none.
    #[error("this image has no {name} (looked for {names} in PATH: {path}): use {image}; commands work")]
    Missing { name: &'static str, names: String, path: String, image: &'static str },
    /// Its process or its pipes could not be made.
    #[error("cannot start {path}: {reason}")]
    Start { path: String, reason: String },
    /// It did not answer as a kernel does.
    #[error("{path} {what}{complaint}")]
    NotReady { path: String, what: String, complaint: String },
}

/// The driver's ends; they belong to the interpreter alone once it runs.
struct DriverEnds {
    output: Writers,
    requests: OwnedFd,
    replies: OwnedFd,
    acks: OwnedFd,
}

/// What an interpreter does before it is ready.
enum Event {
    Frame(Option<Frame>),
    Output(Option<Chunk>),
    Ended(End),
    TimeUp,
}

impl Interpreter {
    /// Starts a language's interpreter and waits until its driver is ready; what it prints meanwhile is late output.
    ///
    /// Not to be cancelled: it ends by itself, with nothing left of what did not get ready.
    pub(super) async fn start(
        agent: &Agent,
        language: Language,
        background: &mut Background,
    ) -> Result<Interpreter, KernelError> {
        let driver = driver::of(language);
        let path = find(agent, driver)?;
        let args = [driver.option.to_owned(), driver.bootstrap().to_owned()];
        let program = agent.environment.program(&path, &args).ok_or_else(|| KernelError::Start {
            path: path.clone(),
            reason: "a zero byte in its path".to_owned(),
        })?;
        let mut interpreter = launch(agent, driver, &program)
            .await
            .map_err(|error| KernelError::Start { path: path.clone(), reason: reason(&program, &error) })?;
        let mut printed = Vec::new();
        let outcome = interpreter.get_ready(&mut printed).await;
        if let Err(what) = outcome {
            interpreter.process.kill().await;
            interpreter.relay.catch_up();
            printed.append(&mut interpreter.relay.take_pending());
            return Err(KernelError::NotReady { path, what, complaint: complaint(&printed) });
        }
        for (channel, bytes) in printed {
            background.add(channel, bytes);
        }
        Ok(interpreter)
    }

    async fn get_ready(&mut self, printed: &mut Vec<Chunk>) -> Result<(), String> {
        let until = Instant::now() + KERNEL_START_WAIT;
        let mut kept = 0;
        loop {
            match self.starting_event(until).await {
                Event::Frame(Some(Frame::Ready)) => return Ok(()),
                Event::Frame(Some(Frame::Barrier(sequence))) => {
                    self.relay.catch_up();
                    printed.append(&mut self.relay.take_pending());
                    self.acknowledge(sequence).map_err(|()| "does not read acknowledgements".to_owned())?;
                }
                Event::Frame(Some(Frame::Done(..))) => return Err("sent a reply to nothing".to_owned()),
                // Its pipes end just before the interpreter does.
                Event::Frame(None) => match timeout(COMMAND_DRAIN_WAIT, self.process.ended()).await {
                    Ok(end) => return Err(how_ended(end)),
                    Err(_) => return Err("broke the driver protocol".to_owned()),
                },
                Event::Output(Some((channel, bytes))) if kept <= COMPLAINT_BYTES_MAX => {
                    kept += bytes.len();
                    printed.push((channel, bytes));
                }
                Event::Output(_) => {}
                Event::Ended(end) => return Err(how_ended(end)),
                Event::TimeUp => return Err(format!("was not ready within {KERNEL_START_WAIT:?}")),
            }
        }
    }

    async fn starting_event(&mut self, until: Instant) -> Event {
        tokio::select! {
            biased;
            end = self.process.ended() => Event::Ended(end),
            frame = self.replies.next() => Event::Frame(frame.ok().flatten()),
            output = self.relay.next(), if self.relay.is_open() => Event::Output(output),
            () = sleep_until(until) => Event::TimeUp,
        }
    }

    /// Tells the driver that all it wrote before a barrier was read; fails when it does not take that.
    pub(super) fn acknowledge(&self, sequence: u64) -> Result<(), ()> {
        // Asked directly: the event loop may not have heard yet that the pipe has room again.
        match rustix::io::write(&self.acks, &sequence.to_le_bytes()) {
            Ok(8) => Ok(()),
            Ok(_) | Err(_) => Err(()),
        }
    }
}

fn find(agent: &Agent, driver: &Driver) -> Result<String, KernelError> {
    agent.environment.find(driver.interpreters).ok_or_else(|| KernelError::Missing {
        name: driver.interpreters[0],
        names: driver.interpreters.join(", "),
        path: agent.environment.search_path().to_owned(),
        image: driver.image,
    })
}

async fn launch(agent: &Agent, driver: &Driver, program: &Program) -> Result<Interpreter, StartError> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| StartError::Fork(errno.into()))?;
    let source = source_file(driver.source).map_err(StartError::Fork)?;
    let (connect, ends) = open_ends().map_err(StartError::Fork)?;
    let places = [
        (null.as_fd(), 0),
        (ends.output.stdout.as_fd(), 1),
        (ends.output.stderr.as_fd(), 2),
        (ends.requests.as_fd(), REQUESTS_FD),
        (ends.replies.as_fd(), REPLIES_FD),
        (ends.acks.as_fd(), ACKS_FD),
        (source.as_fd(), SOURCE_FD),
    ];
    let process = Process::start(&agent.reaper, program, &places, None).await?;
    Ok(connect(process))
}

/// Makes all pipes; returns what makes an interpreter of our ends, and the driver's ends.
fn open_ends() -> io::Result<(impl FnOnce(Process) -> Interpreter, DriverEnds)> {
    let (pipes, output) = Pipes::open()?;
    let (requests, our_requests) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_replies, replies) = pipe_with(PipeFlags::CLOEXEC)?;
    let (acks, our_acks) = pipe_with(PipeFlags::CLOEXEC)?;
    let feed = Feed::new(pipe::Sender::from_owned_fd(our_requests)?);
    let replies_reader = Replies::new(pipe::Receiver::from_owned_fd(our_replies)?);
    let acks_writer = pipe::Sender::from_owned_fd(our_acks)?;
    let connect = |process| Interpreter {
        process,
        relay: Relay::new(pipes),
        feed,
        replies: replies_reader,
        acks: acks_writer,
    };
    Ok((connect, DriverEnds { output, requests, replies, acks }))
}

/// Puts the driver's source into a file without a name.
fn source_file(source: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("driver", MemfdFlags::CLOEXEC)?);
    file.write_all(source.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn reason(program: &Program, error: &StartError) -> String {
    match error {
        StartError::Program { stage: Stage::Workdir, source } => {
            format!("in the working directory {}: {source}", program.workdir.to_string_lossy())
        }
        StartError::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            let missing = loader::missing_for(program).map(|missing| format!("{missing}: "));
            format!("{}{source}", missing.unwrap_or_default())
        }
        StartError::Fork(source) | StartError::Program { source, .. } => source.to_string(),
        StartError::Slow => error.to_string(),
    }
}

fn how_ended(end: End) -> String {
    match end {
        End::Exited(code) => format!("exited with code {code}"),
        End::Signaled(signal) => format!("was ended by signal {signal}"),
    }
}

/// Quotes the beginning of what an interpreter printed instead of getting ready.
fn complaint(printed: &[Chunk]) -> String {
    let bytes: Vec<u8> =
        printed.iter().flat_map(|(_, bytes)| bytes).copied().take(COMPLAINT_BYTES_MAX).collect();
    match String::from_utf8_lossy(&bytes).trim() {
        "" => String::new(),
        text => format!("; it said: {text}"),
    }
}
