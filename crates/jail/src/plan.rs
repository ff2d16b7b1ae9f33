// SPDX-License-Identifier: Apache-2.0
//! What the walls of one sandbox shall be, as plain data: made by the container backend, carried out by `msb-jail`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Largest plan that the jail reads, in bytes.
pub const PLAN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The walls of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The program to become, opened on the host and executed by descriptor.
    pub agent: PathBuf,
    /// The document that the agent reads when it starts.
    pub agent_config: String,
    /// Where the agent's listening socket is bound on the host, outside the sandbox's reach.
    pub socket: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// The host's ids that stand for 0, 1, 2, ... inside.
    pub ids: IdBlock,
    /// `tasks` files of the cgroups to enter.
    pub cgroup_tasks: Vec<PathBuf>,
    /// The `tasks` file of the cgroup that limits the processor time of programs, and not of the agent: one that is as
    /// throttled as a fork bomb could not end it.
    pub program_tasks: PathBuf,
    /// Where the directories that take the writes come from, where not everybody sees them.
    pub writable: Option<WritableLayers>,
    /// The overlay mounts, `/` first.
    pub overlays: Vec<Overlay>,
    /// Directories of the host that the sandbox shall have.
    pub volumes: Vec<Volume>,
    /// A directory of the host on which lower layers are mounted, in the jail's own mount namespace, while it works.
    pub scratch: PathBuf,
    /// Device nodes in `/dev`.
    pub devices: Vec<Device>,
    /// Symbolic links in `/dev`: name and target.
    pub device_links: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Paths below `/` that are hidden: a file behind `/dev/null`, a directory behind an empty one.
    pub masked: Vec<String>,
    /// Paths below `/` that can be read but not written.
    pub read_only: Vec<String>,
    /// Numbers of the capabilities that stay (`capabilities(7)`).
    pub capabilities: Vec<u32>,
    /// Most open files of one process.
    pub open_files_max: u64,
    /// Whether landlock shuts everything outside of the new root; a host that cannot do it has said so before.
    pub landlock: bool,
    /// The seccomp filter: code, jump if true, jump if false, operand.
    pub seccomp: Vec<(u16, u8, u8, u32)>,
}

/// A run of user and group ids of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdBlock {
    /// The first one; it is root inside.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// A directory of another mount namespace, to be mounted in the jail's own while it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WritableLayers {
    /// The mount namespace, as a file.
    pub namespace: PathBuf,
    /// The directory, as it is called there.
    pub from: PathBuf,
    /// The empty directory on which it is mounted; the layers' paths go through it.
    pub at: PathBuf,
}

/// A directory of the host in a sandbox. Its owner on the host is root inside, and nobody else there has a right of his
/// own to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The directory of the host that the operator allowed.
    pub root: PathBuf,
    /// The directory beneath it, as a relative path; nothing that is looked up there leads out of `root`.
    pub beneath: PathBuf,
    /// Where it is, as an absolute path inside.
    pub at: String,
    /// Whether the sandbox can write to it.
    pub writable: bool,
}

/// One overlay mount: lower directories that are only read, and one that takes the writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Where it is, as an absolute path inside.
    pub at: String,
    /// Host directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The host directory that takes the writes.
    pub upper: PathBuf,
    /// A host directory beside `upper` that the kernel works in.
    pub work: PathBuf,
}

/// One character device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}
