// SPDX-License-Identifier: Apache-2.0
//! Writable layers: what sandboxes write, on the host.
//!
//! ```text
//! <home>/sandboxes/<sandbox id>/
//!   0/upper, 0/work      the writes to the first mount of the rootfs, and the kernel's room beside them
//!   1/upper, 1/work      those to the second, and so on
//!   scratch              an empty directory, a place for mounts while the jail works
//! ```
//!
//! What is below `upper` was made by hostile code: it is only ever reached by descriptor, one name at a time, and links
//! are never followed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jail::plan::IdBlock;
use protocol::isolation::{Protection, ProtectionName};
use protocol::limits::DISK_SCAN_ENTRIES_MAX;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::spec::SandboxId;

/// Directories that every sandbox has, whatever its image brings: its home, room for temporary files, and `/etc`.
const OWN_DIRECTORIES: [(&str, u32); 3] = [("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)];
/// How deep below a layer's root files are counted; deeper ones are not.
const MEASURE_DEPTH_MAX: usize = 128;

/// The writable layers of one server.
#[derive(Debug)]
pub(crate) struct Volume {
    root: PathBuf,
}

impl Volume {
    /// Opens the volume below a home, making it if there is none.
    pub(crate) fn open(home: &Path) -> io::Result<Volume> {
        let root = home.join("sandboxes");
        fs_err::create_dir_all(&root)?;
        Ok(Volume { root })
    }

    /// The directory of one sandbox.
    fn directory(&self, id: &SandboxId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// An empty directory of one sandbox.
    pub(crate) fn scratch(&self, id: &SandboxId) -> PathBuf {
        self.directory(id).join("scratch")
    }

    /// The upper and work directories of one sandbox, one pair for each mount.
    pub(crate) fn uppers(&self, id: &SandboxId, mounts: usize) -> Vec<(PathBuf, PathBuf)> {
        let pair = |number: usize| {
            let directory = self.directory(id).join(number.to_string());
            (directory.join("upper"), directory.join("work"))
        };
        (0..mounts).map(pair).collect()
    }

    /// Makes the layers of one sandbox; the first one begins with these files in `/etc`.
    pub(crate) fn create(
        &self,
        id: &SandboxId,
        mounts: usize,
        ids: IdBlock,
        etc: &[(&str, String)],
    ) -> io::Result<()> {
        fs_err::create_dir(self.directory(id))?;
        fs_err::create_dir(self.scratch(id))?;
        for (number, (upper, work)) in self.uppers(id, mounts).into_iter().enumerate() {
            fs_err::create_dir_all(&work)?;
            fs_err::create_dir(&upper)?;
            give(&upper, ids, 0o755)?;
            give(&work, ids, 0o755)?;
            if number == 0 {
                for (name, mode) in OWN_DIRECTORIES {
                    fs_err::create_dir(upper.join(name))?;
                    give(&upper.join(name), ids, mode)?;
                }
                for (name, text) in etc {
                    let file = upper.join("etc").join(name);
                    fs_err::write(&file, text)?;
                    give(&file, ids, 0o644)?;
                }
            }
        }
        Ok(())
    }

    /// Counts the bytes that one sandbox's layers take on the disk.
    pub(crate) fn measure(&self, id: &SandboxId) -> io::Result<u64> {
        let mut total = 0;
        let mut entries_left = DISK_SCAN_ENTRIES_MAX;
        for entry in fs_err::read_dir(self.directory(id))? {
            let upper = entry?.path().join("upper");
            match open_directory(CWD, &upper) {
                Ok(directory) => measure_tree(directory, &mut total, &mut entries_left)?,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(total)
    }

    /// Says which limits on what a sandbox writes are in force.
    pub(crate) fn protections(&self) -> Vec<Protection> {
        let why = "the writable layer is a directory of the home, which has no limits of its own";
        vec![
            Protection::off(ProtectionName::DiskLimit, why),
            Protection::off(ProtectionName::InodeLimit, why),
        ]
    }

    /// Removes everything of one sandbox; nothing there is no error.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        remove_tree(&self.directory(id))
    }

    /// Lists the sandboxes that have layers.
    pub(crate) fn list(&self) -> io::Result<Vec<SandboxId>> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(&self.root)? {
            found.extend(entry?.file_name().to_str().and_then(SandboxId::parse));
        }
        Ok(found)
    }
}

fn give(path: &Path, ids: IdBlock, mode: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(ids.first), Gid::from_raw(ids.first));
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn open_directory<P: rustix::path::Arg>(
    parent: impl std::os::fd::AsFd,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
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
                Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

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
    fs_err::remove_dir(path)
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
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("volume-{name}-{}", std::process::id()));
        fs_err::create_dir(&path).unwrap();
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
        fs_err::write(kept.join("file"), "x").unwrap();
        fs_err::os::unix::fs::symlink(&kept, root.join("link")).unwrap();
        fs_err::create_dir(root.join(".removed-1")).unwrap();
        fs_err::create_dir_all(root.join("a/b/c")).unwrap();
        fs_err::os::unix::fs::symlink(&kept, root.join("a/b/link")).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs_err::read_to_string(kept.join("file")).unwrap(), "x");
        remove_tree(&kept).unwrap();
        remove_tree(&kept).unwrap();
    }

    #[test]
    fn a_layer_is_measured_by_what_it_takes_on_the_disk() {
        let home = fresh("measure");
        let volume = Volume::open(&home).unwrap();
        let id = SandboxId::random().unwrap();
        let me = IdBlock { first: rustix::process::getuid().as_raw(), count: 1 };
        volume.create(&id, 1, me, &[("hosts", "x".to_owned())]).unwrap();
        let before = volume.measure(&id).unwrap();
        let (upper, _) = volume.uppers(&id, 1).remove(0);
        fs_err::write(upper.join("big"), vec![1; 1 << 20]).unwrap();
        fs_err::hard_link(upper.join("big"), upper.join("again")).unwrap();
        fs_err::os::unix::fs::symlink("/usr", upper.join("link")).unwrap();
        let grown = volume.measure(&id).unwrap() - before;
        assert!((1 << 20..(1 << 20) + 16_384).contains(&grown), "{grown}");
        assert_eq!(volume.list().unwrap(), std::slice::from_ref(&id));
        volume.remove(&id).unwrap();
        assert_eq!(volume.list().unwrap(), []);
        remove_tree(&home).unwrap();
    }
}
