// SPDX-License-Identifier: Apache-2.0
//! The states of a sandbox, as its driver publishes them.

use std::sync::Arc;

use super::live::Live;

/// Where a sandbox is in its life.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Its walls are being built.
    Starting,
    /// It can be used.
    Running(Arc<Live>),
    /// It is being taken down because somebody asked.
    Stopping,
    /// It is over.
    Ended(Ending),
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody asked for it.
    Stopped,
    /// Somebody asked for it, and something of it is still there.
    NotWholly {
        /// What, in words.
        left: String,
    },
    /// By itself.
    Died {
        /// What is known, in words.
        reason: String,
    },
    /// It never ran: the start failed.
    NotStarted(Failure),
    /// It never ran: nobody waited for the start any more.
    Abandoned,
}

/// Why a start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The host is full.
    NoCapacity(String),
    /// Its wall would be weaker than the operator demands; what is missing, and what mends it.
    TooWeak(String),
    /// Something else.
    Broken {
        /// What failed.
        what: String,
        /// More, for the log alone: it can name paths of the host.
        detail: String,
    },
}

impl Ending {
    /// Says whether the sandbox had run, so that its name stays known.
    pub(crate) fn had_run(&self) -> bool {
        match self {
            Ending::Stopped | Ending::NotWholly { .. } | Ending::Died { .. } => true,
            Ending::NotStarted(_) | Ending::Abandoned => false,
        }
    }

    /// Says how it ended, as the end of "the sandbox ...".
    pub(crate) fn describe(&self) -> String {
        match self {
            Ending::Stopped | Ending::NotWholly { .. } => "was stopped".to_owned(),
            Ending::Died { reason } => format!("died: {reason}"),
            Ending::NotStarted(Failure::NoCapacity(why) | Failure::TooWeak(why)) => {
                format!("could not be started: {why}")
            }
            Ending::NotStarted(Failure::Broken { what, .. }) => format!("could not be started: {what}"),
            Ending::Abandoned => "was not started: nobody waited for it".to_owned(),
        }
    }
}
