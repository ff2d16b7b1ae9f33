// SPDX-License-Identifier: Apache-2.0
//! One layer of an image, made by a stranger, becomes a directory.
//!
//! ```text
//! blob ──decompress──▶ bytes of a tar ──archive──▶ entries ──tree──▶ files, beneath one descriptor
//!       ratio, size      hashed (diff id)  names, sizes, owners       openat2, O_EXCL, no links
//! ```
//!
//! The directory becomes a lower layer of an overlayfs, mounted with the rights of who unpacked it. So whiteouts become
//! what overlayfs calls whiteouts, and no other attribute with a meaning to it ever comes from a layer. A layer is refused as a whole at the
//! first thing that is wrong with it; the caller then removes the directory ([`remove_tree`]).
//!
//! Left out on purpose, and counted: device nodes (a sandbox has its own `/dev`), set-id bits and file capabilities
//! (void in a sandbox, and the store keeps nothing that could run on the host with rights), all other attributes but
//! `user.*`. Owners are kept if root unpacks; else everything is that user's, who is root in his sandboxes. Named pipes and sockets are refused instead: images that were built have none, nothing inside makes up for
//! one that is missing, and a program would open something else, or wait, where it expects its pipe.

mod archive;
mod budget;
mod compression;
mod error;
mod header;
mod name;
mod pax;
mod remove;
mod sparse;
mod stream;
mod tree;

pub use budget::Budget;
pub use compression::{Compression, decompress};
pub use error::{Refusal, UnpackError};
pub use remove::remove_tree;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, ftruncate, futimens, seek};
use rustix::io::Errno;

use archive::{Content, Entry, Kind, Meta};
use error::Fault;
use name::{EntryName, Role};
use stream::Stream;
use tree::{Tree, times};

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive, also those that were left out.
    pub entries: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Names of the layers below that are hidden.
    pub whiteouts: u64,
    /// Directories that no entry describes, but the names of others imply: 0755, of root, from 1970.
    pub implied_directories: u64,
    /// Device nodes that were left out.
    pub devices_left_out: u64,
    /// Files and directories whose set-id bits were left out.
    pub set_ids_left_out: u64,
    /// Extended attributes that were left out, file capabilities among them.
    pub attributes_left_out: u64,
    /// The digest of the archive as it was before it was compressed: `sha256:` and lowercase hexadecimal digits.
    pub diff_id: String,
}

