// SPDX-License-Identifier: Apache-2.0
//! The directory that a layer becomes. Every entry is reached by descriptor, beneath the root, and never through a link.
//!
//! Nothing is ever replaced or removed while a layer is unpacked, and nobody else can reach the directory. So the
//! descriptor of the last directory stays right, and a name that is taken shows in the kernel's answer.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use protocol::limits::LAYER_NAMES_KEPT_BYTES_MAX;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, openat2, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::archive::Meta;
use super::budget::Budget;
use super::error::{Fault, Refusal, UnpackError};
use super::name::EntryName;
use crate::owners::OwnerPolicy;

/// No step out of the directory, through a link, into `/proc` or onto another file system.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// The bits of a mode that are kept: not set-user-id and set-group-id. Inside of a sandbox they would do nothing
/// (`no_new_privs`), and on the host nothing that a stranger made may run with another's rights.
const MODE_KEPT: u32 = 0o1777;
/// What a user keeps for himself of what he unpacks, or he could neither go on below it nor remove it. Root inside, as
/// whom he appears there, could do it all anyway.
const OWN_DIRECTORY: u32 = 0o700;
const OWN_FILE: u32 = 0o600;
/// When a directory was changed that no entry describes.
const EPOCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A name that is hidden, and its directory.
struct Whiteout {
    directory: Box<[u8]>,
    name: Box<[u8]>,
}

/// The directory that a layer becomes.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// The last directory that was used, by its path.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// The times of directories, set at the end because making an entry changes them.
    times: Vec<(Box<[u8]>, Timespec)>,
    /// What is hidden, made at the end because what is there by then goes first.
    whiteouts: Vec<Whiteout>,
    names_kept_bytes: usize,
    owners: OwnerPolicy,
    /// How many directories only the names of others imply.
    pub(super) implied: u64,
}

