// SPDX-License-Identifier: Apache-2.0
//! The only crate with `unsafe`: one safe function for each kernel call that rustix and nix do not wrap. No policy.

pub mod attempt;
pub mod btrfs;
pub mod descriptors;
pub mod loopback;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod seccomp;
pub mod spawn;
