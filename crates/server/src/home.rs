// SPDX-License-Identifier: Apache-2.0
//! The server's home directory, and the lock that keeps a second server out of it.
//!
//! ```text
//! <home>/            0700
//!   lock             held as long as a server runs
//!   server.key       what keys are signed with (keys)
//!   state.db         what outlives the server (store)
//!   images/          read-only trees (crate image)
//! ```
//!
//! What else is in it belongs to the backend. Other processes, such as `msb server keygen`, use the key and the store
//! while a server runs: [`private_home`] and [`make_once`] are for all of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

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
    /// Others could read or change what is secret in it.
    #[error("the home {0} is open to other users (its mode is {1:o}): keys are kept only in a private one")]
    NotPrivate(PathBuf, u32),
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
        let path = make(path)?;
        let failed = |source| HomeError::Io { path: path.clone(), source };
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

/// Says whether a server runs with a home; changes nothing.
///
/// # Errors
/// When the home cannot be looked at.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let lock = match File::open(path.join("lock")) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        lock => lock?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Makes the directory, if it is not there, and makes sure that nobody else gets into it; returns its real path.
pub(crate) fn private_home(path: &Path) -> Result<PathBuf, HomeError> {
    let path = make(path)?;
    let metadata = fs_err::metadata(&path);
    let mode = metadata.map_err(|source| HomeError::Io { path: path.clone(), source })?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HomeError::NotPrivate(path, mode));
    }
    Ok(path)
}

fn make(path: &Path) -> Result<PathBuf, HomeError> {
    let failed = |source| HomeError::Io { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    fs_err::canonicalize(path).map_err(failed)
}

/// Makes a private file in one step, unless it is there: whoever opens it finds it whole, and of several processes that
/// make it at the same time one wins and all see what that one wrote. `fill` gets the path of an empty file.
pub(crate) fn make_once<E: From<io::Error>>(
    home: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let path = home.join(name);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let temporary = home.join(format!(".{name}.{:016x}", getrandom::u64().map_err(io::Error::from)?));
    let mut options = fs_err::OpenOptions::new();
    fs_err::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let file = options.open(&temporary)?;
    let done = fill(&temporary).and_then(|()| Ok(file.sync_all()?)).and_then(|()| {
        match renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(fs_err::File::open(home)?.sync_all()?),
            Err(rustix::io::Errno::EXIST) => Ok(fs_err::remove_file(&temporary)?),
            Err(error) => Err(io::Error::from(error).into()),
        }
    });
    if done.is_err() {
        // The first failure is the one to tell.
        let _ = fs_err::remove_file(&temporary);
    }
    done
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
        assert!(is_held(&path).unwrap());
        drop(home);
        assert!(!is_held(&path).unwrap() && !is_held(&base.path().join("none")).unwrap());
        assert!(Home::take(&path).is_ok());
    }

    #[test]
    fn a_file_is_no_home() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file");
        fs_err::write(&path, "").unwrap();
        assert!(matches!(Home::take(&path), Err(HomeError::Io { .. })));
    }

    #[test]
    fn a_home_that_others_can_enter_holds_no_secret() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("home");
        assert!(private_home(&path).is_ok());
        for mode in [0o755, 0o710, 0o701] {
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(private_home(&path), Err(HomeError::NotPrivate(_, found)) if found == mode));
        }
    }

    #[test]
    fn a_file_is_made_once_and_whole_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let write = |text: &'static str| move |path: &Path| fs_err::write(path, text);
        make_once(base.path(), "file", write("first")).unwrap();
        make_once(base.path(), "file", write("second")).unwrap();
        assert_eq!(fs_err::read_to_string(base.path().join("file")).unwrap(), "first");
        let failed = make_once(base.path(), "other", |_| Err(io::Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        let names: Vec<_> = base.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
    }
}
