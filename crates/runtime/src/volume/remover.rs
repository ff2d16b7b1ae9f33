// SPDX-License-Identifier: Apache-2.0
//! With whose rights what a sandbox wrote is removed.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jail::remove::remove_tree;
use jail::report::{REPORT_BYTES_MAX, Report};
use jail::rights::Rights;

/// Removes directories of sandboxes.
///
/// Root does it itself. An ordinary user has the jail do it, who is root of the ids that sandboxes write as: some of
/// the files may be another id's, and a directory can be closed to its own owner.
#[derive(Clone, Debug)]
pub(crate) struct Remover {
    /// `msb-jail`.
    pub(crate) jail: PathBuf,
    /// The rights with which sandboxes are built.
    pub(crate) rights: Rights,
}

impl Remover {
    /// Whether this process has the rights of root.
    pub(crate) fn is_root(&self) -> bool {
        self.rights == Rights::Root
    }

    /// Removes a directory and all below it; no directory is no error.
    pub(crate) fn remove(&self, directory: &Path) -> io::Result<()> {
        if self.is_root() || !directory.exists() {
            return remove_tree(directory);
        }
        let mut jail = Command::new(&self.jail)
            .arg("--remove")
            .arg(directory)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut said = Vec::new();
        let told = match jail.stdin.take() {
            Some(mut stdin) => stdin.write_all(&serde_json::to_vec(&self.rights)?),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Some(stdout) = jail.stdout.take() {
            stdout.take(REPORT_BYTES_MAX as u64).read_to_end(&mut said)?;
        }
        if jail.wait()?.success() {
            return told;
        }
        Err(io::Error::other(match serde_json::from_slice(&said) {
            Ok(Report::Failed { step }) => step,
            Ok(Report::Started { .. }) | Err(_) => "msb-jail removed nothing and does not say why".to_owned(),
        }))
    }
}
