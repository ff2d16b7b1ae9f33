// SPDX-License-Identifier: Apache-2.0
//! What all layers of one image together may use.

use protocol::limits::{IMAGE_ENTRIES_MAX, IMAGE_UNPACKED_BYTES_MAX};

use super::error::UnpackError;

/// What all layers of one image together may use; each layer that is unpacked takes its part.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    bytes_left: u64,
    entries_max: u64,
    entries_left: u64,
}

impl Budget {
    /// The budget of one image.
    pub fn for_image() -> Budget {
        Budget::new(IMAGE_UNPACKED_BYTES_MAX, IMAGE_ENTRIES_MAX)
    }

    /// A smaller budget, for a store with less room; never more than [`Budget::for_image`].
    pub fn new(bytes: u64, entries: u64) -> Budget {
        let (bytes, entries) = (bytes.min(IMAGE_UNPACKED_BYTES_MAX), entries.min(IMAGE_ENTRIES_MAX));
        Budget { bytes_max: bytes, bytes_left: bytes, entries_max: entries, entries_left: entries }
    }

    /// Bytes that are left.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// Entries that are left.
    pub fn entries_left(&self) -> u64 {
        self.entries_left
    }

    pub(super) fn take_bytes(&mut self, bytes: u64) -> Result<(), UnpackError> {
        let over = UnpackError::Limit { what: "bytes, unpacked", max: self.bytes_max };
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(over)?;
        Ok(())
    }

    pub(super) fn take_entry(&mut self) -> Result<(), UnpackError> {
        let over = UnpackError::Limit { what: "entries", max: self.entries_max };
        self.entries_left = self.entries_left.checked_sub(1).ok_or(over)?;
        Ok(())
    }
}
