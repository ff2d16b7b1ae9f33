// SPDX-License-Identifier: Apache-2.0
//! What images are made of, on the disk of this machine.
//!
//! This module owns every path below its directory; names that come from outside are digests, checked to be `sha256:`
//! and 64 hexadecimal digits before they become names.
//!
//! ```text
//! <home>/images/
//!   host-v1/                    the embedded default image, see crate::host
//!   store-v1/          0700     all that follows
//!     lock                      held shared for a step that adds, alone for a step that collects (lock.rs)
//!     blobs/<hex>               what a registry or archive sent, by the sha256 of its bytes (blobs.rs)
//!     partial/<hex>             a blob that is being written, locked by its writer; kept to go on from
//!     layers/<hex>/root/        an unpacked layer, by its diff id; comes and goes by one rename (layers.rs)
//!     making/<hex>/root/        a layer that is being unpacked; its maker holds a lock on making/<hex>
//!     removing/<n>/             a layer on its way out: nobody's any more
//!     records/<hex>.json        an image, by the sha256 of its reference (images.rs)
//!     leases/<n>                what a living process needs, one name in each line, locked by it (leases.rs)
//! ```
//!
//! Several processes use one store at the same time. All locks are the kernel's (`flock`), so those of a killed process
//! are free at once, and what it left half made is told from what is being made by its lock. What appears in `blobs`,
//! `layers` and `records` appears by a rename, after it was verified and written to the disk: whole or not at all.

mod blobs;
pub(crate) mod digests;
mod folder;
mod images;
mod layers;
mod leases;
mod lock;
mod prune;
mod removal;

pub use blobs::{BlobWriter, VerifiedReader};
pub use images::{BrokenRecord, ImageRecord, LayerRecord, Listing, layers_of};
pub use layers::LayerError;
pub use leases::Lease;
pub use prune::{Prune, Pruned, Removed};

use std::io;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Digest;

use folder::Folder;
use leases::Pin;
use lock::{Hold, StoreLock};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the kernel, refused.
    #[error("cannot {act} {what}")]
    Disk {
        /// What was tried.
        act: &'static str,
        /// The path.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A digest that is not `sha256:` and 64 hexadecimal digits.
    #[error("digest {0} is not supported: only sha256 is")]
    Digest(String),
    /// A blob that is not there.
    #[error("{0} is not in the image store")]
    Missing(Digest),
    /// Bytes that are not what their digest says.
    #[error(
        "{0} is not what was received or stored: its bytes have the digest sha256:{1}; they were removed"
    )]
    Mismatch(Digest, String),
    /// More or fewer bytes than announced.
    #[error("{what} has {found} bytes, not {wanted}")]
    Size {
        /// The digest, or the layer.
        what: String,
        /// How many there should be.
        wanted: u64,
        /// How many there are, at least.
        found: u64,
    },
    /// Something is beyond a bound of `protocol::limits`.
    #[error("{what} is beyond the bound of {bound}")]
    Bound {
        /// What it is.
        what: String,
        /// The bound.
        bound: u64,
    },
    /// A record, manifest or configuration that says nothing.
    #[error("cannot read {what}: {why}")]
    Unreadable {
        /// The file or digest.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A beginning of a digest that more than one image has.
    #[error("{0} is the beginning of the digests of several images")]
    Ambiguous(String),
    /// Somebody holds a lock for longer than the bound.
    #[error("{0} is kept busy by another process")]
    Busy(String),
}

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    /// What this handle has touched stays: see [`Store::holding`].
    held: Option<Arc<Lease>>,
}

#[derive(Debug)]
struct Inner {
    root: Folder,
    blobs: Folder,
    partial: Folder,
    layers: Folder,
    making: Folder,
    removing: Folder,
    records: Folder,
    leases: Folder,
}

impl Store {
    /// Opens the store below `images`, makes it where there is none, and clears what dead processes left half made.
    ///
    /// # Errors
    /// What the disk says, or a store that belongs to another user.
    pub fn open(images: &Path) -> Result<Store, StoreError> {
        let root = Folder::open(&images.join("store-v1"))?;
        let inner = Inner {
            blobs: root.child("blobs")?,
            partial: root.child("partial")?,
            layers: root.child("layers")?,
            making: root.child("making")?,
            removing: root.child("removing")?,
            records: root.child("records")?,
            leases: root.child("leases")?,
            root,
        };
        let store = Store { inner: Arc::new(inner), held: None };
        store.clear_leftovers()?;
        Ok(store)
    }

    /// Returns a handle that holds on to what it touches: whatever blob or layer is found, opened, written or added
    /// through it, or through its clones, is taken by nobody as long as one of them lives. A pull, or the load of an
    /// archive, works with one until its image has a record.
    ///
    /// # Errors
    /// What the disk says.
    pub fn holding(&self) -> Result<Store, StoreError> {
        Ok(Store { inner: self.inner.clone(), held: Some(Arc::new(self.empty_lease()?)) })
    }

    /// Returns a handle that holds on to nothing.
    pub(crate) fn without_holding(&self) -> Store {
        Store { inner: self.inner.clone(), held: None }
    }

    /// Takes the store's lock for one step.
    fn lock(&self, hold: Hold) -> Result<StoreLock, StoreError> {
        lock::of_store(&self.inner.root, hold)
    }

    /// Keeps a blob or layer for this handle, before it is looked for.
    fn hold(&self, pin: Pin) -> Result<(), StoreError> {
        match &self.held {
            Some(lease) => lease.pin(&[pin]),
            None => Ok(()),
        }
    }

    /// Clears what no living process works on: layers half made, layers half removed, records half written, leases of
    /// the dead. Blobs half written stay, to go on from.
    fn clear_leftovers(&self) -> Result<(), StoreError> {
        if let Some(_alone) = lock::of_store_if_free(&self.inner.root)? {
            self.clear_records()?;
            self.clear_leases()?;
        }
        self.clear_making()?;
        self.clear_removing_if_free()
    }
}
