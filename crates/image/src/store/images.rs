// SPDX-License-Identifier: Apache-2.0
//! Images: what a reference means here, one small file for each.
//!
//! Files, not a database: there are few, each is written whole and put in place by a rename, and one that is damaged
//! costs that image and no other.

use std::io::{Read, Write};

use oci_spec::image::{Digest, ImageConfiguration, ImageManifest};
use protocol::limits::{
    IMAGE_ID_PREFIX_CHARS_MIN, IMAGE_LAYERS_MAX, IMAGE_RECORD_BYTES_MAX, IMAGE_RECORDS_MAX,
    IMAGE_REFERENCE_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use super::digests;
use super::leases;
use super::lock::Hold;
use super::{Store, StoreError};

const SUFFIX: &str = ".json";

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The reference that it was pulled or loaded by, in full.
    pub reference: String,
    /// The manifest of the platform that was chosen.
    pub manifest_digest: Digest,
    /// The index that the manifest was chosen from, if there was one.
    pub index_digest: Option<Digest>,
    /// The configuration.
    pub config_digest: Digest,
    /// The layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// The platform, as `os/architecture` or `os/architecture/variant`.
    pub platform: String,
    /// When it was pulled or loaded, in seconds since 1970.
    pub pulled: u64,
    /// Bytes of the manifest, the configuration and all layers, as they were sent.
    pub size: u64,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The blob that it was sent as.
    pub blob: Digest,
    /// The digest of the plain tar: the name of the unpacked directory.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// What the store has records of.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The images, by reference.
    pub images: Vec<ImageRecord>,
    /// Records that cannot be read.
    pub broken: Vec<BrokenRecord>,
}

/// A record that cannot be read. [`Store::remove`] takes its file's name too, and a new pull of its reference replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRecord {
    /// The file's name.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

impl Store {
    /// Makes a reference mean an image; what it meant before is forgotten.
    ///
    /// # Errors
    /// A record beyond the bounds, or what the disk says.
    pub fn tag(&self, image: &ImageRecord) -> Result<(), StoreError> {
        check(image)?;
        let text = serde_json::to_vec_pretty(image).expect("a record is plain data");
        let records = &self.inner.records;
        let file = file_of(&image.reference);
        let _shared = self.lock(Hold::Shared)?;
        if records.status(&file)?.is_none() && records.names()?.len() >= IMAGE_RECORDS_MAX {
            let what = "the number of images".to_owned();
            return Err(StoreError::Bound { what, bound: IMAGE_RECORDS_MAX as u64 });
        }
        for number in 0..u32::MAX {
            let fresh = format!("new-{}-{number}", std::process::id());
            let Some(mut new) = records.create(&fresh)? else { continue };
            let written = new.write_all(&text).and_then(|()| new.sync_all());
            if let Err(error) = written {
                records.unlink(&fresh)?;
                return Err(records.error("write", &fresh, error));
            }
            records.rename(&fresh, records, &file)?;
            return records.sync();
        }
        Err(StoreError::Busy(records.path.display().to_string()))
    }

    /// Finds an image by its reference, or by the beginning of the digest of its manifest or configuration.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`], [`StoreError::Unreadable`] for a reference whose record is broken, or what the disk says.
    pub fn find(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        let file = file_of(name);
        if let Some(found) = self.record(&file)? {
            let unreadable =
                |why| StoreError::Unreadable { what: format!("the record {file} of {name}"), why };
            return found.map(Some).map_err(unreadable);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.len() < IMAGE_ID_PREFIX_CHARS_MIN || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let is_meant = |digest: &Digest| digest.digest().starts_with(prefix);
        let images = self.list()?.images.into_iter();
        let mut meant =
            images.filter(|image| is_meant(&image.manifest_digest) || is_meant(&image.config_digest));
        let Some(first) = meant.next() else { return Ok(None) };
        // Several references of one image are one image.
        if meant.any(|other| other.manifest_digest != first.manifest_digest) {
            return Err(StoreError::Ambiguous(name.to_owned()));
        }
        Ok(Some(first))
    }

    /// Lists all images, and the records that cannot be read.
    ///
    /// # Errors
    /// What the disk says.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for file in self.inner.records.names()? {
            if !file.ends_with(SUFFIX) {
                continue;
            }
            match self.record(&file)? {
                Some(Ok(image)) => listing.images.push(image),
                Some(Err(why)) => listing.broken.push(BrokenRecord { file, why }),
                None => {}
            }
        }
        listing.images.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(listing)
    }

    /// Makes a reference mean nothing; says whether it meant something. What it consists of stays until it is collected.
    ///
    /// # Errors
    /// What the disk says.
    pub fn untag(&self, reference: &str) -> Result<bool, StoreError> {
        let _shared = self.lock(Hold::Shared)?;
        self.unlink_record(&file_of(reference))
    }

    pub(super) fn unlink_record(&self, file: &str) -> Result<bool, StoreError> {
        let was_there = self.inner.records.unlink(file)?;
        self.inner.records.sync()?;
        Ok(was_there)
    }

    /// Reads a record, if there is one, and says what is wrong with it, if something is.
    fn record(&self, file: &str) -> Result<Option<Result<ImageRecord, String>>, StoreError> {
        let records = &self.inner.records;
        let Some(size) = records.file_size(file)? else {
            let other = records.status(file)?.map(|_| Err("it is no regular file".to_owned()));
            return Ok(other);
        };
        if size > IMAGE_RECORD_BYTES_MAX {
            return Ok(Some(Err(format!("it has {size} bytes, more than {IMAGE_RECORD_BYTES_MAX}"))));
        }
        let Some(opened) = records.read(file)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = opened.take(IMAGE_RECORD_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| records.error("read", file, error))?;
        Ok(Some(parse(&bytes, file)))
    }

    /// Removes records that a dead process did not finish. The store's lock is held alone.
    pub(super) fn clear_records(&self) -> Result<(), StoreError> {
        let records = &self.inner.records;
        for file in records.names()?.iter().filter(|file| file.starts_with("new-")) {
            records.unlink(file)?;
        }
        Ok(())
    }
}

