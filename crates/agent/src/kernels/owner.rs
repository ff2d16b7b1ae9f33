// SPDX-License-Identifier: Apache-2.0
//! The task that owns one kernel: starts it, executes in it, and watches it between executions.

use std::sync::Arc;

use protocol::agent::{Language, RunEnd};
use tokio::sync::mpsc;

use crate::kernels::background::Background;
use crate::kernels::execution::{Fate, execute};
use crate::kernels::frames::Frame;
use crate::kernels::interpreter::{Interpreter, KernelError};
use crate::kernels::{Job, Outcome, Run, unavailable};
use crate::outbox::Chunk;
use crate::{Agent, log};

struct Owner {
    agent: Arc<Agent>,
    language: Language,
    background: Background,
    interpreter: Option<Interpreter>,
}

/// What a kernel does while nothing is executed.
enum Event {
    Output(Option<Chunk>),
    Frame(Frame),
    Broken,
}

/// Owns the kernel of a language for ever.
pub(super) async fn own(
    agent: Arc<Agent>,
    language: Language,
    mut jobs: mpsc::Receiver<Job>,
    prestart: bool,
) {
    let mut owner = Owner { agent, language, background: Background::default(), interpreter: None };
    if prestart && let Err(error) = owner.start().await {
        log::error("cannot start a kernel ahead", &error);
    }
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => owner.serve(job).await,
                None => return,
            },
            event = idle_event(&mut owner.interpreter) => owner.note(event).await,
        }
    }
}

/// Waits for something that an idle kernel does; for ever if there is none. Can be cancelled without loss.
async fn idle_event(interpreter: &mut Option<Interpreter>) -> Event {
    let Some(Interpreter { process, relay, replies, .. }) = interpreter else {
        return std::future::pending().await;
    };
    tokio::select! {
        output = relay.next(), if relay.is_open() => Event::Output(output),
        frame = replies.next() => match frame {
            Ok(Some(frame)) => Event::Frame(frame),
            Ok(None) | Err(_) => Event::Broken,
        },
        _ = process.ended() => Event::Broken,
    }
}

impl Owner {
    async fn serve(&mut self, job: Job) {
        let Job { run, done, _turn } = job;
        let outcome = if run.gone.is_gone() {
            Outcome { rest: Vec::new(), end: RunEnd::Interrupted }
        } else {
            self.run(run).await
        };
        // If nobody waits for it any more, nobody misses it.
        let _ = done.send(outcome);
    }

    async fn run(&mut self, mut run: Run) -> Outcome {
        if let Err(error) = self.start().await {
            return Outcome { rest: self.background.take(), end: unavailable(error.to_string()) };
        }
        let (Some(interpreter), Ok(id)) = (self.interpreter.as_mut(), random()) else {
            return Outcome {
                rest: Vec::new(),
                end: unavailable("the kernel gives no random number".to_owned()),
            };
        };
        // What was printed until now is late output of before.
        absorb(interpreter, &mut self.background);
        for (channel, bytes) in self.background.take() {
            interpreter.relay.add(channel, bytes);
        }
        let (end, fate) = execute(interpreter, &mut run, id).await;
        let rest = interpreter.relay.take_pending();
        if fate == Fate::Dead {
            self.interpreter = None;
        }
        Outcome { rest, end }
    }

    /// Sees to it that there is a live interpreter.
    async fn start(&mut self) -> Result<(), KernelError> {
        if self.interpreter.as_mut().is_some_and(|interpreter| interpreter.process.has_ended()) {
            self.bury().await;
        }
        if self.interpreter.is_none() {
            self.interpreter =
                Some(Interpreter::start(&self.agent, self.language, &mut self.background).await?);
        }
        Ok(())
    }

    /// Takes note of what an idle kernel did.
    async fn note(&mut self, event: Event) {
        let Some(interpreter) = self.interpreter.as_mut() else { return };
        let broken = match event {
            Event::Output(chunk) => {
                if let Some((channel, bytes)) = chunk {
                    self.background.add(channel, bytes);
                }
                false
            }
            Event::Frame(Frame::Barrier(sequence)) => {
                absorb(interpreter, &mut self.background);
                interpreter.acknowledge(sequence).is_err()
            }
            // A reply to an execution that is over: late, or forged by user code.
            Event::Frame(Frame::Ready | Frame::Done(..)) => false,
            Event::Broken => true,
        };
        if broken {
            self.bury().await;
        }
    }

    /// Kills what is left of a kernel, and keeps what it printed last.
    async fn bury(&mut self) {
        if let Some(mut interpreter) = self.interpreter.take() {
            interpreter.process.kill().await;
            absorb(&mut interpreter, &mut self.background);
        }
    }
}

/// Takes all that was printed until now as late output.
fn absorb(interpreter: &mut Interpreter, background: &mut Background) {
    interpreter.relay.catch_up();
    for (channel, bytes) in interpreter.relay.take_pending() {
        background.add(channel, bytes);
    }
}

/// A number that user code cannot guess, so that it cannot say in time that its execution is done.
fn random() -> rustix::io::Result<u64> {
    let mut bytes = [0; 8];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if count < bytes.len() { Err(rustix::io::Errno::INTR) } else { Ok(u64::from_le_bytes(bytes)) }
}
