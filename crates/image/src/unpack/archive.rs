// SPDX-License-Identifier: Apache-2.0
//! From blocks to entries: a header with all that the extensions before it say.
//!
//! The iterator of the `tar` crate is not used: it reads long names, PAX records and sparse maps of any length into
//! memory, and prefers one of two that contradict each other. Here each has a bound, and a contradiction is refused.

use protocol::limits::{
    LAYER_PATH_BYTES_MAX, LAYER_PAX_BYTES_MAX, LAYER_TARGET_BYTES_MAX, LAYER_XATTR_BYTES_MAX,
    LAYER_XATTRS_MAX,
};
use rustix::fs::Timespec;
use tar::EntryType;

use super::budget::Budget;
use super::error::{Fault, Refusal, UnpackError};
use super::header::{self, Fields};
use super::pax::{self, Pax};
use super::sparse::SparseMap;
use super::stream::{BLOCK, Stream, padding};

/// One entry of a layer, whose content, if there is one, is next in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name as it is written.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) meta: Meta,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum Kind {
    File(Content),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    Device,
}

/// How much content there is, and where it belongs.
#[derive(Debug)]
pub(super) struct Content {
    /// Bytes in the stream, up to the padding.
    pub(super) stored: u64,
    pub(super) map: SparseMap,
    /// Bytes of the stream to skip after the content.
    pub(super) padding: u64,
}

/// Whose an entry is, who may do what with it, and when it was changed.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) modified: Timespec,
    /// The attributes that are kept.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// There are others.
    pub(super) attributes_left_out: u64,
}

/// What comes before the header that it describes.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Extensions {
    fn are_none(&self) -> bool {
        self.name.is_none() && self.target.is_none() && self.pax.is_none()
    }
}

/// The next entry of the archive, or none at its end.
pub(super) fn next(stream: &mut Stream<'_>, budget: &Budget) -> Result<Option<Entry>, UnpackError> {
    let mut extensions = Extensions::default();
    loop {
        let block = stream.block()?;
        if block == [0; BLOCK] {
            // An extension of nothing is an archive that was cut.
            return if extensions.are_none() { Ok(None) } else { Err(UnpackError::Truncated) };
        }
        budget.take_bytes(BLOCK as u64)?;
        let unnamed = |refusal: Refusal| Fault::from(refusal).of(header::written_name(&block));
        let fields = Fields::read(block).map_err(unnamed)?;
        let stored = fields.size().map_err(unnamed)?;
        let extended = extend(&mut extensions, &fields, stored, stream, budget);
        if extended.map_err(|fault| fault.of(&fields.path()))? {
            continue;
        }
        let name = name(&fields, &mut extensions).map_err(unnamed)?;
        let before = stream.passed();
        let kind = kind(&fields, stored, &mut extensions, stream);
        budget.take_bytes(stream.passed() - before)?;
        let made = kind.and_then(|kind| Ok((kind, meta(&fields, extensions.pax.unwrap_or_default())?)));
        let (kind, meta) = made.map_err(|fault| fault.of(&name))?;
        return Ok(Some(Entry { name, kind, meta }));
    }
}

