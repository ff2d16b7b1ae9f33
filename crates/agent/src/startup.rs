// SPDX-License-Identifier: Apache-2.0
//! The first steps, before anything else runs: close our memory to others, then take what we were handed over.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use protocol::config::{AgentConfig, CONFIG_FD, LISTENER_FD, PROGRAM_GROUP_FD};
use protocol::limits::AGENT_CONFIG_BYTES_MAX;

use crate::environment::{Environment, UnfitError};

/// What the agent starts with.
pub(crate) struct Startup {
    pub(crate) config: AgentConfig,
    /// Or what the image has or lacks, for which there is none.
    pub(crate) environment: Result<Environment, UnfitError>,
    pub(crate) listener: OwnedFd,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error("the agent must be PID 1 of its own pid namespace")]
    NotInit,
    #[error("cannot close its memory to others")]
    Harden(#[source] io::Error),
    #[error("cannot read the configuration on descriptor {CONFIG_FD}")]
    Config(#[source] io::Error),
    #[error("cannot use the listener on descriptor {LISTENER_FD}")]
    Listener(#[source] io::Error),
    #[error("cannot make the event loop")]
    Runtime(#[source] io::Error),
    #[error("the sandbox cannot be what it shall be")]
    Unfit(#[source] UnfitError),
}

/// Hardens this process and takes the two descriptors it was handed.
///
/// SIGTERM and SIGINT need no handler: to PID 1 the kernel delivers no signal that it does not handle, but SIGKILL and
/// SIGSTOP from outside.
pub(crate) fn prepare() -> Result<Startup, StartupError> {
    // First of all: code inside has our user id, and must not read /proc/1/{mem,environ,fd} or trace us.
    nix::sys::prctl::set_dumpable(false).map_err(|errno| StartupError::Harden(errno.into()))?;
    if std::process::id() != 1 {
        return Err(StartupError::NotInit);
    }
    let config = read_config().map_err(StartupError::Config)?;
    if config.program_group {
        let entry = sys::descriptors::take_inherited(PROGRAM_GROUP_FD).map_err(StartupError::Config)?;
        sys::spawn::enter_before_programs(entry);
    }
    sys::spawn::be_nice_to_agent(config.program_nice);
    let listener = sys::descriptors::take_inherited(LISTENER_FD).map_err(StartupError::Listener)?;
    sys::descriptors::cloexec_from(3).map_err(StartupError::Harden)?;
    let environment = Environment::new(&config);
    Ok(Startup { config, environment, listener })
}

fn read_config() -> io::Result<AgentConfig> {
    let file = File::from(sys::descriptors::take_inherited(CONFIG_FD)?);
    let bytes_max = AGENT_CONFIG_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() > AGENT_CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("more than {bytes_max} bytes")));
    }
    Ok(serde_json::from_slice(&bytes)?)
}
