// SPDX-License-Identifier: Apache-2.0
//! One execution in a kernel, from handing over the source to the driver's word that it is done.
//!
//! ```text
//! Going ── time is up ──▶ TimedOut ──┬─ DONE within the grace: the kernel is kept
//!   │                        ▲       └─ otherwise it is killed
//!   └──── server leaves ──▶ Cancelled (likewise)
//! ```

use std::future::pending;
use std::io;
use std::time::Duration;

use protocol::agent::RunEnd;
use protocol::limits::{COMMAND_DRAIN_WAIT, INTERRUPT_GRACE};
use sys::spawn::End;
use tokio::time::{Instant, sleep_until, timeout};

use crate::kernels::Run;
use crate::kernels::frames::{Frame, Malformed, Status};
use crate::kernels::interpreter::Interpreter;

/// What becomes of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes the next execution.
    Lives,
    /// It is dead, and so is everything that it started.
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Going,
    TimedOut,
    Cancelled,
}

enum Event {
    Moved,
    Fed(io::Result<()>),
    Frame(Result<Option<Frame>, Malformed>),
    Ended,
    TimeUp,
    Gone,
}

/// Executes source text to its end. What is left of its output is pending in the relay.
pub(super) async fn execute(interpreter: &mut Interpreter, run: &mut Run, id: u64) -> (RunEnd, Fate) {
    interpreter.feed.run(id, &run.code);
    run.code = String::new();
    let mut phase = Phase::Going;
    let mut deadline = run.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        match next_event(interpreter, run, deadline, phase).await {
            Event::Moved | Event::Fed(Ok(())) => {}
            Event::Frame(Ok(Some(Frame::Done(done, status))))
                if done == id && !interpreter.feed.is_busy() =>
            {
                interpreter.relay.catch_up();
                return (end_of(status, phase), Fate::Lives);
            }
            Event::Frame(Ok(Some(Frame::Barrier(sequence)))) => {
                interpreter.relay.catch_up();
                if interpreter.acknowledge(sequence).is_err() {
                    return bury(interpreter, phase, Duration::ZERO).await;
                }
            }
            // A reply to another execution: late, or forged by user code.
            Event::Frame(Ok(Some(Frame::Ready | Frame::Done(..)))) => {}
            // Its pipes end just before the interpreter does.
            Event::Ended | Event::Frame(Ok(None)) | Event::Fed(Err(_)) => {
                return bury(interpreter, phase, COMMAND_DRAIN_WAIT).await;
            }
            Event::Frame(Err(Malformed)) => return bury(interpreter, phase, Duration::ZERO).await,
            Event::TimeUp if phase == Phase::Going => {
                phase = Phase::TimedOut;
                deadline = interrupt(interpreter);
            }
            Event::TimeUp => return bury(interpreter, phase, Duration::ZERO).await,
            Event::Gone => {
                deadline = if phase == Phase::Going { interrupt(interpreter) } else { deadline };
                phase = Phase::Cancelled;
            }
        }
    }
}

async fn next_event(
    interpreter: &mut Interpreter,
    run: &mut Run,
    deadline: Option<Instant>,
    phase: Phase,
) -> Event {
    let Interpreter { process, relay, feed, replies, .. } = interpreter;
    let (moving, listening) = (relay.is_open(), !relay.is_full());
    tokio::select! {
        () = relay.step(&run.outbox), if moving => Event::Moved,
        fed = feed.step(), if feed.is_busy() => Event::Fed(fed),
        frame = replies.next(), if listening => Event::Frame(frame),
        _ = process.ended() => Event::Ended,
        () = time_up(deadline) => Event::TimeUp,
        () = run.gone.wait(), if phase != Phase::Cancelled => Event::Gone,
    }
}

async fn time_up(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Interrupts the code; returns until when it may obey.
fn interrupt(interpreter: &Interpreter) -> Option<Instant> {
    interpreter.process.interrupt();
    Some(Instant::now() + INTERRUPT_GRACE)
}

/// Waits a little for an end that is due by itself, then kills what is left, and tells how it ended.
async fn bury(interpreter: &mut Interpreter, phase: Phase, wait: Duration) -> (RunEnd, Fate) {
    let own_end = timeout(wait, interpreter.process.ended()).await;
    interpreter.process.kill().await;
    interpreter.relay.catch_up();
    let end = match own_end {
        Ok(end) => end,
        Err(_) => interpreter.process.ended().await,
    };
    let end = match (phase, end) {
        (Phase::TimedOut, _) => RunEnd::TimedOut { kept: false },
        (Phase::Going | Phase::Cancelled, End::Exited(code)) => {
            RunEnd::Died { code: Some(code), signal: None }
        }
        (Phase::Going | Phase::Cancelled, End::Signaled(signal)) => {
            RunEnd::Died { code: None, signal: Some(signal) }
        }
    };
    (end, Fate::Dead)
}

fn end_of(status: Status, phase: Phase) -> RunEnd {
    match (phase, status) {
        (Phase::TimedOut, _) => RunEnd::TimedOut { kept: true },
        (Phase::Going | Phase::Cancelled, Status::Success) => RunEnd::Success,
        (Phase::Going | Phase::Cancelled, Status::Error) => RunEnd::Error,
        (Phase::Going | Phase::Cancelled, Status::Interrupted) => RunEnd::Interrupted,
    }
}