/// Takes an extension; says whether this was one.
fn extend(
    extensions: &mut Extensions,
    fields: &Fields,
    stored: u64,
    stream: &mut Stream<'_>,
    budget: &Budget,
) -> Result<bool, Fault> {
    let kind = fields.kind();
    let (most, too_long) = match kind {
        EntryType::GNULongName | EntryType::GNULongLink => {
            // Some tools end the name with NUL.
            (LAYER_PATH_BYTES_MAX as u64 + 2, Refusal::Name("is longer than a path may be"))
        }
        EntryType::XHeader | EntryType::XGlobalHeader => (LAYER_PAX_BYTES_MAX, Refusal::Pax("is too long")),
        _ => return Ok(false),
    };
    if stored > most {
        return Err(too_long.into());
    }
    budget.take_bytes(stored)?;
    let bytes = stream.whole(stored)?;
    let twice = match kind {
        EntryType::GNULongName => extensions.name.replace(without_nul(bytes)).is_some(),
        EntryType::GNULongLink => extensions.target.replace(without_nul(bytes)).is_some(),
        EntryType::XHeader => extensions.pax.replace(Pax::read(&bytes)?).is_some(),
        _ => {
            budget.take_entry()?;
            pax::check_global(&bytes)?;
            false
        }
    };
    if twice { Err(Refusal::Header("is described twice").into()) } else { Ok(true) }
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn name(fields: &Fields, extensions: &mut Extensions) -> Result<Vec<u8>, Refusal> {
    let (path, sparse) = match &mut extensions.pax {
        Some(pax) => (pax.path.take(), pax.sparse.name.take()),
        None => (None, None),
    };
    match (extensions.name.take(), path) {
        (Some(_), Some(_)) => Err(Refusal::Header("is described twice")),
        (Some(name), None) => Ok(name),
        // The other name of a sparse file is for tools that do not know about those.
        (None, path) => Ok(sparse.or(path).unwrap_or_else(|| fields.path())),
    }
}

fn target(fields: &Fields, extensions: &mut Extensions) -> Result<Vec<u8>, Refusal> {
    let path = extensions.pax.as_mut().and_then(|pax| pax.target.take());
    let target = match (extensions.target.take(), path) {
        (Some(_), Some(_)) => return Err(Refusal::Header("is described twice")),
        (Some(target), None) | (None, Some(target)) => target,
        (None, None) => fields.target(),
    };
    match target.len() {
        0 => Err(Refusal::Target("is empty")),
        length if length > LAYER_TARGET_BYTES_MAX => Err(Refusal::Target("is longer than a path may be")),
        _ if target.contains(&0) => Err(Refusal::Target("has NUL in it")),
        _ => Ok(target),
    }
}

/// Tells what an entry is, and reads the map of a sparse file.
fn kind(
    fields: &Fields,
    stored: u64,
    extensions: &mut Extensions,
    stream: &mut Stream<'_>,
) -> Result<Kind, Fault> {
    if let Some(said) = extensions.pax.as_ref().and_then(|pax| pax.size) {
        header::size(Some(i128::from(said)))?;
        // All sizes up to the bound fit into the header, so one that is not there is there to deceive.
        if said != stored {
            return Err(Refusal::Size("differs between its header and its PAX header").into());
        }
    }
    let kind = match fields.kind() {
        EntryType::Regular | EntryType::Continuous => {
            return Ok(Kind::File(content(stored, extensions, stream)?));
        }
        EntryType::GNUSparse => {
            let map = SparseMap::old(fields, stored, stream)?;
            return Ok(Kind::File(Content { stored, map, padding: padding(stored) }));
        }
        EntryType::Link => Kind::HardLink(target(fields, extensions)?),
        EntryType::Symlink => Kind::Symlink(target(fields, extensions)?),
        EntryType::Directory => Kind::Directory,
        EntryType::Char | EntryType::Block => Kind::Device,
        EntryType::Fifo => return Err(Refusal::Kind("a named pipe").into()),
        other => return Err(Refusal::Kind(unknown(other.as_byte())).into()),
    };
    if stored != 0 {
        return Err(Refusal::Size("is not zero, but it is no file").into());
    }
    Ok(kind)
}

fn unknown(kind: u8) -> &'static str {
    match kind {
        b'D' => "a directory of an incremental archive of GNU tar",
        b'M' => "a part of a file of a multi-volume archive",
        b'V' => "the label of a volume",
        b's' => "a socket",
        _ => "of a kind that is not known",
    }
}

fn content(stored: u64, extensions: &Extensions, stream: &mut Stream<'_>) -> Result<Content, Fault> {
    let whole = || Content {
        stored,
        map: SparseMap { pieces: vec![(0, stored)], size: stored },
        padding: padding(stored),
    };
    let Some(sparse) = extensions.pax.as_ref().map(|pax| &pax.sparse) else { return Ok(whole()) };
    match (sparse.major, sparse.minor, sparse.real_size) {
        (None, None, None) if !sparse.old => Ok(whole()),
        (Some(1), Some(0), Some(real)) if !sparse.old => {
            let real = header::size(Some(i128::from(real)))?;
            let (map, taken) = SparseMap::pax(real, stored, stream)?;
            Ok(Content { stored: stored - taken, map, padding: padding(stored) })
        }
        _ => Err(Refusal::Sparse("is of another format than GNU tar's 1.0").into()),
    }
}

fn meta(fields: &Fields, pax: Pax) -> Result<Meta, Fault> {
    let user = pax.user.map_or_else(|| fields.user(), Ok)?;
    let group = pax.group.map_or_else(|| fields.group(), Ok)?;
    let (seconds, nanoseconds) = match pax.modified {
        Some(modified) => modified,
        None => (fields.modified()?, 0),
    };
    let there = pax.attributes.len() as u64;
    let attributes: Vec<_> = pax.attributes.into_iter().filter(|(name, _)| is_kept(name)).collect();
    if attributes.len() > LAYER_XATTRS_MAX {
        return Err(Refusal::Attribute("are too many").into());
    }
    for (name, value) in &attributes {
        if name.len() > 255 || name.len() == b"user.".len() || name.contains(&0) {
            return Err(Refusal::Attribute("have a name that is none").into());
        }
        if value.len() > LAYER_XATTR_BYTES_MAX {
            return Err(Refusal::Attribute("have a value that is too long").into());
        }
    }
    Ok(Meta {
        mode: fields.mode()?,
        user: header::id(user)?,
        group: header::id(group)?,
        modified: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
        attributes_left_out: there - attributes.len() as u64,
        attributes,
    })
}

/// Only attributes that mean nothing to the kernel are kept, and nothing to overlayfs when it is mounted for a user.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}
