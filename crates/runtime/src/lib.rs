// SPDX-License-Identifier: Apache-2.0
//! A [`SandboxSpec`] in, a running supervised sandbox out.
//!
//! [`Backend`] builds one kind of wall; [`container`] is the one that works everywhere, [`fake`] is for tests without
//! root. A [`Sandbox`] is what a backend hands out: its agent can be reached, its use of the machine read, and it can be
//! stopped. Nothing here knows about OCI, JSON-RPC or who asked.

pub mod agent;
pub mod backend;
pub mod container;
mod demand;
pub mod fake;
pub mod network;
pub mod spec;
pub mod volume;

pub use backend::{Backend, BoxFuture, Ended, Sandbox, StartError, StopError, Usage};
pub use demand::Demanding;
pub use spec::{HostVolume, Rootfs, RootfsMount, SandboxId, SandboxSpec};
