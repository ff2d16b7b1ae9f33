// SPDX-License-Identifier: Apache-2.0
//! The directory in which an image is made. It goes with its value; what a killed build left goes with the next build.
//!
//! Its maker holds a lock on it. A staging directory that nobody holds belongs to a build that was killed, whose processes
//! died with it.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};

use crate::base::BaseError;

const PREFIX: &str = ".msb-base-";

/// A directory of one build.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    // Held open: the lock goes with it.
    _lock: File,
}

impl Staging {
    /// Makes one below `into`, and removes those there that nobody holds.
    pub(crate) fn make(into: &Path) -> Result<Staging, BaseError> {
        let into = fs::canonicalize(into).map_err(BaseError::io("find the directory to build in"))?;
        sweep(&into)?;
        loop {
            let path = into.join(format!("{PREFIX}{:016x}", rand()?));
            // Others pass through it, for apt fetches as a user of its own, but they cannot see what is there.
            let made = DirBuilder::new().mode(0o711).create(&path);
            made.map_err(BaseError::io("make a directory to build in"))?;
            let Some(lock) = hold(&path) else { continue };
            return Ok(Staging { path, _lock: lock });
        }
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        let _ = remove(&self.path);
    }
}

/// Returns the lock, unless somebody else has it or the directory is gone.
fn hold(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    // A sweep may have come between making it and holding it.
    let (held, there) = (directory.metadata().ok()?, std::fs::symlink_metadata(path).ok()?);
    (held.ino() == there.ino() && held.dev() == there.dev()).then_some(directory)
}

fn sweep(into: &Path) -> Result<(), BaseError> {
    let entries = fs::read_dir(into).map_err(BaseError::io("look into the directory to build in"))?;
    let own = rustix::process::geteuid().as_raw();
    for entry in entries {
        let entry = entry.map_err(BaseError::io("look into the directory to build in"))?;
        let is_staging = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_own = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        if is_staging
            && is_own
            && let Some(_lock) = hold(&entry.path())
        {
            remove(&entry.path()).map_err(BaseError::io("remove what a killed build left"))?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "made by packages, never by a sandbox, and it follows no links"
)]
fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(path)
}

fn rand() -> Result<u64, BaseError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| BaseError::io("get random bytes")(error.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_value() {
        let into = tempfile::tempdir().unwrap();
        let staging = Staging::make(into.path()).unwrap();
        fs::write(staging.path().join("file"), "x").unwrap();
        let path = staging.path().to_owned();
        drop(staging);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_runs_is_kept() {
        let into = tempfile::tempdir().unwrap();
        let left = into.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("deep")).unwrap();
        fs::create_dir_all(into.path().join("other")).unwrap();
        let running = Staging::make(into.path()).unwrap();
        assert!(!left.exists());
        let second = Staging::make(into.path()).unwrap();
        assert!(running.path().exists() && second.path().exists() && into.path().join("other").exists());
    }
}
