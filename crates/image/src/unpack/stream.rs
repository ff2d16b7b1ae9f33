// SPDX-License-Identifier: Apache-2.0
//! The bytes of an archive, read in large pieces, each hashed once, as what they are: untrusted and maybe endless.

use std::fmt::Write;
use std::io::{self, Read};

use protocol::limits::{LAYER_CHUNK_BYTES, LAYER_TRAILING_BYTES_MAX};
use sha2::{Digest, Sha256};

use super::error::UnpackError;

/// What a tar archive is made of: headers of one block, contents filled up to whole blocks.
pub(super) const BLOCK: usize = 512;

/// The bytes of an archive.
pub(super) struct Stream<'a> {
    inner: &'a mut dyn Read,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes before those in the buffer.
    before: u64,
    hash: Sha256,
}

impl<'a> Stream<'a> {
    pub(super) fn new(inner: &'a mut dyn Read) -> Stream<'a> {
        let buffer = vec![0; LAYER_CHUNK_BYTES].into_boxed_slice();
        Stream { inner, buffer, start: 0, end: 0, before: 0, hash: Sha256::new() }
    }

    /// The next bytes, at most this many; none at the end.
    pub(super) fn next(&mut self, most: u64) -> Result<&[u8], UnpackError> {
        if self.start == self.end {
            self.fill()?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let start = self.start;
        self.start += most.min(self.end - start);
        Ok(&self.buffer[start..self.start])
    }

    /// How many bytes were read.
    pub(super) fn passed(&self) -> u64 {
        self.before + self.start as u64
    }

    fn fill(&mut self) -> Result<(), UnpackError> {
        self.before += self.end as u64;
        (self.start, self.end) = (0, 0);
        self.end = loop {
            match self.inner.read(&mut self.buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::of_reader(error)),
            }
        };
        self.hash.update(&self.buffer[..self.end]);
        Ok(())
    }

    /// The next block.
    pub(super) fn block(&mut self) -> Result<[u8; BLOCK], UnpackError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let piece = self.next((BLOCK - filled) as u64)?;
            if piece.is_empty() {
                return Err(UnpackError::Truncated);
            }
            block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(block)
    }

    /// The next bytes, whose number is known to be small, and the rest of their last block.
    pub(super) fn whole(&mut self, length: u64) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = Vec::new();
        let mut left = length;
        while left > 0 {
            let piece = self.next(left)?;
            if piece.is_empty() {
                return Err(UnpackError::Truncated);
            }
            bytes.extend_from_slice(piece);
            left -= piece.len() as u64;
        }
        self.skip(padding(length))?;
        Ok(bytes)
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<(), UnpackError> {
        let mut left = length;
        while left > 0 {
            let passed = self.next(left)?.len();
            if passed == 0 {
                return Err(UnpackError::Truncated);
            }
            left -= passed as u64;
        }
        Ok(())
    }

    /// Reads what follows the archive, which is some zeros, and tells the digest of the whole.
    pub(super) fn finish(mut self) -> Result<String, UnpackError> {
        let mut trailing = 0;
        loop {
            let piece = self.next(u64::MAX)?;
            if piece.is_empty() {
                break;
            }
            if piece.iter().any(|byte| *byte != 0) {
                return Err(UnpackError::Trailing);
            }
            trailing += piece.len() as u64;
            if trailing > LAYER_TRAILING_BYTES_MAX {
                let what = "bytes after the end of its archive";
                return Err(UnpackError::Limit { what, max: LAYER_TRAILING_BYTES_MAX });
            }
        }
        let mut digest = "sha256:".to_owned();
        for byte in self.hash.finalize() {
            write!(digest, "{byte:02x}").expect("a string takes what is written to it");
        }
        Ok(digest)
    }
}

/// How many bytes fill the last block of a content.
pub(super) fn padding(length: u64) -> u64 {
    let block = BLOCK as u64;
    (block - length % block) % block
}
