// SPDX-License-Identifier: Apache-2.0
//! The agent: PID 1 inside every sandbox. It runs commands, holds kernels and reaps.
//!
//! One operating system thread, one task for each connection, one for each kernel and one for the reaper:
//!
//! ```text
//! listener (fd 3) ─▶ server ─▶ connection ─┬▶ command ──▶ process ─▶ supervisor ─▶ the program
//!                                          └▶ kernels ──▶ process ─▶ supervisor ─▶ the interpreter
//!                                                            ▲
//!                                             reaper ────────┘ (the only one that waits for children)
//! ```
//!
//! Everything that a program inside could reach is its own: the agent's memory and descriptors are closed to it (it may
//! have the same user id, but the agent is not dumpable), its socket is outside the sandbox, and what programs write is
//! bytes, never trusted. Programs are who the image says ([`account`]); the agent and its supervisors stay root.

mod log;
mod startup;

mod connection;
mod outbox;
mod server;

mod account;
mod command;
mod environment;
mod kernels;
mod workdir;

mod loader;
mod process;
mod reaper;
mod relay;
mod tree;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime;
use tokio::sync::Semaphore;

use crate::environment::Environment;
use crate::kernels::Kernels;
use crate::reaper::Reaper;
use crate::startup::{Startup, StartupError};

/// What all calls share.
pub(crate) struct Agent {
    /// The secret that a connection must present.
    secret: String,
    /// Where and with which variables programs start.
    environment: Environment,
    /// Knows which supervisors live.
    reaper: Arc<Reaper>,
    /// Places for the pipes of processes that outlive their command.
    left_behind: Arc<Semaphore>,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        // The server asks before it uses us.
        let said = writeln!(std::io::stdout(), "msb-agent {}", env!("CARGO_PKG_VERSION"));
        return if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match startup::prepare().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error("cannot run", &error);
            ExitCode::FAILURE
        }
    }
}

fn run(startup: Startup) -> Result<(), StartupError> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(StartupError::Runtime)?;
    runtime.block_on(async {
        let listener = server::listen(startup.listener).map_err(StartupError::Listener)?;
        let environment = match startup.environment {
            Ok(environment) => environment,
            Err(unfit) => {
                server::decline(&listener, &startup.config.secret, &unfit).await;
                return Err(StartupError::Unfit(unfit));
            }
        };
        let reaper = Reaper::start().map_err(StartupError::Runtime)?;
        let agent = Arc::new(Agent {
            secret: startup.config.secret,
            environment,
            reaper,
            left_behind: Arc::new(Semaphore::new(protocol::limits::LEFT_BEHIND_PIPES_MAX)),
        });
        let kernels = Kernels::start(&agent, startup.config.prestart);
        server::serve(listener, agent, kernels).await
    })
}
