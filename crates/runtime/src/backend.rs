// SPDX-License-Identifier: Apache-2.0
//! The trait that every kind of wall implements.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use protocol::isolation::{Isolation, Protection};

use crate::agent::{ConnectError, Connection};
use crate::network::NetworkUse;
use crate::spec::SandboxSpec;

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Builds one kind of wall.
pub trait Backend: Send + Sync {
    /// Starts a sandbox and waits until its agent answers.
    ///
    /// Dropping the future ends the attempt; what it made is removed in the background and by [`Backend::drain`].
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, StartError>>;

    /// Says whether policies about the network are enforced, and if not, why; a spec with one is refused then.
    fn network(&self) -> Protection;

    /// Returns the most that a sandbox can be allowed to write, in MiB; `None` where that cannot be limited.
    fn disk_mib_max(&self) -> Option<u32>;

    /// Builds a sandbox with nothing in it, and says what protects it: what this host can do.
    fn try_walls(&self) -> BoxFuture<'_, Isolation>;

    /// Waits until nothing is left of sandboxes that ended and attempts that were dropped.
    fn drain(&self) -> BoxFuture<'_, ()>;
}

/// A sandbox that was started.
pub trait Sandbox: Send + Sync {
    /// Opens a connection to its agent, ready for a request.
    fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>>;

    /// Waits until it has ended, by whatever cause; at once if it already has.
    fn ended(&self) -> BoxFuture<'_, Ended>;

    /// Kills everything in it and removes everything of it; does nothing more when called again.
    fn stop(&self) -> BoxFuture<'_, Result<(), StopError>>;

    /// Reads what it uses of the machine right now.
    fn usage(&self) -> io::Result<Usage>;

    /// Counts the processes that the kernel killed because its memory limit was reached, since it began. One short read:
    /// it is done before every call.
    fn oom_kills(&self) -> io::Result<u64>;

    /// Reads how it uses the network. One short question to the kernel.
    fn network(&self) -> io::Result<NetworkUse> {
        Ok(NetworkUse::default())
    }

    /// Says what protects it, as it is now. Reads some small files.
    fn isolation(&self) -> Isolation;

    /// Counts the bytes of its writable layer; slow on a full one, so not for a hot path.
    fn disk_bytes(&self) -> BoxFuture<'_, io::Result<u64>>;
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked for it.
    Stopped,
    /// Its agent ended without being asked.
    Died {
        /// What is known, in words.
        reason: String,
    },
}

/// What a sandbox uses of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it began, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes, without file cache that can be dropped.
    pub memory_bytes: u64,
}

/// Why a sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host is full: no free id block, or a limit of the kernel.
    #[error("no capacity for another sandbox: {0}")]
    NoCapacity(String),
    /// A step of building the walls failed.
    #[error("cannot build the sandbox: {step}")]
    Walls {
        /// Act and object of the step that failed.
        step: String,
        /// The cause, where there is one in this process.
        #[source]
        source: Option<io::Error>,
    },
    /// What is asked for does not go with the image, or cannot be asked for at all; in words that name it.
    #[error("{0}")]
    Unfit(String),
    /// The walls stand, but protect less than the operator demands; each protection that is missing, and what mends it.
    #[error("{0}")]
    TooWeak(String),
    /// The walls stand, but the agent does not answer.
    #[error("the agent does not answer")]
    Agent(#[source] ConnectError),
}

/// Why a sandbox could not be stopped wholly.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove the sandbox wholly: {left}")]
pub struct StopError {
    /// What is still there, in words.
    pub left: String,
}
