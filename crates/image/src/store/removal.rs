// SPDX-License-Identifier: Apache-2.0
//! Removes trees that strangers made the names of.
//!
//! A layer is as deep as its image wants. So directories are lifted to the top before they are emptied: the depth stays
//! two, whatever the tree's, and no link is followed.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use protocol::limits::IMAGE_WORK_WAIT;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::folder::Folder;
use super::lock::{self, Hold};
use super::{Store, StoreError};

impl Store {
    /// Moves a directory of `folder` out of the way, to be removed later; says whether it was there.
    pub(super) fn discard(&self, folder: &Folder, name: &str) -> Result<bool, StoreError> {
        let removing = &self.inner.removing;
        for number in 0..u32::MAX {
            let place = format!("{}-{number}", std::process::id());
            match rustix::fs::renameat_with(&folder.fd, name, &removing.fd, &place, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(folder.error("remove", name, error)),
            }
        }
        Err(StoreError::Busy(removing.path.display().to_string()))
    }

    /// Removes what was discarded, by this process or one that died; returns the bytes that are free now.
    pub(super) fn clear_removing(&self) -> Result<u64, StoreError> {
        let removing = self.inner.removing.again()?;
        lock::wait(&removing.fd, Hold::Alone, IMAGE_WORK_WAIT, &removing, "")?;
        trees(&removing)
    }

    /// Removes what was discarded, unless somebody is at it.
    pub(super) fn clear_removing_if_free(&self) -> Result<(), StoreError> {
        let removing = self.inner.removing.again()?;
        if lock::if_free(&removing.fd).map_err(|error| removing.error("lock", "", error))? {
            trees(&removing)?;
        }
        Ok(())
    }
}

fn trees(removing: &Folder) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for name in removing.names()? {
        bytes += tree(removing, &name)?;
    }
    Ok(bytes)
}

/// Removes a tree below a folder and returns the bytes that it took.
fn tree(folder: &Folder, name: &str) -> Result<u64, StoreError> {
    let error = |error: Errno| folder.error("remove", name, error);
    let Some(top) = folder.existing(name)? else { return Ok(0) };
    let mut bytes = 0;
    let mut lifted = 0_u64;
    loop {
        let directories = files(top.fd.as_fd(), &mut bytes).map_err(error)?;
        if directories.is_empty() {
            break;
        }
        for directory in directories {
            bytes += lift(top.fd.as_fd(), &directory, &mut lifted).map_err(error)?;
        }
    }
    match rustix::fs::unlinkat(&folder.fd, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(bytes),
        Err(other) => Err(error(other)),
    }
}

/// Removes all but the directories of a directory, whose names it returns.
fn files(directory: BorrowedFd<'_>, bytes: &mut u64) -> Result<Vec<CString>, Errno> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let status = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(status.st_mode).is_dir() {
            directories.push(name.to_owned());
            continue;
        }
        if status.st_nlink == 1 {
            *bytes += u64::try_from(status.st_blocks).unwrap_or_default() * 512;
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
    }
    Ok(directories)
}

/// Empties a directory of the top and removes it; the directories in it are lifted to the top.
fn lift(top: BorrowedFd<'_>, name: &CString, lifted: &mut u64) -> Result<u64, Errno> {
    // An image can have directories that even their owner may not write to, which stops owners who are not root.
    rustix::fs::chmodat(top, name, Mode::RWXU, AtFlags::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(top, name, flags, Mode::empty())?;
    let mut bytes = 0;
    for inner in files(directory.as_fd(), &mut bytes)? {
        rustix::fs::chmodat(&directory, &inner, Mode::RWXU, AtFlags::empty())?;
        loop {
            *lifted += 1;
            let place = format!(".lifted-{lifted}");
            match rustix::fs::renameat_with(&directory, &inner, top, &place, RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)?;
    Ok(bytes)
}
