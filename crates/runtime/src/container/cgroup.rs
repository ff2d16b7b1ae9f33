// SPDX-License-Identifier: Apache-2.0
//! Limits on memory, processor time and processes, and what of them is used: cgroups.
//!
//! [`Cgroups`] is the whole interface; version 1 is behind it ([`super::cgroup_v1`]), version 2 gets its place beside it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::isolation::Protection;

use super::cgroup_v1::V1;
use crate::backend::Usage;
use crate::spec::SandboxId;

/// The limits of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Processor time in thousandths of a core.
    pub(crate) cpu_millis: u32,
    /// Processes and threads.
    pub(crate) pids: u32,
}

/// The cgroups of one server's sandboxes.
pub(crate) trait Cgroups: Send + Sync {
    /// Makes the groups of one sandbox, with their limits.
    fn create(&self, id: &SandboxId, limits: Limits) -> io::Result<()>;
    /// The files into which the first process of a sandbox writes `0` to enter its groups.
    fn entry_files(&self, id: &SandboxId) -> Vec<PathBuf>;
    /// The file into which programs write `0` before they begin: the group of the processor limit, which the first
    /// process itself stays out of.
    fn program_entry_file(&self, id: &SandboxId) -> PathBuf;
    /// Reads what a sandbox uses.
    fn usage(&self, id: &SandboxId) -> io::Result<Usage>;
    /// Counts the processes of a sandbox that the kernel killed for its memory limit.
    fn oom_kills(&self, id: &SandboxId) -> io::Result<u64>;
    /// Says which limits of a sandbox are in force, as the kernel has them now.
    fn protections(&self, id: &SandboxId) -> Vec<Protection>;
    /// Removes a sandbox's groups; there must be no process in them any more. No group is no error.
    fn remove(&self, id: &SandboxId) -> io::Result<()>;
    /// Lists the sandboxes that have groups, whoever made them.
    fn list(&self) -> io::Result<Vec<SandboxId>>;
    /// Kills every process in a sandbox's groups.
    fn kill(&self, id: &SandboxId) -> io::Result<()>;
    /// Removes the server's own directory, when no sandbox is left in it.
    fn remove_own(&self) -> io::Result<()>;
}

/// Finds the cgroups of this host.
///
/// # Errors
/// When a needed controller is not mounted as cgroup version 1.
pub(crate) fn open(server_key: &str) -> io::Result<Arc<dyn Cgroups>> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    Ok(Arc::new(V1::open(&mounts, server_key)?))
}
