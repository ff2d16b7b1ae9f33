// SPDX-License-Identifier: Apache-2.0
//! The container wall against the real kernel: needs root, cgroup version 1 and the two helper programs.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why it was skipped"
)]

mod bare;
mod container;
mod disk;
mod host;
mod identity;
mod volumes;