/// Names the layers of a manifest, with the diff ids that its configuration has for them.
///
/// # Errors
/// [`StoreError::Unreadable`] when the two do not belong together or there are no layers, [`StoreError::Digest`],
/// [`StoreError::Bound`] for too many layers.
pub fn layers_of(manifest: &ImageManifest, configuration: &[u8]) -> Result<Vec<LayerRecord>, StoreError> {
    let digest = manifest.config().digest();
    let configuration =
        ImageConfiguration::from_reader(configuration).map_err(|error| unreadable(digest, &error))?;
    let diff_ids = configuration.rootfs().diff_ids();
    if manifest.layers().len() > IMAGE_LAYERS_MAX {
        let what = format!("the number of layers ({})", manifest.layers().len());
        return Err(StoreError::Bound { what, bound: IMAGE_LAYERS_MAX as u64 });
    }
    if manifest.layers().len() != diff_ids.len() || diff_ids.is_empty() {
        let why = format!("it names {} layers, and the manifest {}", diff_ids.len(), manifest.layers().len());
        return Err(unreadable(digest, &why));
    }
    let both = manifest.layers().iter().zip(diff_ids);
    both.map(|(layer, diff_id)| {
        digests::hex(layer.digest())?;
        let refused = || StoreError::Digest(diff_id.chars().take(100).collect());
        let diff_id: Digest = diff_id.parse().map_err(|_| refused())?;
        digests::hex(&diff_id)?;
        Ok(LayerRecord { blob: layer.digest().clone(), diff_id, size: layer.size() })
    })
    .collect()
}

/// Says what is wrong with a manifest or configuration.
pub(crate) fn unreadable(digest: &Digest, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unreadable { what: digest.to_string(), why: why.to_string() }
}

/// Returns the name of the file of a reference.
pub(super) fn file_of(reference: &str) -> String {
    format!("{}{SUFFIX}", digests::of(reference.as_bytes()).digest())
}

fn parse(bytes: &[u8], file: &str) -> Result<ImageRecord, String> {
    let image: ImageRecord = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check(&image).map_err(|error| error.to_string())?;
    if file_of(&image.reference) != file {
        return Err("it is named after another reference than it holds".to_owned());
    }
    Ok(image)
}

fn check(image: &ImageRecord) -> Result<(), StoreError> {
    let within = |what: &str, found: usize, bound: usize| {
        let error = || StoreError::Bound { what: format!("{what} of an image"), bound: bound as u64 };
        if found <= bound { Ok(()) } else { Err(error()) }
    };
    within("the number of layers", image.layers.len(), IMAGE_LAYERS_MAX)?;
    within("the reference", image.reference.len(), IMAGE_REFERENCE_BYTES_MAX)?;
    within("the platform", image.platform.len(), IMAGE_REFERENCE_BYTES_MAX)?;
    let texts = [&image.reference, &image.platform];
    if image.reference.is_empty() || texts.iter().any(|text| text.chars().any(char::is_control)) {
        let what = "an image record".to_owned();
        return Err(StoreError::Unreadable {
            what,
            why: "its reference is empty, or there are control characters in it or in its platform"
                .to_owned(),
        });
    }
    leases::pins_of(image).map(|_| ())
}
