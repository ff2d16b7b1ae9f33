// SPDX-License-Identifier: Apache-2.0
//! Collects what nothing needs: no record, no lease, and nobody who is fetching or unpacking it.
//!
//! Marking and sweeping happen with the store's lock held alone, so nobody pins or tags in between. A layer is only
//! renamed away then; its files are removed afterwards, when others can go on.

use std::collections::BTreeSet;

use oci_spec::image::Digest;

use super::digests;
use super::images::{self, BrokenRecord, ImageRecord};
use super::leases::{self, Pin};
use super::lock::{self, Hold};
use super::{Store, StoreError};

/// What to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// What belongs to no image.
    Loose,
    /// That, and every image that no lease holds.
    Images,
}

/// What was collected.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// References that mean nothing any more.
    pub images: Vec<String>,
    /// Blobs that are gone, those half written among them.
    pub blobs: usize,
    /// Layers that are gone.
    pub layers: usize,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Records that cannot be read. While there are any nobody knows what they need: blobs and layers stay.
    pub broken: Vec<BrokenRecord>,
}

/// What became of an image that was removed.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The image; none if its record could not be read.
    pub image: Option<ImageRecord>,
    /// Whether something of it stays because a lease holds it. It goes with the next prune after the lease.
    pub in_use: bool,
    /// What went with it.
    pub pruned: Pruned,
}

impl Store {
    /// Makes a reference mean nothing and removes what only that image needed; `None` when there is no such reference.
    /// Takes the file name of a broken record too.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(&self, reference: &str) -> Result<Option<Removed>, StoreError> {
        let alone = self.lock(Hold::Alone)?;
        let listing = self.list()?;
        let image = listing.images.into_iter().find(|image| image.reference == reference);
        let file = match listing.broken.iter().find(|broken| broken.file == reference) {
            Some(broken) => broken.file.clone(),
            None => images::file_of(reference),
        };
        if !self.unlink_record(&file)? {
            return Ok(None);
        }
        let needed = self.needed()?;
        let own: BTreeSet<Pin> = match &image {
            Some(image) => leases::pins_of(image)?.into_iter().collect(),
            None => BTreeSet::new(),
        };
        let in_use = own.iter().any(|pin| needed.leased.contains(pin) && !needed.recorded.contains(pin));
        let mut pruned = self.sweep(&needed, Some(&own))?;
        drop(alone);
        pruned.bytes += self.clear_removing()?;
        pruned.images.push(reference.to_owned());
        Ok(Some(Removed { image, in_use, pruned }))
    }

    /// Collects.
    ///
    /// # Errors
    /// What the disk says; what was collected until then is gone.
    pub fn prune(&self, what: Prune) -> Result<Pruned, StoreError> {
        let alone = self.lock(Hold::Alone)?;
        self.clear_records()?;
        self.clear_leases()?;
        let untagged = match what {
            Prune::Loose => Vec::new(),
            Prune::Images => self.untag_unused()?,
        };
        let mut pruned = self.sweep(&self.needed()?, None)?;
        drop(alone);
        self.clear_making()?;
        pruned.bytes += self.clear_removing()?;
        pruned.images = untagged;
        Ok(pruned)
    }

    /// Removes blobs that were added for nothing, unless somebody needs them by now.
    pub(crate) fn take_back(&self, blobs: &[Digest]) -> Result<(), StoreError> {
        let own = blobs.iter().map(|digest| Ok(Pin::blob(digests::hex(digest)?)));
        let own: BTreeSet<Pin> = own.collect::<Result<_, StoreError>>()?;
        let _alone = self.lock(Hold::Alone)?;
        self.sweep(&self.needed()?, Some(&own)).map(|_| ())
    }

    fn untag_unused(&self) -> Result<Vec<String>, StoreError> {
        let leased = self.leased()?;
        let mut untagged = Vec::new();
        for image in self.list()?.images {
            if !leased.contains(&Pin::blob(digests::hex(&image.manifest_digest)?)) {
                self.unlink_record(&images::file_of(&image.reference))?;
                untagged.push(image.reference);
            }
        }
        Ok(untagged)
    }

    /// Marks: what records and living leases need.
    fn needed(&self) -> Result<Needed, StoreError> {
        let listing = self.list()?;
        let mut recorded = BTreeSet::new();
        for image in &listing.images {
            recorded.extend(leases::pins_of(image)?);
        }
        Ok(Needed { recorded, leased: self.leased()?, broken: listing.broken })
    }

    /// Removes what is not needed, of `only` if that is given.
    fn sweep(&self, needed: &Needed, only: Option<&BTreeSet<Pin>>) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned { broken: needed.broken.clone(), ..Pruned::default() };
        let takes = |pin: &Pin| needed.lets_go(pin) && only.is_none_or(|only| only.contains(pin));
        let inner = &self.inner;
        for name in inner.blobs.names()?.into_iter().filter(|name| takes(&Pin::blob(name))) {
            pruned.bytes += inner.blobs.file_size(&name)?.unwrap_or_default();
            pruned.blobs += usize::from(inner.blobs.unlink(&name)?);
        }
        for name in inner.layers.names()?.into_iter().filter(|name| takes(&Pin::layer(name))) {
            pruned.layers += usize::from(self.discard(&inner.layers, &name)?);
        }
        if only.is_none() {
            self.sweep_partial(&mut pruned)?;
        }
        Ok(pruned)
    }

    /// Removes blobs that nobody goes on writing.
    fn sweep_partial(&self, pruned: &mut Pruned) -> Result<(), StoreError> {
        let partial = &self.inner.partial;
        for name in partial.names()? {
            let Some(file) = partial.read(&name)? else { continue };
            let free = lock::if_free(&file).map_err(|error| partial.error("lock", &name, error))?;
            if free && partial.is(&name, &file)? {
                pruned.bytes += partial.file_size(&name)?.unwrap_or_default();
                pruned.blobs += usize::from(partial.unlink(&name)?);
            }
        }
        Ok(())
    }
}

struct Needed {
    recorded: BTreeSet<Pin>,
    leased: BTreeSet<Pin>,
    broken: Vec<BrokenRecord>,
}

impl Needed {
    fn lets_go(&self, pin: &Pin) -> bool {
        self.broken.is_empty() && !self.recorded.contains(pin) && !self.leased.contains(pin)
    }
}
