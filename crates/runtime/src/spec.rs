// SPDX-License-Identifier: Apache-2.0
//! What a sandbox shall be.

use std::fmt;
use std::path::PathBuf;

use protocol::agent::Language;

/// The server's own name for one sandbox, never used twice: 16 hexadecimal digits.
///
/// Directories and cgroups are called after it, so that no client chooses a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(String);

impl SandboxId {
    /// Makes a new one from the kernel's random numbers.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn random() -> Result<SandboxId, getrandom::Error> {
        Ok(SandboxId(format!("{:016x}", getrandom::u64()?)))
    }

    /// Reads one back; `None` when the text is none.
    pub fn parse(text: &str) -> Option<SandboxId> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (text.len() == 16 && text.chars().all(hex)).then(|| SandboxId(text.to_owned()))
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a sandbox shall be: everything a backend needs to know, checked before it gets here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The server's own name for it.
    pub id: SandboxId,
    /// Its host name, as seen inside.
    pub hostname: String,
    /// What it finds on its file system.
    pub rootfs: Rootfs,
    /// Memory limit in MiB.
    pub memory_mib: u32,
    /// Processor limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Most processes and threads.
    pub pids_max: u32,
    /// Environment of kernels and commands, over the default one; a later entry wins.
    pub envs: Vec<(String, String)>,
    /// The directory in which kernels and commands start; the home directory if none is named.
    pub workdir: Option<String>,
    /// The language whose kernel is started ahead.
    pub prestart: Option<Language>,
}

/// The read-only directories a sandbox's file system is made of; it writes into a layer of its own above them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The mounts, `/` first.
    pub mounts: Vec<RootfsMount>,
}

/// One overlay mount of a [`Rootfs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsMount {
    /// Where it is, as an absolute path inside.
    pub at: String,
    /// The host directories it shows, topmost first, at least one.
    pub lowers: Vec<PathBuf>,
}
