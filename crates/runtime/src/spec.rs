// SPDX-License-Identifier: Apache-2.0
//! What a sandbox shall be.

use std::fmt;
use std::path::PathBuf;

use protocol::agent::Language;
use protocol::limits::{DIRECTORY_PATH_BYTES_MAX, ENV_BYTES_MAX, SPEC_ENVS_BYTES_MAX};
use protocol::network::{Network, PublishedPort};
use protocol::user::User;

use crate::backend::StartError;

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
    /// The most that it may write, in MiB; where the host cannot limit that, it is none.
    pub disk_mib: u32,
    /// The directories of the host that it shall have.
    pub volumes: Vec<HostVolume>,
    /// Most processes and threads.
    pub pids_max: u32,
    /// Most file descriptors of one process.
    pub open_files_max: u32,
    /// Share of a busy disk, against 100 of others.
    pub io_weight: u32,
    /// Size of `/dev/shm` in MiB.
    pub shm_mib: u32,
    /// Environment of kernels and commands, over the default one; a later entry wins.
    pub envs: Vec<(String, String)>,
    /// The directory in which kernels and commands start, made if the image has none; the home directory if none is
    /// named.
    pub workdir: Option<String>,
    /// Who kernels and commands are, as an image says it (`user`, `user:group`, names or numbers); root if nobody is
    /// named or the text is empty, as it is in most images.
    pub user: Option<String>,
    /// The language whose kernel is started ahead.
    pub prestart: Option<Language>,
    /// Whom its programs may reach.
    pub network: Network,
    /// The host's ports that lead into it.
    pub ports: Vec<PublishedPort>,
}

impl SandboxSpec {
    /// Checks what strangers wrote (an image's configuration, a client) before anything is made for it.
    ///
    /// # Errors
    /// [`StartError::Unfit`], which names what no sandbox can be.
    pub fn check(&self) -> Result<(), StartError> {
        if let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) {
            User::parse(user).map_err(|error| StartError::Unfit(error.to_string()))?;
        }
        let workdir = self.workdir.as_deref().unwrap_or_default();
        if workdir.len() > DIRECTORY_PATH_BYTES_MAX || workdir.contains('\0') {
            return Err(StartError::Unfit(format!(
                "the working directory has a zero byte or more than {DIRECTORY_PATH_BYTES_MAX} bytes"
            )));
        }
        self.check_envs()
    }

    fn check_envs(&self) -> Result<(), StartError> {
        let mut total = 0;
        for (name, value) in &self.envs {
            let bytes = name.len() + 1 + value.len();
            let shown: String = name.escape_debug().take(64).collect();
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let why = "has no name, a name with '=', or a zero byte";
                return Err(StartError::Unfit(format!("the environment variable '{shown}' {why}")));
            }
            if bytes > ENV_BYTES_MAX {
                let why = format!("has {bytes} bytes: at most {ENV_BYTES_MAX} are possible");
                return Err(StartError::Unfit(format!("the environment variable '{shown}' {why}")));
            }
            total += bytes;
        }
        if total > SPEC_ENVS_BYTES_MAX {
            return Err(StartError::Unfit(format!(
                "the environment has {total} bytes: at most {SPEC_ENVS_BYTES_MAX} are possible"
            )));
        }
        Ok(())
    }
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

/// A directory of the host, beneath one that the operator allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostVolume {
    /// The allowed directory, without links.
    pub root: PathBuf,
    /// Where it is beneath that one, as a relative path.
    pub beneath: PathBuf,
    /// Where it is, as an absolute path inside.
    pub at: String,
    /// Whether the sandbox can write to it.
    pub writable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SandboxSpec)) -> Option<String> {
        let mut spec = SandboxSpec {
            id: SandboxId::parse("0123456789abcdef").unwrap(),
            hostname: "box".into(),
            rootfs: Rootfs { mounts: vec![] },
            memory_mib: 512,
            cpu_millis: 1000,
            disk_mib: 64,
            volumes: vec![],
            pids_max: 64,
            open_files_max: 1024,
            io_weight: 100,
            shm_mib: 64,
            envs: vec![],
            workdir: None,
            user: None,
            prestart: None,
            network: Network::None,
            ports: vec![],
        };
        change(&mut spec);
        spec.check().err().map(|error| error.to_string())
    }

    #[test]
    fn what_images_say_in_good_faith_passes() {
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|spec| spec.user = Some(String::new())), None);
        assert_eq!(refused(|spec| spec.user = Some("app:staff".into())), None);
        assert_eq!(refused(|spec| spec.workdir = Some("/srv/app".into())), None);
        assert_eq!(refused(|spec| spec.envs = vec![("LD_PRELOAD".into(), "/x.so".into())]), None);
    }

    #[test]
    fn hostile_values_are_refused_before_anything_is_made() {
        let check = |change: &dyn Fn(&mut SandboxSpec), needle: &str| {
            let error = refused(change).expect(needle);
            assert!(error.contains(needle) && error.len() < 500, "{error}");
        };
        for user in ["../../x", "a:", "-1", "65536", "a\0", "0:-1"] {
            check(&|spec| spec.user = Some(user.into()), "is no user");
        }
        check(&|spec| spec.user = Some("a".repeat(1 << 20)), "1048576 bytes");
        check(&|spec| spec.workdir = Some("/a\0".into()), "working directory");
        check(&|spec| spec.workdir = Some("/a".repeat(1 << 20)), "working directory");
        for (name, value) in [("", "x"), ("A=", "x"), ("A\0", "x"), ("A", "x\0")] {
            check(&|spec| spec.envs = vec![(name.into(), value.into())], "the environment variable");
        }
        check(&|spec| spec.envs = vec![("A".into(), "x".repeat(1 << 20))], "at most 131070");
        check(
            &|spec| spec.envs = (0..17).map(|n| (format!("A{n}"), "x".repeat(64 << 10))).collect(),
            "the environment has",
        );
    }

    #[test]
    fn the_largest_environment_fits_into_a_plan_however_json_writes_it() {
        let bytes = 7 * SPEC_ENVS_BYTES_MAX + 64 * 1024;
        assert!(bytes < jail::plan::PLAN_BYTES_MAX, "{bytes}");
    }
}
