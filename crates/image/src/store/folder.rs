// SPDX-License-Identifier: Apache-2.0
//! A directory of the store, reached by descriptor; its errors name the path.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::StoreError;

const OPEN_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that only this user reaches.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Folder {
    /// Opens a directory, made where it is missing, and closes it to everybody else.
    pub(super) fn open(path: &Path) -> Result<Folder, StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| disk("make", path, error))?;
        let fd =
            rustix::fs::open(path, OPEN_FOLDER, Mode::empty()).map_err(|error| disk("open", path, error))?;
        let folder = Folder { fd, path: path.to_owned() };
        folder.close_to_others()?;
        Ok(folder)
    }

    /// Opens a directory in this one, made where it is missing.
    pub(super) fn child(&self, name: &str) -> Result<Folder, StoreError> {
        self.make(name)?;
        self.existing(name)?.ok_or_else(|| self.error("open", name, Errno::NOENT))
    }

    /// Makes a directory in this one, if it is missing.
    pub(super) fn make(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.error("make", name, error)),
        }
    }

    /// Opens a directory in this one, if it is there.
    pub(super) fn existing(&self, name: &str) -> Result<Option<Folder>, StoreError> {
        match rustix::fs::openat(&self.fd, name, OPEN_FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd, path: self.path.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Opens this directory once more: locks belong to what was opened, and this one is shared by all clones.
    pub(super) fn again(&self) -> Result<Folder, StoreError> {
        let fd = rustix::fs::openat(&self.fd, ".", OPEN_FOLDER, Mode::empty());
        let fd = fd.map_err(|error| disk("open", &self.path, error))?;
        Ok(Folder { fd, path: self.path.clone() })
    }

    fn close_to_others(&self) -> Result<(), StoreError> {
        let owner = rustix::fs::fstat(&self.fd).map_err(|error| disk("look at", &self.path, error))?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user");
            return Err(disk("use", &self.path, error));
        }
        rustix::fs::fchmod(&self.fd, Mode::RWXU).map_err(|error| disk("close to others", &self.path, error))
    }

    /// Opens a file to read it, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Opens a file to write it, made where it is missing.
    pub(super) fn write(&self, name: &str) -> Result<File, StoreError> {
        self.writable(name, OFlags::empty())?.ok_or_else(|| self.error("open", name, Errno::EXIST))
    }

    /// Makes a file; `None` when one of that name is there.
    pub(super) fn create(&self, name: &str) -> Result<Option<File>, StoreError> {
        self.writable(name, OFlags::EXCL)
    }

    fn writable(&self, name: &str, more: OFlags) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        match rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Returns what the kernel knows of a name, if there is something.
    pub(super) fn status(&self, name: &str) -> Result<Option<Stat>, StoreError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("look at", name, error)),
        }
    }

    /// Returns the size of a regular file, if there is one.
    pub(super) fn file_size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let status = self.status(name)?.filter(|status| FileType::from_raw_mode(status.st_mode).is_file());
        Ok(status.map(|status| status.st_size.try_into().unwrap_or_default()))
    }

    /// Says whether a name still is what was opened by it.
    pub(super) fn is(&self, name: &str, opened: impl AsFd) -> Result<bool, StoreError> {
        let opened = rustix::fs::fstat(opened).map_err(|error| self.error("look at", name, error))?;
        let there = self.status(name)?;
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)))
    }

    /// Lists the names, in order; those that are not ours to make (no plain text) are left out.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = Dir::read_from(&self.fd).map_err(|error| disk("list", &self.path, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| disk("list", &self.path, error))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Gives something another name, here or in another folder; what had that name is gone.
    pub(super) fn rename(&self, from: &str, folder: &Folder, to: &str) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.fd, from, &folder.fd, to)
            .map_err(|error| self.error("rename", from, error))
    }

    /// Removes a file; says whether it was there.
    pub(super) fn unlink(&self, name: &str) -> Result<bool, StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }

    /// Waits until the names in it are on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.fd).map_err(|error| disk("write to the disk", &self.path, error))
    }

    /// Says what could not be done with a name in it.
    pub(super) fn error(&self, act: &'static str, name: &str, error: impl Into<io::Error>) -> StoreError {
        disk(act, &self.path.join(name), error)
    }
}

fn disk(act: &'static str, path: &Path, error: impl Into<io::Error>) -> StoreError {
    StoreError::Disk { act, what: path.display().to_string(), source: error.into() }
}
