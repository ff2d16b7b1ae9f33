// SPDX-License-Identifier: Apache-2.0
//! Layers: unpacked directories by their diff id, which is the digest of the plain tar that they came as.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use oci_spec::image::Digest;
use protocol::limits::IMAGE_WORK_WAIT;
use rustix::fs::Mode;

use super::digests;
use super::folder::Folder;
use super::leases::Pin;
use super::lock::{self, Hold};
use super::{Store, StoreError};

/// The tree, in a directory that is only ours: a rename of the tree itself would need the right to write to it.
const ROOT: &str = "root";

/// Why a layer was not added.
#[derive(Debug, thiserror::Error)]
pub enum LayerError<E: Error + 'static> {
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be unpacked.
    #[error("cannot unpack the layer {0}")]
    Unpack(Digest, #[source] E),
    /// It is another one than the image's configuration says.
    #[error("the layer {0} was unpacked and is {1}; it was removed")]
    Other(Digest, Digest),
}

impl Store {
    /// Returns the directory of a layer, if it is there.
    pub fn layer(&self, diff_id: &Digest) -> Option<PathBuf> {
        let name = digests::hex(diff_id).ok()?;
        self.hold(Pin::layer(name)).ok()?;
        self.layer_path(name).ok().flatten()
    }

    /// Returns the directory of a layer, unpacked if need be: `unpack` fills the empty directory that it is given and
    /// returns the digest of the plain tar that it read. While somebody else unpacks it, this waits: the work is done
    /// once.
    ///
    /// # Errors
    /// [`LayerError`]; then nothing is left of the layer.
    pub fn add_layer<E: Error + 'static>(
        &self,
        diff_id: &Digest,
        unpack: impl FnOnce(BorrowedFd<'_>) -> Result<Digest, E>,
    ) -> Result<PathBuf, LayerError<E>> {
        let name = digests::hex(diff_id)?;
        self.hold(Pin::layer(name))?;
        let (layers, making) = (&self.inner.layers, &self.inner.making);
        let Some(place) = self.place_for_layer(name)? else {
            return Ok(layers.path.join(name).join(ROOT));
        };
        if let Err(error) = unpack_into(&place, diff_id, unpack) {
            // What cannot be removed now is cleared when the store is next opened: the first failure is what is told.
            let _ = self.discard(making, name);
            drop(place);
            let _ = self.clear_removing();
            return Err(error);
        }
        // One call for the whole tree: after it the layer survives a loss of power, not only the end of a process.
        rustix::fs::syncfs(&place.fd).map_err(|error| making.error("write to the disk", name, error))?;
        let _shared = self.lock(Hold::Shared)?;
        making.rename(name, layers, name)?;
        layers.sync()?;
        Ok(layers.path.join(name).join(ROOT))
    }

    /// Returns an empty place to unpack into, locked; `None` when the layer is there.
    fn place_for_layer(&self, name: &str) -> Result<Option<Folder>, StoreError> {
        let making = &self.inner.making;
        loop {
            if self.layer_path(name)?.is_some() {
                return Ok(None);
            }
            making.make(name)?;
            // Between the two calls whoever worked on it may have finished.
            let Some(place) = making.existing(name)? else { continue };
            lock::wait(&place.fd, Hold::Alone, IMAGE_WORK_WAIT, making, name)?;
            // Whoever had the lock may have finished or given up, and the place is now another or none.
            if !making.is(name, &place.fd)? {
                continue;
            }
            let is_there = self.layer_path(name)?.is_some();
            if !is_there && place.names()?.is_empty() {
                return Ok(Some(place));
            }
            // What a dead process left, or a place made just after somebody else had finished.
            self.discard(making, name)?;
            drop(place);
            self.clear_removing()?;
        }
    }

    fn layer_path(&self, name: &str) -> Result<Option<PathBuf>, StoreError> {
        let layers = &self.inner.layers;
        Ok(layers.status(name)?.map(|_| layers.path.join(name).join(ROOT)))
    }

    /// Clears layers that no living process is unpacking; returns how many.
    pub(super) fn clear_making(&self) -> Result<usize, StoreError> {
        let making = &self.inner.making;
        let mut cleared = 0;
        for name in making.names()? {
            let Some(place) = making.existing(&name)? else { continue };
            let free = lock::if_free(&place.fd).map_err(|error| making.error("lock", &name, error))?;
            if free && making.is(&name, &place.fd)? {
                cleared += usize::from(self.discard(making, &name)?);
            }
        }
        Ok(cleared)
    }
}

fn unpack_into<E: Error + 'static>(
    place: &Folder,
    diff_id: &Digest,
    unpack: impl FnOnce(BorrowedFd<'_>) -> Result<Digest, E>,
) -> Result<(), LayerError<E>> {
    let root = place.child(ROOT)?;
    // What a layer does not say about its root is as usual.
    let usual = Mode::from_raw_mode(0o755);
    rustix::fs::fchmod(&root.fd, usual).map_err(|error| place.error("make", ROOT, error))?;
    let found = unpack(root.fd.as_fd()).map_err(|error| LayerError::Unpack(diff_id.clone(), error))?;
    if found == *diff_id { Ok(()) } else { Err(LayerError::Other(diff_id.clone(), found)) }
}
