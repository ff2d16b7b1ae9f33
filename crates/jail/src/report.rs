// SPDX-License-Identifier: Apache-2.0
//! What the jail says on its standard output: one JSON document on each line, then the end of the stream.
//!
//! `Started` names the sandbox's first process. If no `Failed` follows before the stream ends, that process has become
//! the agent: the descriptor is closed by the exec itself.

use serde::{Deserialize, Serialize};

/// Most bytes of all reports together.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first process of the sandbox exists; it is a child of the jail's parent.
    Started {
        /// Its pid on the host.
        pid: i32,
    },
    /// A step failed, and the process that took it ends.
    Failed {
        /// Act and object, and the cause.
        step: String,
    },
}
