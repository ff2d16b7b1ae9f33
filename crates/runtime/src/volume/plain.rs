// SPDX-License-Identifier: Apache-2.0
//! Counts what a tree takes on a disk that does not count by itself.
//!
//! A server without the rights of root cannot look into every directory that a sandbox closed: those are not counted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) use jail::remove::open_directory;
use protocol::limits::DISK_SCAN_ENTRIES_MAX;
use rustix::fs::{AtFlags, CWD, Dir, FileType, statat};
use rustix::io::Errno;

/// How deep below a layer's root files are counted; deeper ones are not.
const MEASURE_DEPTH_MAX: usize = 128;

/// Counts the bytes that the layers below a directory take on the disk.
pub(super) fn measure(layers: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut entries_left = DISK_SCAN_ENTRIES_MAX;
    for entry in fs_err::read_dir(layers)? {
        let upper = entry?.path().join("upper");
        match open_directory(CWD, &upper) {
            Ok(directory) => measure_tree(directory, &mut total, &mut entries_left)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(total)
}

/// Adds up a tree. A file with several names is shared out among them.
fn measure_tree(root: OwnedFd, total: &mut u64, entries_left: &mut usize) -> io::Result<()> {
    let mut stack = vec![Dir::new(root)?];
    while let Some(directory) = stack.last_mut() {
        let Some(entry) = directory.read() else {
            stack.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *entries_left = match entries_left.checked_sub(1) {
            Some(left) => left,
            None => {
                return Err(io::Error::other(format!("more than {DISK_SCAN_ENTRIES_MAX} files to count")));
            }
        };
        let status = match statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            // Gone since it was listed.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let links = u64::from(u32::try_from(status.st_nlink).unwrap_or(u32::MAX)).max(1);
        let bytes = u64::try_from(status.st_blocks).unwrap_or(0) * 512;
        let is_directory = FileType::from_raw_mode(status.st_mode).is_dir();
        *total += if is_directory { bytes } else { bytes / links };
        if is_directory && stack.len() < MEASURE_DEPTH_MAX {
            let parent = stack.last().map(Dir::fd).transpose()?;
            match parent.map(|parent| open_directory(parent, name)) {
                Some(Ok(child)) => stack.push(Dir::new(child)?),
                Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS)) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
