// SPDX-License-Identifier: Apache-2.0
//! Docker archives: `manifest.json` names files for the configuration and the layers of each image.
//!
//! They have no manifest in the sense of OCI, so one is made, the same for the same archive.

use std::io::Read;

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};
use protocol::limits::IMAGE_LAYERS_MAX;
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::contents::Contents;
use super::load::{Image, Intake, LoadOptions, check_count, check_small};
use super::{ArchiveError, wrong};
use crate::store::ImageRecord;
use crate::store::digests::{self, Hasher};

/// The file that names the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image in [`MANIFEST`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// Loads the images of a docker archive.
pub(super) fn load(
    intake: &mut Intake,
    contents: &Contents,
    options: &LoadOptions<'_>,
) -> Result<Vec<ImageRecord>, ArchiveError> {
    let entries: Vec<Entry> =
        serde_json::from_slice(&contents.small(MANIFEST)?).map_err(|error| wrong(MANIFEST, error))?;
    check_count(entries.len(), options)?;
    let mut records = Vec::new();
    for entry in &entries {
        let image = image(intake, contents, entry)?;
        records.extend(image.records(entry.repo_tags.as_deref().unwrap_or_default(), options)?);
    }
    if records.len() > protocol::limits::ARCHIVE_IMAGES_MAX {
        let bound = protocol::limits::ARCHIVE_IMAGES_MAX as u64;
        return Err(ArchiveError::Bound { what: "the number of names".to_owned(), bound });
    }
    Ok(records)
}

fn image(intake: &mut Intake, contents: &Contents, entry: &Entry) -> Result<Image, ArchiveError> {
    if entry.layers.len() > IMAGE_LAYERS_MAX {
        let what = format!("the number of layers ({})", entry.layers.len());
        return Err(ArchiveError::Bound { what, bound: IMAGE_LAYERS_MAX as u64 });
    }
    let config = contents.small(&entry.config)?;
    let config_descriptor =
        Descriptor::new(MediaType::ImageConfig, config.len() as u64, digests::of(&config));
    let mut layers = Vec::new();
    for name in &entry.layers {
        layers.push(layer(contents, name)?);
    }
    let manifest = manifest(config_descriptor.clone(), layers.clone());
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digests::of(&bytes));
    check_small(&descriptor)?;
    let image = Image::new(descriptor.clone(), None, &manifest, &config)?;
    for ((name, layer), known) in entry.layers.iter().zip(&layers).zip(&image.layers) {
        // A plain layer's digest is its diff id; that of a compressed one shows when it is unpacked.
        if *layer.media_type() == MediaType::ImageLayer && known.diff_id != *layer.digest() {
            return Err(wrong(name, format!("it is {}, not {}", layer.digest(), known.diff_id)));
        }
        intake.add(layer, || contents.need(name))?;
    }
    intake.add_from(&config_descriptor, &mut config.as_slice())?;
    intake.add_from(&descriptor, &mut bytes.as_slice())?;
    Ok(image)
}

/// Says what a layer of the archive is.
fn layer(contents: &Contents, name: &str) -> Result<Descriptor, ArchiveError> {
    let mut content = contents.need(name)?;
    let size = content.size();
    let (digest, compression) = measure(&mut content)?;
    Ok(Descriptor::new(media_type(compression), size, digest))
}

/// Reads to the end, and says what the digest and the compression are.
pub(super) fn measure(from: &mut dyn Read) -> Result<(oci_spec::image::Digest, Compression), ArchiveError> {
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; 128 * 1024];
    let mut first = Vec::new();
    loop {
        let read = from.read(&mut chunk).map_err(ArchiveError::Read)?;
        if read == 0 {
            return Ok((digests::from_hex(&hasher.finish()), Compression::of(&first)));
        }
        if first.len() < 4 {
            first.extend_from_slice(&chunk[..read.min(4)]);
        }
        hasher.update(&chunk[..read]);
    }
}

/// Returns the media type of a layer.
pub(super) fn media_type(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    }
}

/// Makes a manifest.
pub(super) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> ImageManifest {
    ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .expect("all that a manifest must have is given")
}
