// SPDX-License-Identifier: Apache-2.0
//! A step that failed: act, object and cause.

use std::io;

/// Why the plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// The plan on standard input is none.
    #[error("cannot read the plan: {0}")]
    Plan(String),
    /// The outer process failed, and has said why.
    #[error("the outer process gave up")]
    Abandoned,
    /// The kernel refused a step.
    #[error("cannot {act}: {cause}")]
    Step {
        /// What was tried, with its object.
        act: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Names the step in which an error happened.
pub(crate) trait Act<T> {
    /// Says what was tried.
    fn act(self, act: impl FnOnce() -> String) -> Result<T, JailError>;
}

impl<T, E: Into<io::Error>> Act<T> for Result<T, E> {
    fn act(self, act: impl FnOnce() -> String) -> Result<T, JailError> {
        self.map_err(|cause| JailError::Step { act: act(), cause: cause.into() })
    }
}
