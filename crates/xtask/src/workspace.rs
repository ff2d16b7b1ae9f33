// SPDX-License-Identifier: Apache-2.0
//! Where things are: the repository, the target folder, the Python environment, the tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::Value;

use crate::process;

/// The Python of the system, which a sandbox of the image `host` shows as well.
pub(crate) const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// This repository on this machine.
pub(crate) struct Workspace {
    /// The folder of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// The target folder that cargo uses, wherever the environment puts it.
    pub(crate) target: PathBuf,
    /// What `cargo metadata --no-deps` says.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Workspace> {
        let mut command = Command::new(cargo_program());
        command
            .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"));
        let text = process::capture(&mut command)?;
        let metadata: Value =
            serde_json::from_str(&text).context("cannot read the answer of cargo metadata")?;
        let folder = |key: &str| -> Result<PathBuf> {
            let text = metadata[key].as_str().with_context(|| format!("cargo metadata names no {key}"))?;
            Ok(PathBuf::from(text))
        };
        Ok(Workspace { root: folder("workspace_root")?, target: folder("target_directory")?, metadata })
    }

    /// Prepares a cargo call in this workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo_program());
        command.arg(subcommand).current_dir(&self.root);
        command
    }

    /// Prepares a call of a program of the Python environment.
    pub(crate) fn python_program(&self, name: &str) -> Command {
        let mut command = Command::new(self.venv().join("bin").join(name));
        command.current_dir(&self.root);
        command
    }

    /// The Python environment with the SDK and the tools of the tests.
    pub(crate) fn venv(&self) -> PathBuf {
        self.target.join("venv")
    }
}

/// The cargo that runs us, so that no other toolchain gets into the same target folder.
fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Says whether this process has the rights of root.
pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    effective_uid(&status).map(|uid| uid == 0)
}

/// Fails with the cure when this process is not root.
pub(crate) fn require_root(command: &str) -> Result<()> {
    if is_root()? {
        return Ok(());
    }
    bail!(
        "this needs root: in this version only root can build the walls of a sandbox.\n\
         Try: sudo env PATH=\"$PATH\" HOME=\"$HOME\" cargo xtask {command}"
    )
}

fn effective_uid(status: &str) -> Result<u32> {
    let line =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).context("no Uid in /proc/self/status")?;
    let field = line.split_whitespace().nth(1).context("no effective uid in /proc/self/status")?;
    field.parse().context("cannot read the effective uid of /proc/self/status")
}

#[cfg(test)]
mod tests {
    use super::effective_uid;

    #[test]
    fn the_effective_uid_is_the_second_one() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t5\t6\nGid:\t1\t1\t1\t1\n").unwrap(), 0);
        assert!(effective_uid("Name:\tx\n").is_err());
    }
}
