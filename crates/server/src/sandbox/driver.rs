// SPDX-License-Identifier: Apache-2.0
//! The one task that drives a sandbox from its start to its end, and alone writes its state.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use protocol::limits::STOP_WAIT;
use runtime::{Backend, Ended, Sandbox, SandboxSpec, StartError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::live::Live;
use super::state::{Ending, Failure, State};

/// What a driver listens to and writes.
pub(crate) struct Driver {
    /// Builds the sandbox.
    pub(crate) backend: Arc<dyn Backend>,
    /// Where the state is published.
    pub(crate) states: watch::Sender<State>,
    /// Somebody wants it stopped.
    pub(crate) stop: mpsc::Receiver<()>,
    /// Closed when nobody waits for the start any more.
    pub(crate) tickets: mpsc::Receiver<Infallible>,
    /// The sandbox's share of the server's capacity, held until all of it is gone.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Driver {
    /// Drives one sandbox through its whole life.
    pub(crate) async fn drive(mut self, spec: SandboxSpec) {
        let (memory_mib, network) = (spec.memory_mib, spec.network.to_string());
        let started = tokio::select! {
            biased;
            _ = self.stop.recv() => Err(Ending::Stopped),
            _ = self.tickets.recv() => Err(Ending::Abandoned),
            started = self.backend.start(spec) => started.map_err(|error| Ending::NotStarted(failure(&error))),
        };
        match started {
            Ok(sandbox) => self.run(Live::new(sandbox, memory_mib, network)).await,
            Err(ending) => self.publish(State::Ended(ending)),
        }
        drop(self.permit);
    }

    /// Keeps a sandbox running until it is stopped or dies, and takes it down.
    async fn run(&mut self, live: Live) {
        let live = Arc::new(live);
        let sandbox = Arc::clone(live.sandbox());
        let sandbox = &sandbox;
        self.publish(State::Running(Arc::clone(&live)));
        // What the first sample of the sampler is compared with.
        live.meter().sample();
        drop(live);
        let died = tokio::select! {
            biased;
            _ = self.stop.recv() => None,
            ended = sandbox.ended() => Some(ended),
        };
        match died {
            Some(Ended::Died { reason }) => {
                tracing::warn!(reason, "a sandbox died");
                self.publish(State::Ended(Ending::Died { reason }));
                if let Some(left) = take_down(sandbox).await {
                    tracing::error!(left, "a sandbox that died is not wholly removed");
                }
            }
            Some(Ended::Stopped) | None => {
                self.publish(State::Stopping);
                let ending = match take_down(sandbox).await {
                    None => Ending::Stopped,
                    Some(left) => Ending::NotWholly { left },
                };
                self.publish(State::Ended(ending));
            }
        }
    }

    fn publish(&self, state: State) {
        self.states.send_replace(state);
    }
}

/// Stops a sandbox; what is left of it in the end, if not nothing.
async fn take_down(sandbox: &Arc<dyn Sandbox>) -> Option<String> {
    match tokio::time::timeout(STOP_WAIT, sandbox.stop()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.left),
        Err(_) => Some(format!("its processes did not end within {} seconds", STOP_WAIT.as_secs())),
    }
}

fn failure(error: &StartError) -> Failure {
    match error {
        StartError::NoCapacity(_) => Failure::NoCapacity(error.to_string()),
        StartError::Walls { .. } => {
            Failure::Broken { what: "its walls could not be built".to_owned(), detail: chain(error) }
        }
        StartError::Agent(_) => {
            Failure::Broken { what: "its agent does not answer".to_owned(), detail: chain(error) }
        }
        StartError::TooWeak(lacking) => Failure::TooWeak(lacking.clone()),
        // What the image lacks is the client's business, and names nothing of the host.
        StartError::Unfit(_) => Failure::Broken { what: error.to_string(), detail: chain(error) },
    }
}

/// Writes an error and all its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
