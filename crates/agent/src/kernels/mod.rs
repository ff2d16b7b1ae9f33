// SPDX-License-Identifier: Apache-2.0
//! Kernels: one interpreter for each language, held open, and its executions one after the other.
//!
//! ```text
//!            run                    Idle ──▶ Executing ──▶ Idle           the driver said DONE
//! Absent ─────────▶ Starting ─────▶   │          │
//!    ▲                  │ not ready   │ dies     │ dies, or breaks the driver protocol,
//!    └──────────────────┴─────────────┴──────────┘ or ignores an interrupt and is killed
//! ```
//!
//! One task owns each kernel ([`owner`]). Calls stand in a fair line in front of it; one that is cancelled leaves it.

mod driver;
mod frames;

mod background;
mod execution;
mod interpreter;
mod owner;

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{Language, RunEnd};
use protocol::limits::KERNEL_QUEUE_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::Agent;
use crate::outbox::{Chunk, Gone, Outbox};

/// One execution that was asked for.
pub(crate) struct Run {
    /// The source text.
    pub(crate) code: String,
    /// How long it may take, from when the kernel gets it.
    pub(crate) timeout: Option<Duration>,
    /// Where its output goes.
    pub(crate) outbox: Outbox,
    /// Whether anybody still waits for it.
    pub(crate) gone: Gone,
}

/// A run whose turn has come.
struct Job {
    run: Run,
    done: oneshot::Sender<Outcome>,
    /// Given back when the kernel is free for the next.
    _turn: OwnedSemaphorePermit,
}

/// How a run ended, with the output that was not handed on yet.
struct Outcome {
    rest: Vec<Chunk>,
    end: RunEnd,
}

/// The kernels of all languages.
pub(crate) struct Kernels {
    python: Line,
    node: Line,
}

/// The way to one kernel.
struct Line {
    language: Language,
    /// A place for the one that runs and for each that waits.
    places: Semaphore,
    /// Whose turn it is; fair, so first come, first served.
    turn: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
}

impl Kernels {
    /// Starts a task for each kernel; the one in `prestart` makes its interpreter at once.
    pub(crate) fn start(agent: &Arc<Agent>, prestart: Option<Language>) -> Kernels {
        let line = |language| {
            // Only the one whose turn it is sends, so one place is enough.
            let (jobs, receiver) = mpsc::channel(1);
            tokio::spawn(owner::own(Arc::clone(agent), language, receiver, prestart == Some(language)));
            Line {
                language,
                places: Semaphore::new(1 + KERNEL_QUEUE_MAX),
                turn: Arc::new(Semaphore::new(1)),
                jobs,
            }
        };
        Kernels { python: line(Language::Python), node: line(Language::Node) }
    }

    /// Executes source text when its turn comes.
    pub(crate) async fn run(&self, language: Language, run: Run) -> RunEnd {
        let line = match language {
            Language::Python => &self.python,
            Language::Node => &self.node,
        };
        if run.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return RunEnd::TimedOut { kept: true };
        }
        line.run(run).await
    }
}

impl Line {
    async fn run(&self, run: Run) -> RunEnd {
        let Ok(_place) = self.places.try_acquire() else {
            let name = driver::of(self.language).name;
            return unavailable(format!("{KERNEL_QUEUE_MAX} executions wait for the {name} kernel already"));
        };
        let mut gone = run.gone.clone();
        let outbox = run.outbox.clone();
        let turn = tokio::select! {
            turn = Arc::clone(&self.turn).acquire_owned() => turn,
            () = gone.wait() => return RunEnd::Interrupted,
        };
        let (done, outcome) = oneshot::channel();
        if let Ok(turn) = turn {
            // A closed channel shows itself in the outcome.
            let _ = self.jobs.send(Job { run, done, _turn: turn }).await;
        }
        let Ok(Outcome { rest, end }) = outcome.await else {
            return unavailable("the kernel's task has ended".to_owned());
        };
        for chunk in rest {
            if let Some(place) = outbox.place().await {
                place.send(chunk);
            }
        }
        end
    }
}

fn unavailable(message: String) -> RunEnd {
    RunEnd::Unavailable { message }
}
