// SPDX-License-Identifier: Apache-2.0
//! Calls into a running sandbox: connections to its agent, kept between calls, and what it uses of the machine.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use protocol::agent::{Channel, Reply, Request};
use protocol::isolation::Isolation;
use protocol::limits::{AGENT_IDLE_CONNECTIONS_MAX, SANDBOX_CALLS_MAX};
use runtime::Sandbox;
use runtime::agent::{CallError, ConnectError, Connection, Event};
use tokio::sync::Semaphore;

use crate::metrics::Meter;

/// A sandbox that runs, as calls see it.
pub(crate) struct Live {
    sandbox: Arc<dyn Sandbox>,
    memory_mib: u32,
    network: String,
    meter: Meter,
    idle: Mutex<Vec<Connection>>,
    calls: Semaphore,
}

/// A call's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// How the call ended.
    pub(crate) reply: Reply,
    /// Whether the kernel killed something in the sandbox meanwhile because its memory was full.
    pub(crate) out_of_memory: bool,
}

/// Why a call has no answer, in words.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What failed, with its causes.
    pub(crate) what: String,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("memory_mib", &self.memory_mib).finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(sandbox: Arc<dyn Sandbox>, memory_mib: u32, network: String) -> Live {
        let meter = Meter::new(Arc::clone(&sandbox));
        let calls = Semaphore::new(SANDBOX_CALLS_MAX);
        Live { sandbox, memory_mib, network, meter, idle: Mutex::new(Vec::new()), calls }
    }

    pub(crate) fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// Returns the word for whom it may reach.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// Returns its published ports, the host's as they are.
    pub(crate) fn ports(&self) -> Vec<String> {
        let published = self.sandbox.network().map(|network| network.ports).unwrap_or_default();
        published.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Says what protects the sandbox. Blocks for a moment.
    pub(crate) fn isolation(&self) -> Isolation {
        self.sandbox.isolation()
    }

    /// Carries out one request; dropping the future cancels it in the sandbox.
    pub(crate) async fn call(
        &self,
        request: Request,
        mut output: impl FnMut(Channel, &[u8]),
    ) -> Result<Answer, Broken> {
        let _turn = self.calls.acquire().await.expect("this semaphore is never closed");
        let mut connection = self.send(request).await?;
        // Read while the agent is at work already, so that it costs the call no time.
        let kills_before = self.oom_kills();
        loop {
            match connection.next().await.map_err(Broken::from_call)? {
                Event::Output(channel, bytes) => output(channel, &bytes),
                Event::Reply(reply) => {
                    self.keep(connection);
                    let out_of_memory = failed(&reply) && self.oom_kills() > kills_before;
                    return Ok(Answer { reply, out_of_memory });
                }
            }
        }
    }

    /// Sends a request, on a kept connection if there is one that still works.
    async fn send(&self, request: Request) -> Result<Connection, Broken> {
        if let Some(mut connection) = self.kept()
            && connection.request(request.clone()).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = self.sandbox.connect().await.map_err(Broken::from_connect)?;
        connection.request(request).await.map_err(Broken::from_call)?;
        Ok(connection)
    }

    fn kept(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < AGENT_IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
    }

    fn oom_kills(&self) -> u64 {
        // Unreadable means that the sandbox is going down, and then its end is what is told.
        self.sandbox.oom_kills().unwrap_or(0)
    }
}

fn failed(reply: &Reply) -> bool {
    use protocol::agent::{CommandEnd, RunEnd};
    match reply {
        Reply::Pong => false,
        Reply::Command { end } => *end != CommandEnd::Exited { code: 0 },
        Reply::Run { end } => *end != RunEnd::Success,
    }
}

impl Broken {
    fn from_call(error: CallError) -> Broken {
        Broken { what: with_cause(&error) }
    }

    fn from_connect(error: ConnectError) -> Broken {
        Broken { what: with_cause(&error) }
    }
}

fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
