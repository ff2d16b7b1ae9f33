// SPDX-License-Identifier: Apache-2.0
//! A plain rootfs directory as an image, below a directory that the operator allows.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Rootfs, RootfsMount};

/// Why a directory cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not below an allowed one, or it does not exist: a client is not told which.
    #[error("no such rootfs directory below one that the operator allows")]
    NotAllowed,
    /// It is something else than a directory.
    #[error("the image is a path, but not of a directory")]
    NotADirectory,
}

/// Resolves an allowed root once, when the server starts.
///
/// # Errors
/// When it does not exist or is no directory.
pub fn allow(path: &Path) -> io::Result<PathBuf> {
    let real = fs_err::canonicalize(path)?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no directory", real.display())))
    }
}

/// Returns the rootfs of a directory; links in its path are followed first, and where they lead is what counts.
///
/// # Errors
/// [`DirectoryError`] when that is not an allowed directory or below one.
pub fn rootfs(path: &Path, allowed: &[PathBuf]) -> Result<Rootfs, DirectoryError> {
    let real = fs_err::canonicalize(path).map_err(|_| DirectoryError::NotAllowed)?;
    if !allowed.iter().any(|root| real.starts_with(root)) {
        return Err(DirectoryError::NotAllowed);
    }
    if !real.is_dir() {
        return Err(DirectoryError::NotADirectory);
    }
    Ok(Rootfs { mounts: vec![RootfsMount { at: "/".to_owned(), lowers: vec![real] }] })
}
