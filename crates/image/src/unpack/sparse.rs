// SPDX-License-Identifier: Apache-2.0
//! The maps of sparse files: which pieces of a file are in the archive; the rest are holes.
//!
//! Two formats are known: the old one of GNU tar (entry type `S`, the map in the header and in blocks after it), and
//! its PAX format 1.0 (the map as text at the start of the content). 0.0 and 0.1 had the map in PAX records, ended with
//! GNU tar 1.16, and are refused.

use protocol::limits::LAYER_SPARSE_PIECES_MAX;

use super::error::{Fault, Refusal};
use super::header::{Fields, number, size};
use super::pax::decimal;
use super::stream::{BLOCK, Stream};

/// Where the pieces of a file are.
#[derive(Debug, Default)]
pub(super) struct SparseMap {
    /// Offset and length of each piece, in order.
    pub(super) pieces: Vec<(u64, u64)>,
    /// The size of the file with its holes.
    pub(super) size: u64,
}

impl SparseMap {
    /// Reads the map of an entry of type `S`.
    pub(super) fn old(fields: &Fields, stored: u64, stream: &mut Stream<'_>) -> Result<SparseMap, Fault> {
        let header = fields.as_gnu().ok_or(Refusal::Sparse("is in a header that has no room for it"))?;
        let mut map = SparseMap { pieces: Vec::new(), size: size(number(&header.realsize))? };
        for piece in &header.sparse {
            map.take_old(piece)?;
        }
        let mut more = header.isextended[0] != 0;
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            *extension.as_mut_bytes() = stream.block()?;
            for piece in &extension.sparse {
                map.take_old(piece)?;
            }
            if extension.sparse.iter().all(tar::GnuSparseHeader::is_empty) {
                return Err(Refusal::Sparse("has a part without pieces").into());
            }
            more = extension.isextended[0] != 0;
        }
        map.check(stored)?;
        Ok(map)
    }

    fn take_old(&mut self, piece: &tar::GnuSparseHeader) -> Result<(), Refusal> {
        if piece.is_empty() {
            return Ok(());
        }
        let (offset, length) = (size(number(&piece.offset))?, size(number(&piece.numbytes))?);
        self.take(offset, length)
    }

    /// Reads the map at the start of a content of this many bytes; tells also how many bytes the map took.
    pub(super) fn pax(real: u64, stored: u64, stream: &mut Stream<'_>) -> Result<(SparseMap, u64), Fault> {
        let malformed = Refusal::Sparse("is malformed");
        let mut map = SparseMap { pieces: Vec::new(), size: real };
        let (mut taken, mut numbers_left, mut offset) = (0, None, None);
        let mut digits: Vec<u8> = Vec::new();
        while numbers_left != Some(0) {
            taken += BLOCK as u64;
            if taken > stored {
                return Err(malformed.into());
            }
            for byte in stream.block()? {
                if numbers_left == Some(0) {
                    // The rest of the last block is filled up.
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(malformed.into());
                    }
                    continue;
                }
                let number = decimal(&digits).ok_or(malformed)?;
                digits.clear();
                match (numbers_left, offset.take()) {
                    (None, _) if number > LAYER_SPARSE_PIECES_MAX as u64 => return Err(too_many().into()),
                    (None, _) => numbers_left = Some(2 * number),
                    (Some(left), None) => {
                        offset = Some(number);
                        numbers_left = Some(left - 1);
                    }
                    (Some(left), Some(offset)) => {
                        map.take(offset, number)?;
                        numbers_left = Some(left - 1);
                    }
                }
            }
        }
        map.check(stored - taken)?;
        Ok((map, taken))
    }

    /// Takes a piece that lies behind all before it.
    fn take(&mut self, offset: u64, length: u64) -> Result<(), Refusal> {
        let end = self.pieces.last().map_or(0, |(offset, length)| offset + length);
        let unaligned = self.pieces.iter().rev().take(1).any(|(_, length)| length % BLOCK as u64 != 0);
        if offset < end {
            return Err(Refusal::Sparse("has pieces that overlap or are out of order"));
        }
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(Refusal::Sparse("has a piece beyond the end of the file"));
        }
        if length > 0 && unaligned {
            return Err(Refusal::Sparse("has a piece that is not made of whole blocks"));
        }
        if self.pieces.len() >= LAYER_SPARSE_PIECES_MAX {
            return Err(too_many());
        }
        self.pieces.push((offset, length));
        Ok(())
    }

    fn check(&self, stored: u64) -> Result<(), Refusal> {
        let sum: u64 = self.pieces.iter().map(|(_, length)| length).sum();
        if sum == stored { Ok(()) } else { Err(Refusal::Sparse("has not the size of what is there")) }
    }
}

fn too_many() -> Refusal {
    Refusal::Sparse("has too many pieces")
}
