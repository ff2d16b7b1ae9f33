// SPDX-License-Identifier: Apache-2.0
//! The server's home directory, and the lock that keeps a second server out of it.
//!
//! ```text
//! <home>/            0700
//!   lock             held as long as a server runs
//!   images/          read-only trees (crate image)
//! ```
//!
//! What else is in it belongs to the backend.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A home that this process holds.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another server holds it.
    #[error("another server is running with the home {0}")]
    InUse(PathBuf),
    /// It cannot be made or opened.
    #[error("cannot use {path} as home")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Home {
    /// Makes the directory, if it is not there, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Home, HomeError> {
        let failed = |source| HomeError::Io { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs_err::canonicalize(path).map_err(failed)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Home { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(HomeError::InUse(path)),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_is_private_and_held_by_one() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/home");
        let home = Home::take(&path).unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Home::take(&path), Err(HomeError::InUse(_))));
        drop(home);
        assert!(Home::take(&path).is_ok());
    }

    #[test]
    fn a_file_is_no_home() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file");
        fs_err::write(&path, "").unwrap();
        assert!(matches!(Home::take(&path), Err(HomeError::Io { .. })));
    }
}
