// SPDX-License-Identifier: Apache-2.0
//! Leases: what a living process needs, and nobody may take.
//!
//! A lease is a file with one name in each line, locked by its holder. Names are added with the store's lock held
//! shared, before what they name is looked for; who collects holds it alone. So what was found after it was pinned stays.
//! The lock of a killed holder is free, and with it what it pinned.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::{Digest, ImageManifest};
use protocol::limits::IMAGE_LEASE_PINS_MAX;

use super::digests;
use super::images::{layers_of, unreadable};
use super::lock::{self, Hold};
use super::{ImageRecord, Inner, LayerRecord, Store, StoreError};

/// Longest line of a lease, in bytes.
const LINE_BYTES_MAX: u64 = 80;

/// Something in the store that is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pin {
    /// A blob, by its digits.
    Blob(String),
    /// A layer, by its digits.
    Layer(String),
}

impl Pin {
    pub(super) fn blob(name: &str) -> Pin {
        Pin::Blob(name.to_owned())
    }

    pub(super) fn layer(name: &str) -> Pin {
        Pin::Layer(name.to_owned())
    }

    fn line(&self) -> String {
        match self {
            Pin::Blob(name) => format!("blob {name}\n"),
            Pin::Layer(name) => format!("layer {name}\n"),
        }
    }

    fn parse(line: &str) -> Option<Pin> {
        let (kind, name) = line.split_once(' ')?;
        match kind {
            "blob" if digests::is_name(name) => Some(Pin::blob(name)),
            "layer" if digests::is_name(name) => Some(Pin::layer(name)),
            _ => None,
        }
    }
}

/// Keeps what an image consists of, as long as this lives and its process does.
#[derive(Debug)]
pub struct Lease {
    store: Arc<Inner>,
    name: String,
    file: File,
    pins: Mutex<BTreeSet<Pin>>,
}

impl Store {
    /// Keeps an image: its manifest, configuration, blobs and layers.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the manifest is not in the store, or what the disk says.
    pub fn lease(&self, manifest: &Digest) -> Result<Lease, StoreError> {
        let name = digests::hex(manifest)?;
        let lease = self.empty_lease()?;
        lease.pin(&[Pin::blob(name)])?;
        let record = self.list()?.images.into_iter().find(|image| image.manifest_digest == *manifest);
        let (pins, layers) = match record {
            Some(record) => (pins_of(&record)?, record.layers),
            None => self.parts_of_manifest(manifest, name)?,
        };
        lease.pin(&pins)?;
        // What was removed before it was pinned is not held by anything.
        for layer in layers {
            let (blob, diff_id) = (digests::hex(&layer.blob)?, digests::hex(&layer.diff_id)?);
            if self.inner.blobs.status(blob)?.is_none() && self.inner.layers.status(diff_id)?.is_none() {
                return Err(StoreError::Missing(layer.blob));
            }
        }
        Ok(lease)
    }

    /// Reads what an image without a record needs.
    fn parts_of_manifest(
        &self,
        digest: &Digest,
        name: &str,
    ) -> Result<(Vec<Pin>, Vec<LayerRecord>), StoreError> {
        let bytes = self.read_blob(&self.descriptor_of(digest)?)?;
        let manifest =
            ImageManifest::from_reader(bytes.as_slice()).map_err(|error| unreadable(digest, &error))?;
        let bytes = self.read_blob(manifest.config())?;
        let layers = layers_of(&manifest, &bytes)?;
        let mut pins = vec![Pin::blob(name), Pin::blob(digests::hex(manifest.config().digest())?)];
        for layer in &layers {
            pins.push(Pin::blob(digests::hex(&layer.blob)?));
            pins.push(Pin::layer(digests::hex(&layer.diff_id)?));
        }
        Ok((pins, layers))
    }

    /// Makes a lease that holds nothing yet.
    pub(super) fn empty_lease(&self) -> Result<Lease, StoreError> {
        let leases = &self.inner.leases;
        let _shared = self.lock(Hold::Shared)?;
        for number in 0..u32::MAX {
            let name = format!("{}-{number}", std::process::id());
            let Some(file) = leases.create(&name)? else { continue };
            let free = lock::if_free(&file).map_err(|error| leases.error("lock", &name, error))?;
            debug_assert!(free, "nobody collects while the store's lock is held shared");
            return Ok(Lease { store: self.inner.clone(), name, file, pins: Mutex::default() });
        }
        Err(StoreError::Busy(leases.path.display().to_string()))
    }

    /// Returns what all living leases hold. The store's lock is held alone.
    pub(super) fn leased(&self) -> Result<BTreeSet<Pin>, StoreError> {
        let leases = &self.inner.leases;
        let mut pins = BTreeSet::new();
        for name in leases.names()? {
            let Some(file) = leases.read(&name)? else { continue };
            if lock::if_free(&file).map_err(|error| leases.error("lock", &name, error))? {
                continue;
            }
            let mut text = String::new();
            let most = IMAGE_LEASE_PINS_MAX as u64 * LINE_BYTES_MAX;
            file.take(most).read_to_string(&mut text).map_err(|error| leases.error("read", &name, error))?;
            for line in text.lines() {
                let unreadable = || StoreError::Unreadable {
                    what: leases.path.join(&name).display().to_string(),
                    why: "a line names neither a blob nor a layer".to_owned(),
                };
                pins.insert(Pin::parse(line).ok_or_else(unreadable)?);
            }
        }
        Ok(pins)
    }

    /// Removes the leases of the dead. The store's lock is held alone.
    pub(super) fn clear_leases(&self) -> Result<(), StoreError> {
        let leases = &self.inner.leases;
        for name in leases.names()? {
            let Some(file) = leases.read(&name)? else { continue };
            if lock::if_free(&file).map_err(|error| leases.error("lock", &name, error))? {
                leases.unlink(&name)?;
            }
        }
        Ok(())
    }
}

impl Lease {
    /// Adds to what this lease holds.
    pub(super) fn pin(&self, wanted: &[Pin]) -> Result<(), StoreError> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: BTreeSet<&Pin> = wanted.iter().filter(|pin| !pins.contains(pin)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        if pins.len() + fresh.len() > IMAGE_LEASE_PINS_MAX {
            let what = "the number of blobs and layers of one lease".to_owned();
            return Err(StoreError::Bound { what, bound: IMAGE_LEASE_PINS_MAX as u64 });
        }
        let lines: String = fresh.iter().map(|pin| pin.line()).collect();
        let _shared = lock::of_store(&self.store.root, Hold::Shared)?;
        let write = (&self.file).write_all(lines.as_bytes());
        write.map_err(|error| self.store.leases.error("write", &self.name, error))?;
        pins.extend(fresh.into_iter().cloned());
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What cannot be removed now is free all the same, and is cleared when the store is next opened.
        let _ = self.store.leases.unlink(&self.name);
    }
}

/// Names everything that an image with a record consists of.
pub(super) fn pins_of(record: &ImageRecord) -> Result<Vec<Pin>, StoreError> {
    let mut pins = vec![
        Pin::blob(digests::hex(&record.manifest_digest)?),
        Pin::blob(digests::hex(&record.config_digest)?),
    ];
    if let Some(index) = &record.index_digest {
        pins.push(Pin::blob(digests::hex(index)?));
    }
    for layer in &record.layers {
        pins.push(Pin::blob(digests::hex(&layer.blob)?));
        pins.push(Pin::layer(digests::hex(&layer.diff_id)?));
    }
    Ok(pins)
}
