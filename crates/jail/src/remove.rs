// SPDX-License-Identifier: Apache-2.0
//! Removes what sandboxes wrote, and takes no path for granted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a directory and all below it, however deep: full directories are moved up to the top one by one, so that no
/// depth needs more than three descriptors. No directory is no error.
///
/// # Errors
/// What the kernel says about the first thing that cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut moved = 0_u64;
    loop {
        let mut met_directory = false;
        for name in names(&top)? {
            if let Some(child) = remove_entry(&top, &name)? {
                met_directory = true;
                lift_children(&child, &top, &mut moved)?;
                unlinkat(&top, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
        if !met_directory {
            break;
        }
    }
    std::fs::remove_dir(path)
}

/// Opens a directory that may be a sandbox's; a link is none.
///
/// # Errors
/// What the kernel says.
pub fn open_directory<P: rustix::path::Arg>(
    parent: impl std::os::fd::AsFd,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Empties a directory: files are unlinked, full directories moved to `top` under fresh names.
fn lift_children(directory: &OwnedFd, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    for name in names(directory)? {
        if remove_entry(directory, &name)?.is_none() {
            continue;
        }
        loop {
            *moved += 1;
            let fresh = format!(".removed-{moved}");
            // mkdirat claims the name, rename over an empty directory is allowed.
            match mkdirat(top, fresh.as_str(), Mode::RWXU) {
                Ok(()) => {
                    renameat(directory, name.as_c_str(), top, fresh.as_str())?;
                    break;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Unlinks a file or an empty directory; a full directory is opened and returned.
fn remove_entry(parent: &OwnedFd, name: &std::ffi::CStr) -> io::Result<Option<OwnedFd>> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Some(open_directory(parent, name)?)),
        Err(error) => Err(error.into()),
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    debug_assert!(fstat(directory).is_ok(), "the descriptor is open");
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("volume-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let root = fresh("deep");
        let mut directory = open_directory(CWD, &root).unwrap();
        for _ in 0..3000 {
            mkdirat(&directory, "dddddddd", Mode::RWXU).unwrap();
            mkdirat(&directory, "beside", Mode::RWXU).unwrap();
            directory = open_directory(&directory, "dddddddd").unwrap();
        }
        drop(directory);
        remove_tree(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn removal_follows_no_link() {
        let (root, kept) = (fresh("links"), fresh("kept"));
        std::fs::File::create(kept.join("file")).unwrap();
        std::os::unix::fs::symlink(&kept, root.join("link")).unwrap();
        std::fs::create_dir(root.join(".removed-1")).unwrap();
        std::fs::DirBuilder::new().recursive(true).create(root.join("a/b/c")).unwrap();
        std::os::unix::fs::symlink(&kept, root.join("a/b/link")).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert!(kept.join("file").is_file());
        remove_tree(&kept).unwrap();
        remove_tree(&kept).unwrap();
    }
}
