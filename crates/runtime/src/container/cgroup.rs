// SPDX-License-Identifier: Apache-2.0
//! Limits on memory, processor time and processes, and what of them is used: cgroups.
//!
//! [`Cgroups`] is the whole interface. Behind it are version 2 ([`super::cgroup_v2`]) and version 1
//! ([`super::cgroup_v1`]); [`open`] takes what this host really has. A limit that cannot be had is known with its reason
//! ([`Cgroups::protections`]), and sandboxes run without it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::isolation::Protection;

use super::cgroup_limit::{Gap, all_off};
use super::cgroup_place as place;
use super::cgroup_v1::V1;
use super::cgroup_v2::V2;
use crate::backend::Usage;
use crate::spec::SandboxId;

/// The controllers without which version 2 is not the first choice.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

/// The limits of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Processor time in thousandths of a core.
    pub(crate) cpu_millis: u32,
    /// Processes and threads.
    pub(crate) pids: u32,
    /// Share of a busy disk, against 100 of others.
    pub(crate) io_weight: u32,
}

/// The cgroups of one server's sandboxes.
pub(crate) trait Cgroups: Send + Sync {
    /// Makes the groups of one sandbox, with those of their limits that this host holds.
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
    /// Removes a sandbox's groups; there must be no process in them any more. No group is no error.
    fn remove(&self, id: &SandboxId) -> io::Result<()>;
    /// Lists the sandboxes that have groups, whoever made them.
    fn list(&self) -> io::Result<Vec<SandboxId>>;
    /// Kills every process in a sandbox's groups.
    fn kill(&self, id: &SandboxId) -> io::Result<()>;
    /// Removes the server's own directory, when no sandbox is left in it.
    fn remove_own(&self) -> io::Result<()>;
    /// Says of each limit whether this host holds it: each was written into a group and read back.
    fn protections(&self) -> &[Protection];
}

/// Takes the cgroups of this host: version 2 where it has the controllers, else version 1, else none.
///
/// # Errors
/// When the host does not say what it has, or a group can be made but not limited or removed.
pub(crate) fn open(server_key: &str) -> io::Result<Arc<dyn Cgroups>> {
    let mountinfo = fs_err::read_to_string("/proc/self/mountinfo")?;
    let own = fs_err::read_to_string("/proc/self/cgroup")?;
    let unified = place::unified_mount(&mountinfo);
    let offers = unified.as_ref().map(|mount| place::controllers(&mount.at)).unwrap_or_default();
    let is_complete = NEEDED.iter().all(|needed| offers.iter().any(|offered| offered == needed));
    if !is_complete && place::is_root() && V1::is_mounted(&mountinfo) {
        return Ok(Arc::new(V1::open(&mountinfo, server_key)?));
    }
    if !is_complete && V1::is_mounted(&mountinfo) {
        let gap = Gap::new(
            "this host limits by cgroups of version 1, which only root may use",
            "run the server as root, or boot with systemd.unified_cgroup_hierarchy=1",
        );
        return Ok(Arc::new(Absent { protections: all_off(&gap) }));
    }
    let Some(unified) = unified else {
        let gap = Gap::new("no cgroups are mounted on this host", "mount -t cgroup2 cgroup2 /sys/fs/cgroup");
        return Ok(Arc::new(Absent { protections: all_off(&gap) }));
    };
    match place::find(&unified, &own, place::is_root()).and_then(|place| place.prepare(server_key)) {
        Ok(prepared) => Ok(Arc::new(V2::open(prepared)?)),
        Err(gap) => Ok(Arc::new(Absent { protections: all_off(&gap) })),
    }
}

/// A host without cgroups that this server may use: nothing is limited, and nothing counted.
struct Absent {
    protections: Vec<Protection>,
}

impl Cgroups for Absent {
    fn create(&self, _: &SandboxId, _: Limits) -> io::Result<()> {
        Ok(())
    }

    fn entry_files(&self, _: &SandboxId) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Takes what is written, and does nothing.
    fn program_entry_file(&self, _: &SandboxId) -> PathBuf {
        PathBuf::from("/dev/null")
    }

    fn usage(&self, _: &SandboxId) -> io::Result<Usage> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this host counts nothing: it has no cgroups for us"))
    }

    fn oom_kills(&self, _: &SandboxId) -> io::Result<u64> {
        Ok(0)
    }

    fn remove(&self, _: &SandboxId) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<SandboxId>> {
        Ok(Vec::new())
    }

    fn kill(&self, _: &SandboxId) -> io::Result<()> {
        Ok(())
    }

    fn remove_own(&self) -> io::Result<()> {
        Ok(())
    }

    fn protections(&self) -> &[Protection] {
        &self.protections
    }
}
