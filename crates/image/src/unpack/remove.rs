// SPDX-License-Identifier: Apache-2.0
//! The end of a directory that a stranger filled, whole or half unpacked.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use protocol::limits::LAYER_DEPTH_MAX;
use rustix::fs::{AtFlags, Dir, OFlags, unlinkat};
use rustix::io::Errno;

use super::tree::open_beneath;

/// Removes what has this name in a directory: a directory with all below it, or anything else. Links are removed, not
/// followed. Nothing of this name is no error.
///
/// Two descriptors are enough for any depth that a layer may have; [`LAYER_DEPTH_MAX`] bounds it.
///
/// # Errors
/// What the kernel says about the first thing that cannot be removed.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if matches!(name.to_bytes(), b"" | b"." | b"..") || name.to_bytes().contains(&b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an entry"));
    }
    // The way from `parent` to the directory that is being emptied.
    let mut way: Vec<CString> = Vec::new();
    match remove_entry(parent, name)? {
        Removed::Gone => return Ok(()),
        Removed::Full => way.push(name.to_owned()),
    }
    while let Some(last) = way.last().cloned() {
        match empty(parent, &way)? {
            Some(_) if way.len() > LAYER_DEPTH_MAX => return Err(io::Error::other("the tree is too deep")),
            Some(full) => way.push(full),
            None => {
                way.pop();
                let above = open_way(parent, &way)?;
                let above = above.as_ref().map_or(parent, AsFd::as_fd);
                unlinkat(above, last.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

enum Removed {
    Gone,
    Full,
}

/// Removes all files and empty directories of a directory, up to the first full one, which it names.
fn empty(parent: BorrowedFd<'_>, way: &[CString]) -> io::Result<Option<CString>> {
    let Some(directory) = open_way(parent, way)? else { return Ok(None) };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match remove_entry(directory.as_fd(), name)? {
            Removed::Gone => {}
            Removed::Full => return Ok(Some(name.to_owned())),
        }
    }
    Ok(None)
}

fn open_way(parent: BorrowedFd<'_>, way: &[CString]) -> io::Result<Option<std::os::fd::OwnedFd>> {
    if way.is_empty() {
        return Ok(None);
    }
    let path = way.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b'/');
    Ok(Some(open_beneath(parent, &path, OFlags::RDONLY | OFlags::DIRECTORY)?))
}

fn remove_entry(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Removed> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removed::Gone),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::Full),
        Err(errno) => Err(errno.into()),
    }
}
