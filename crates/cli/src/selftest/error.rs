// SPDX-License-Identifier: Apache-2.0
//! Why the list could not be tried, or what came of it.

use std::io;

/// Why a self-test did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelftestError {
    /// Walls did not answer as they must.
    #[error("{0} of the lines failed")]
    Failed(usize),
    /// The server that is tested does not run.
    #[error("the server that is tested does not run: {0}")]
    Server(String),
    /// A sandbox to try the list in could not be had.
    #[error("cannot use a sandbox for the test: {0}")]
    Sandbox(String),
    /// Something of the test itself could not be made.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Says what was tried when it failed.
pub(crate) trait Act<T> {
    /// Names the act.
    fn act(self, act: &'static str) -> Result<T, SelftestError>;
}

impl<T> Act<T> for io::Result<T> {
    fn act(self, act: &'static str) -> Result<T, SelftestError> {
        self.map_err(|source| SelftestError::Io { act, source })
    }
}
