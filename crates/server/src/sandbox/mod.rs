// SPDX-License-Identifier: Apache-2.0
//! The life of sandboxes.
//!
//! ```text
//!            start                    up                    stop
//! (unknown) ───────▶ Starting ─────────────▶ Running ──────────────▶ Stopping
//!     ▲                 │  │                    │                       │
//!     │ failed, or      │  │ stop               │ died                  │ everything is gone
//!     │ nobody waits    │  ▼                    ▼                       ▼
//!     └─────────────────┘  Ended ◀──────────────┴───────────────────────┘
//!                            │
//!                            └── start ──▶ Starting   (another sandbox of the same name)
//! ```
//!
//! One task for each sandbox, its [`driver`], is the only writer of its state, and publishes it. The [`registry`] knows
//! the driver of each name and decides by a pure table ([`admission`]) what a wish comes to in a state. Calls into a
//! running sandbox ([`live`]) do not pass through the driver.

#![warn(clippy::wildcard_enum_match_arm)]

mod admission;
mod book;
mod driver;
mod live;
mod registry;
mod running;
mod state;

pub(crate) use live::{Broken, Live};
pub(crate) use registry::{Leased, Listed, Registry, StartRefused, Started, StopRefused, Unusable, Wanted};
pub(crate) use running::Running;
pub(crate) use state::{Ending, Failure};
