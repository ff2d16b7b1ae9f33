// SPDX-License-Identifier: Apache-2.0
//! The files of an archive or a layout, looked up by exact names and never unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use protocol::limits::IMAGE_JSON_BYTES_MAX;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::ArchiveError;
use super::index::Index;

/// What an archive holds.
#[derive(Debug)]
pub(super) enum Contents {
    /// A directory; every name is resolved beneath it.
    Directory(OwnedFd),
    /// A tar, not compressed.
    Tar(File, Index),
}

/// A file of an archive, read from its beginning.
#[derive(Debug)]
pub(super) struct Content<'a> {
    file: FileOf<'a>,
    offset: u64,
    left: u64,
}

#[derive(Debug)]
enum FileOf<'a> {
    Tar(&'a File),
    Own(File),
}

impl Contents {
    /// Says whether there is something of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Contents::Directory(_) => matches!(self.open(name), Ok(Some(_))),
            Contents::Tar(_, index) => index.has(name),
        }
    }

    /// Opens a file, if it is there.
    pub(super) fn open(&self, name: &str) -> Result<Option<Content<'_>>, ArchiveError> {
        match self {
            Contents::Tar(file, index) => {
                Ok(index.find(name).map(|(offset, left)| Content { file: FileOf::Tar(file), offset, left }))
            }
            Contents::Directory(directory) => open_beneath(directory, name).map_err(ArchiveError::Read),
        }
    }

    /// Opens a file that must be there.
    pub(super) fn need(&self, name: &str) -> Result<Content<'_>, ArchiveError> {
        let shown = || name.chars().filter(|c| !c.is_control()).take(200).collect();
        self.open(name)?.ok_or_else(|| ArchiveError::Missing(shown()))
    }

    /// Reads a small file: JSON.
    pub(super) fn small(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let content = self.need(name)?;
        if content.size() > IMAGE_JSON_BYTES_MAX {
            let what =
                format!("{} with {} bytes", name.chars().take(200).collect::<String>(), content.size());
            return Err(ArchiveError::Bound { what, bound: IMAGE_JSON_BYTES_MAX });
        }
        let mut bytes = Vec::new();
        content.take(IMAGE_JSON_BYTES_MAX).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(bytes)
    }
}

fn open_beneath(directory: &OwnedFd, name: &str) -> io::Result<Option<Content<'static>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(directory, name, flags, Mode::empty(), within) {
        Ok(opened) => opened,
        // What leads out or through a link is not there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let status = rustix::fs::fstat(&opened)?;
    if !FileType::from_raw_mode(status.st_mode).is_file() {
        return Ok(None);
    }
    let left = status.st_size.try_into().unwrap_or_default();
    Ok(Some(Content { file: FileOf::Own(opened.into()), offset: 0, left }))
}

impl Content<'_> {
    /// Returns the size that is left to read.
    pub(super) fn size(&self) -> u64 {
        self.left
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let file = match &self.file {
            FileOf::Tar(file) => file,
            FileOf::Own(file) => file,
        };
        let read = file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