/// Unpacks a layer into an empty directory that nobody else can reach meanwhile. Blocks until the archive has ended.
///
/// # Errors
/// The first thing that is wrong with the layer, that the image's budget has no room for, or that the host refuses. What
/// is in the directory by then is for the caller to remove.
pub fn unpack(mut tar: impl Read, into: BorrowedFd<'_>, budget: &Budget) -> Result<Unpacked, UnpackError> {
    let tree = Tree::open(into).map_err(|fault| fault.of(b"."))?;
    let mut unpacker =
        Unpacker { stream: Stream::new(&mut tar), tree, budget, unpacked: Unpacked::default() };
    while let Some(entry) = archive::next(&mut unpacker.stream, unpacker.budget)? {
        unpacker.budget.take_entry()?;
        unpacker.unpacked.entries += 1;
        unpacker.take(&entry).map_err(|fault| fault.of(&entry.name))?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    stream: Stream<'a>,
    tree: Tree,
    budget: &'a Budget,
    unpacked: Unpacked,
}

impl Unpacker<'_> {
    fn take(&mut self, entry: &Entry) -> Result<(), Fault> {
        let name = EntryName::parse(&entry.name)?;
        match name.role()? {
            Role::Real => self.make(name, entry),
            Role::Leftover => self.pass_over(entry),
            Role::Whiteout(hidden) => {
                is_marker(entry)?;
                self.tree.hide(name.split().0, hidden, self.budget)
            }
            Role::Opaque => {
                is_marker(entry)?;
                self.tree.make_opaque(name.split().0, self.budget)
            }
        }
    }

    fn make(&mut self, name: EntryName<'_>, entry: &Entry) -> Result<(), Fault> {
        let meta = &entry.meta;
        let is_directory = matches!(entry.kind, Kind::Directory);
        if !is_directory && name.is_root() {
            return Err(Refusal::Name("is that of the root, which is a directory").into());
        }
        if !is_directory && name.slash {
            return Err(Refusal::Name("ends with a slash, as only a directory's may").into());
        }
        self.count(&entry.kind, meta);
        match &entry.kind {
            Kind::Directory => self.tree.make_directory(name, meta, self.budget),
            Kind::File(content) => self.make_file(name, content, meta),
            Kind::Symlink(target) => self.tree.make_symlink(name, target, meta, self.budget),
            Kind::HardLink(target) => {
                let target = EntryName::parse(target).map_err(|refusal| match refusal {
                    Refusal::Name(why) => Refusal::Target(why),
                    other => other,
                })?;
                self.tree.make_hard_link(name, target, self.budget)
            }
            Kind::Device => Ok(()),
        }
    }

    fn count(&mut self, kind: &Kind, meta: &Meta) {
        match kind {
            Kind::File(_) | Kind::Directory => {
                self.unpacked.set_ids_left_out += u64::from(meta.mode & 0o6000 != 0);
                self.unpacked.attributes_left_out += meta.attributes_left_out;
            }
            Kind::Symlink(_) => {
                // The kernel takes no attributes of users for symlinks.
                let kept = meta.attributes.len() as u64;
                self.unpacked.attributes_left_out += meta.attributes_left_out + kept;
            }
            Kind::Device => self.unpacked.devices_left_out += 1,
            Kind::HardLink(_) => {}
        }
    }

    fn make_file(&mut self, name: EntryName<'_>, content: &Content, meta: &Meta) -> Result<(), Fault> {
        self.budget.take_bytes(content.map.size)?;
        let file = self.tree.make_file(name, self.budget)?;
        for (offset, length) in &content.map.pieces {
            if *length > 0 && *offset > 0 {
                seek(&file, SeekFrom::Start(*offset))?;
            }
            self.copy(*length, file.as_fd())?;
        }
        if content.map.size > content.stored {
            ftruncate(&file, content.map.size)?;
        }
        self.stream.skip(content.padding)?;
        self.tree.dress_file(file.as_fd(), meta)?;
        futimens(&file, &times(meta.modified))?;
        self.unpacked.bytes += content.map.size;
        Ok(())
    }

    fn copy(&mut self, length: u64, file: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut left = length;
        while left > 0 {
            let mut piece = self.stream.next(left)?;
            if piece.is_empty() {
                return Err(UnpackError::Truncated.into());
            }
            left -= piece.len() as u64;
            while !piece.is_empty() {
                match rustix::io::write(file, piece) {
                    Ok(0) => return Err(Errno::IO.into()),
                    Ok(written) => piece = &piece[written..],
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, entry: &Entry) -> Result<(), Fault> {
        if let Kind::File(content) = &entry.kind {
            self.budget.take_bytes(content.stored)?;
            self.stream.skip(content.stored)?;
            self.stream.skip(content.padding)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.unpacked.whiteouts = self.tree.finish(self.budget)?;
        self.unpacked.implied_directories = self.tree.implied;
        self.unpacked.diff_id = self.stream.finish()?;
        Ok(self.unpacked)
    }
}

/// Whiteouts are empty files. Docker on aufs wrote them as hard links to one such file.
fn is_marker(entry: &Entry) -> Result<(), Refusal> {
    match &entry.kind {
        Kind::File(content) if content.map.size == 0 => Ok(()),
        Kind::HardLink(_) => Ok(()),
        Kind::File(_) => Err(Refusal::Whiteout("with a content")),
        Kind::Symlink(_) | Kind::Directory | Kind::Device => Err(Refusal::Whiteout("that is no file")),
    }
}
