// SPDX-License-Identifier: Apache-2.0
//! The container wall against the real kernel: needs root, cgroup version 1 and the two helper programs.

mod container;
mod host;
