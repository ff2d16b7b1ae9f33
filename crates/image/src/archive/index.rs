// SPDX-License-Identifier: Apache-2.0
//! Where the regular files of a tar are, by name: found by its headers alone, within bounds.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str;

use protocol::limits::{ARCHIVE_ENTRIES_MAX, ARCHIVE_NAME_BYTES_MAX, ARCHIVE_PAX_BYTES_MAX};
use tar::{EntryType, Header, PaxExtensions};

use super::{ArchiveError, wrong};

const BLOCK: u64 = 512;

/// What a name of a tar stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The bytes of a regular file.
    Bytes { offset: u64, size: u64 },
    /// A link to another name in the tar: Docker wrote equal layers that way.
    Link(String),
}

/// The names of a tar.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: HashMap<String, Place>,
    /// What ended the walk before the end of the tar.
    ended_by: Option<String>,
}

/// What a header of another kind says about the file that follows it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Index {
    /// Walks along the headers of a tar.
    ///
    /// A tar of a root file system can hold what no archive of images does. That ends the walk, and is an error only
    /// for who looks for an image: see [`Index::whole`].
    pub(super) fn of(file: &File) -> Result<Index, ArchiveError> {
        let mut index = Index::default();
        let mut walk = Walk { file, at: 0, length: file.metadata().map_err(ArchiveError::Read)?.len() };
        let mut extension = Extension::default();
        let mut entries = 0;
        loop {
            let header = match walk.header().map_err(ArchiveError::Read)? {
                Step::Header(header) => header,
                Step::End if entries == 0 => return Err(ArchiveError::Unknown("it has no files".to_owned())),
                Step::End => return Ok(index),
                Step::Wrong(why) if entries == 0 => return Err(ArchiveError::Unknown(why)),
                Step::Wrong(why) => return Ok(index.ended(why)),
            };
            entries += 1;
            if entries > ARCHIVE_ENTRIES_MAX {
                return Ok(index.ended(format!("it has more than {ARCHIVE_ENTRIES_MAX} files")));
            }
            if let Err(why) = walk.entry(&header, &mut extension, &mut index) {
                return Ok(index.ended(why));
            }
        }
    }

    fn ended(mut self, why: String) -> Index {
        self.ended_by = Some(why);
        self
    }

    /// Refuses a tar that was not walked to its end.
    pub(super) fn whole(&self) -> Result<(), ArchiveError> {
        match &self.ended_by {
            None => Ok(()),
            Some(why) => Err(wrong("the tar", why)),
        }
    }

    /// Says whether there is something of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns where the bytes of a file are; a link is followed once, within the tar.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut place = self.places.get(name)?;
        if let Place::Link(target) = place {
            place = self.places.get(target)?;
        }
        match place {
            Place::Bytes { offset, size } => Some((*offset, *size)),
            Place::Link(_) => None,
        }
    }

    fn add(&mut self, name: &[u8], place: Place) -> Result<(), String> {
        let Ok(name) = str::from_utf8(name) else { return Ok(()) };
        let name = name.strip_prefix("./").unwrap_or(name);
        if name.is_empty() || name.len() > ARCHIVE_NAME_BYTES_MAX {
            return Ok(());
        }
        match self.places.insert(name.to_owned(), place) {
            None => Ok(()),
            Some(_) => Err(format!("it has {name} twice")),
        }
    }
}

enum Step {
    Header(Box<Header>),
    End,
    Wrong(String),
}

struct Walk<'a> {
    file: &'a File,
    at: u64,
    length: u64,
}

impl Walk<'_> {
    fn header(&mut self) -> io::Result<Step> {
        let mut header = Header::new_old();
        if self.length < self.at + BLOCK {
            return Ok(Step::Wrong(format!("it ends after {} bytes, without an end mark", self.length)));
        }
        self.file.read_exact_at(header.as_mut_bytes(), self.at)?;
        self.at += BLOCK;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        // The sum is taken as if its own eight bytes were spaces.
        let bytes = header.as_bytes();
        let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        Ok(match header.cksum() {
            Ok(found) if found == sum => Step::Header(Box::new(header)),
            Ok(_) | Err(_) => Step::Wrong(format!("there is no tar header at byte {}", self.at - BLOCK)),
        })
    }

    /// Takes one entry in, and goes to the end of its bytes.
    fn entry(&mut self, header: &Header, extension: &mut Extension, index: &mut Index) -> Result<(), String> {
        let kind = header.entry_type();
        let stated = header.entry_size().map_err(|error| error.to_string())?;
        match kind {
            EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XGlobalHeader => {
                let bytes = self.small(stated)?;
                return extension.take(kind, &bytes);
            }
            EntryType::GNUSparse => return Err("it has a sparse file".to_owned()),
            _ => {}
        }
        let extension = std::mem::take(extension);
        let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            return match link(&name, header) {
                Some(target) => index.add(&name, Place::Link(target)),
                None => Ok(()),
            };
        }
        if matches!(kind, EntryType::Directory | EntryType::Char | EntryType::Block | EntryType::Fifo) {
            return Ok(());
        }
        let (offset, size) = (self.at, extension.size.unwrap_or(stated));
        self.skip(size)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => index.add(&name, Place::Bytes { offset, size }),
            _ => Ok(()),
        }
    }

    /// Goes over bytes and what fills up their last block.
    fn skip(&mut self, size: u64) -> Result<(), String> {
        let padded = size.checked_next_multiple_of(BLOCK).and_then(|size| self.at.checked_add(size));
        match padded {
            Some(end) if end <= self.length => {
                self.at = end;
                Ok(())
            }
            Some(_) | None => {
                Err(format!("it ends after {} bytes, in the middle of a file of {size} bytes", self.length))
            }
        }
    }

    fn small(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > ARCHIVE_PAX_BYTES_MAX {
            return Err(format!(
                "it has {size} bytes of extended header; {ARCHIVE_PAX_BYTES_MAX} are allowed"
            ));
        }
        let at = self.at;
        self.skip(size)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(|error| error.to_string())?];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

impl Extension {
    fn take(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), String> {
        match kind {
            EntryType::GNULongName => {
                self.name = Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_owned());
            }
            EntryType::XHeader => {
                for record in PaxExtensions::new(bytes) {
                    let record = record.map_err(|_| "it has a malformed extended header".to_owned())?;
                    let value = record.value_bytes();
                    match record.key_bytes() {
                        b"path" => self.name = Some(value.to_owned()),
                        b"size" => self.size = Some(decimal(value)?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn decimal(text: &[u8]) -> Result<u64, String> {
    let digits = str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| "it has a size that is no number".to_owned())
}

/// Returns the name in the tar that a link of it leads to, by its text alone; `None` for one that leads out of it.
fn link(name: &[u8], header: &Header) -> Option<String> {
    let target = header.link_name_bytes()?;
    let (name, target) = (str::from_utf8(name).ok()?, str::from_utf8(&target).ok()?);
    let mut parts: Vec<&str> = Vec::new();
    if header.entry_type() == EntryType::Symlink {
        parts.extend(name.strip_prefix("./").unwrap_or(name).split('/'));
        parts.pop();
    }
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
