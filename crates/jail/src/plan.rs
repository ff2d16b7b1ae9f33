// SPDX-License-Identifier: Apache-2.0
//! What the walls of one sandbox shall be, as plain data: made by the container backend, carried out by `msb-jail`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::rights::Rights;

/// Largest plan that the jail reads, in bytes.
pub const PLAN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The walls of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// With whose rights the walls are built. What follows is as root of them sees it.
    pub rights: Rights,
    /// The program to become, opened on the host and executed by descriptor.
    pub agent: PathBuf,
    /// The document that the agent reads when it starts.
    pub agent_config: String,
    /// Where the agent's listening socket is bound on the host, outside the sandbox's reach.
    pub socket: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// The ids that stand for 0, 1, 2, ... inside.
    pub ids: IdBlock,
    /// The ids that come after them inside. The kernel takes no map in one piece of what is mapped in two outside.
    pub more_ids: Option<IdBlock>,
    /// Where it is written down which process is the sandbox's first.
    pub process: PathBuf,
    /// Most processes and threads, where no cgroup limits them; counted in the user namespace.
    pub processes_max: Option<u64>,
    /// The agent's nice value (`sched(7)`).
    pub agent_nice: i32,
    /// `tasks` files of the cgroups to enter.
    pub cgroup_tasks: Vec<PathBuf>,
    /// The `tasks` file of the cgroup that limits the processor time of programs, and not of the agent: one that is as
    /// throttled as a fork bomb could not end it.
    pub program_tasks: PathBuf,
    /// Where the directories that take the writes come from, where not everybody sees them.
    pub writable: Option<WritableLayers>,
    /// How the files of lower layers and volumes get their owners inside.
    pub owners: Owners,
    /// The overlay mounts, `/` first.
    pub overlays: Vec<Overlay>,
    /// What overlay mounts are told beside their layers (`Documentation/filesystems/overlayfs.rst`).
    pub overlay_options: Vec<String>,
    /// Directories of the host that the sandbox shall have.
    pub volumes: Vec<Volume>,
    /// A directory of the host on which lower layers are mounted, in the jail's own mount namespace, while it works.
    pub scratch: PathBuf,
    /// The devices in `/dev`.
    pub devices: Vec<Device>,
    /// How they get there.
    pub device_source: DeviceSource,
    /// The group of terminals inside; that of who opens one, if there is none.
    pub terminal_group: Option<u32>,
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

/// How files of the host get their owners inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owners {
    /// By mounts that map ids: root's files are root's inside.
    Mapped,
    /// They stay whose they are: those of who builds the walls are root's inside, all others nobody's.
    Plain,
}

/// How devices get into a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSource {
    /// As nodes of its own, which only real root can make.
    Nodes,
    /// As mounts of the host's nodes.
    Mounts,
}

/// A run of user and group ids.
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