impl Tree {
    /// Begins at an empty directory.
    pub(super) fn open(into: BorrowedFd<'_>) -> Result<Tree, Fault> {
        let root = open_beneath(into, b".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in rustix::fs::Dir::read_from(&root)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                return Err(Errno::NOTEMPTY.into());
            }
        }
        let root = Rc::new(root);
        Ok(Tree {
            root,
            last: None,
            times: Vec::new(),
            whiteouts: Vec::new(),
            names_kept_bytes: 0,
            owners: OwnerPolicy::of_this_process(),
            implied: 0,
        })
    }

    /// Opens a directory, making it and those above it where there is none yet.
    fn directory(&mut self, path: &[u8], budget: &Budget) -> Result<Rc<OwnedFd>, Fault> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((last, descriptor)) = &self.last
            && last == path
        {
            return Ok(descriptor.clone());
        }
        let found = match open_beneath(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(found) => found,
            Err(Errno::NOENT) => self.make_directories(path, budget)?,
            Err(errno) => return Err(parent_fault(errno)),
        };
        let found = Rc::new(found);
        self.last = Some((path.to_owned(), found.clone()));
        Ok(found)
    }

    fn make_directories(&mut self, path: &[u8], budget: &Budget) -> Result<OwnedFd, Fault> {
        let mut at = None;
        let mut end = 0;
        for part in path.split(|byte| *byte == b'/') {
            end += part.len();
            let above = at.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            at = Some(match open_beneath(above, part, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    budget.take_entry()?;
                    mkdirat(above, part, Mode::RWXU)?;
                    let made = open_beneath(above, part, OFlags::RDONLY | OFlags::DIRECTORY)?;
                    if self.owners == OwnerPolicy::Kept {
                        fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT))?;
                    }
                    fchmod(&made, Mode::from_raw_mode(0o755))?;
                    self.implied += 1;
                    self.keep(end)?;
                    self.times.push((path[..end].into(), EPOCH));
                    made
                }
                Err(errno) => return Err(parent_fault(errno)),
            });
            end += 1;
        }
        at.ok_or(Fault::Kernel(Errno::INVAL))
    }

    /// Makes a directory, or gives one that is there its owner, mode and times.
    pub(super) fn make_directory(
        &mut self,
        name: EntryName<'_>,
        meta: &Meta,
        budget: &Budget,
    ) -> Result<(), Fault> {
        let directory = if name.is_root() {
            self.root.clone()
        } else {
            let (above, last) = name.split();
            let above = self.directory(above, budget)?;
            match mkdirat(&above, last, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            match open_beneath(above.as_fd(), last, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(found) => Rc::new(found),
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(Refusal::Duplicate.into()),
                Err(errno) => return Err(errno.into()),
            }
        };
        self.dress(directory.as_fd(), meta, OWN_DIRECTORY)?;
        self.keep(name.path().len())?;
        self.times.push((name.path().into(), meta.modified));
        Ok(())
    }

    /// Makes a file that was not there; its content, owner and times are for the caller.
    pub(super) fn make_file(&mut self, name: EntryName<'_>, budget: &Budget) -> Result<OwnedFd, Fault> {
        let (above, last) = name.split();
        let above = self.directory(above, budget)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&above, last, flags, Mode::RUSR | Mode::WUSR).map_err(taken)
    }

    /// Makes a symlink. What it says is nobody's business here: only a sandbox follows it.
    pub(super) fn make_symlink(
        &mut self,
        name: EntryName<'_>,
        target: &[u8],
        meta: &Meta,
        budget: &Budget,
    ) -> Result<(), Fault> {
        let (above, last) = name.split();
        let above = self.directory(above, budget)?;
        symlinkat(target, &above, last).map_err(taken)?;
        if self.owners == OwnerPolicy::Kept {
            let (user, group) = owner(meta);
            chownat(&above, last, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        utimensat(&above, last, &times(meta.modified), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Gives a file of this layer another name.
    pub(super) fn make_hard_link(
        &mut self,
        name: EntryName<'_>,
        target: EntryName<'_>,
        budget: &Budget,
    ) -> Result<(), Fault> {
        if target.is_root() {
            return Err(Refusal::HardLink("something that is no file").into());
        }
        let file = match open_beneath(self.root.as_fd(), target.path(), OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(Refusal::HardLink("something that this layer has not").into());
            }
            Err(Errno::LOOP) => return Err(Refusal::HardLink("something below a symlink").into()),
            Err(errno) => return Err(errno.into()),
        };
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(Refusal::HardLink("a symlink").into()),
            _ => return Err(Refusal::HardLink("something that is no file").into()),
        }
        let (above, last) = name.split();
        let above = self.directory(above, budget)?;
        linkat(&file, c"", &above, last, AtFlags::EMPTY_PATH).map_err(taken)
    }

    /// Hides a name of the layers below, unless this layer has it.
    pub(super) fn hide(&mut self, directory: &[u8], name: &[u8], budget: &Budget) -> Result<(), Fault> {
        self.directory(directory, budget)?;
        self.keep(directory.len() + name.len())?;
        self.whiteouts.push(Whiteout { directory: directory.into(), name: name.into() });
        Ok(())
    }

    /// Hides all that the layers below have in a directory.
    pub(super) fn make_opaque(&mut self, directory: &[u8], budget: &Budget) -> Result<(), Fault> {
        let directory = self.directory(directory, budget)?;
        fsetxattr(&directory, self.owners.opaque(), b"y", XattrFlags::empty())?;
        Ok(())
    }

    /// Does what had to wait; tells how many whiteouts were made.
    pub(super) fn finish(&mut self, budget: &Budget) -> Result<u64, UnpackError> {
        let mut made = 0;
        for Whiteout { directory, name } in std::mem::take(&mut self.whiteouts) {
            let result = self.directory(&directory, budget).and_then(|directory| {
                match mknodat(&directory, &*name, FileType::CharacterDevice, Mode::empty(), 0) {
                    Ok(()) => Ok(1),
                    // The layer has something of this name, or said so twice.
                    Err(Errno::EXIST) => Ok(0),
                    Err(errno) => Err(errno.into()),
                }
            });
            made += result.map_err(|fault| fault.of(&name))?;
        }
        for (path, modified) in std::mem::take(&mut self.times) {
            let result = self.directory(&path, budget);
            let result = result.and_then(|directory| Ok(futimens(&directory, &times(modified))?));
            result.map_err(|fault| fault.of(&path))?;
        }
        Ok(made)
    }

    /// Gives a file its owner, mode and attributes.
    pub(super) fn dress_file(&self, file: BorrowedFd<'_>, meta: &Meta) -> Result<(), Fault> {
        self.dress(file, meta, OWN_FILE)
    }

    /// The owner goes first: a change of it takes bits of the mode away.
    fn dress(&self, file: BorrowedFd<'_>, meta: &Meta, own: u32) -> Result<(), Fault> {
        let mut mode = meta.mode & MODE_KEPT;
        match self.owners {
            OwnerPolicy::Kept => {
                let (user, group) = owner(meta);
                fchown(file, Some(user), Some(group))?;
            }
            OwnerPolicy::Squashed => mode |= own,
        }
        for (name, value) in &meta.attributes {
            fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
        }
        fchmod(file, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.names_kept_bytes += bytes;
        if self.names_kept_bytes > LAYER_NAMES_KEPT_BYTES_MAX {
            let what = "bytes of names of directories and whiteouts";
            return Err(UnpackError::Limit { what, max: LAYER_NAMES_KEPT_BYTES_MAX as u64 });
        }
        Ok(())
    }
}

/// The times to set: of the last change, and the same for the last use, which no layer tells.
pub(super) fn times(modified: Timespec) -> Timestamps {
    Timestamps { last_access: modified, last_modification: modified }
}

fn owner(meta: &Meta) -> (Uid, Gid) {
    (Uid::from_raw(meta.user), Gid::from_raw(meta.group))
}

/// Opens what is beneath a directory.
pub(super) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn parent_fault(errno: Errno) -> Fault {
    match errno {
        Errno::LOOP => Refusal::Parent("a symlink").into(),
        Errno::NOTDIR => Refusal::Parent("something that is no directory").into(),
        errno => errno.into(),
    }
}

fn taken(errno: Errno) -> Fault {
    match errno {
        Errno::EXIST => Refusal::Duplicate.into(),
        errno => errno.into(),
    }
}
