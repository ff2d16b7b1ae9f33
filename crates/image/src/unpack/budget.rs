// SPDX-License-Identifier: Apache-2.0
//! What all layers of one image together may use.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::limits::{IMAGE_ENTRIES_MAX, IMAGE_UNPACKED_BYTES_MAX};

use super::error::UnpackError;

/// What all layers of one image together may use; each layer that is unpacked takes its part, several at once too.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    bytes_left: AtomicU64,
    entries_max: u64,
    entries_left: AtomicU64,
}

impl Budget {
    /// The budget of one image.
    pub fn for_image() -> Budget {
        Budget::new(IMAGE_UNPACKED_BYTES_MAX, IMAGE_ENTRIES_MAX)
    }

    /// A smaller budget, for a store with less room; never more than [`Budget::for_image`].
    pub fn new(bytes: u64, entries: u64) -> Budget {
        let (bytes, entries) = (bytes.min(IMAGE_UNPACKED_BYTES_MAX), entries.min(IMAGE_ENTRIES_MAX));
        Budget {
            bytes_max: bytes,
            bytes_left: AtomicU64::new(bytes),
            entries_max: entries,
            entries_left: AtomicU64::new(entries),
        }
    }

    /// Bytes that are left.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_left.load(Ordering::Relaxed)
    }

    /// Entries that are left.
    pub fn entries_left(&self) -> u64 {
        self.entries_left.load(Ordering::Relaxed)
    }

    pub(super) fn take_bytes(&self, bytes: u64) -> Result<(), UnpackError> {
        let over = UnpackError::Limit { what: "bytes, unpacked", max: self.bytes_max };
        take(&self.bytes_left, bytes).ok_or(over)
    }

    pub(super) fn take_entry(&self) -> Result<(), UnpackError> {
        let over = UnpackError::Limit { what: "entries", max: self.entries_max };
        take(&self.entries_left, 1).ok_or(over)
    }
}

/// Takes a part of what is left, if there is as much. Nothing else is read by who sees the number, so it needs no order.
fn take(left: &AtomicU64, part: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(part)).ok().map(drop)
}
