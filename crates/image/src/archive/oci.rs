// SPDX-License-Identifier: Apache-2.0
//! OCI image layouts (`image-layout.md` of the OCI image specification), as a directory or a tar of one.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, ImageIndex, ImageManifest, MediaType, OciLayout};
use protocol::limits::{ARCHIVE_IMAGES_MAX, ARCHIVE_INDEX_DEPTH_MAX};

use super::contents::Contents;
use super::load::{Image, Intake, LoadOptions, check_count, check_small};
use super::{ArchiveError, wrong};
use crate::store::ImageRecord;

/// The file that says that this is a layout.
pub(super) const LAYOUT: &str = "oci-layout";
/// The file that names the images.
pub(super) const INDEX: &str = "index.json";
/// The annotation with a name, as containerd and Docker write it: the whole reference.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation with a name, as the specification has it: often a tag alone.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Loads the images of a layout.
pub(super) fn load(
    intake: &mut Intake,
    contents: &Contents,
    options: &LoadOptions<'_>,
) -> Result<Vec<ImageRecord>, ArchiveError> {
    let layout = contents.small(LAYOUT)?;
    let layout = OciLayout::from_reader(layout.as_slice()).map_err(|error| wrong(LAYOUT, error))?;
    if layout.image_layout_version() != "1.0.0" {
        return Err(wrong(LAYOUT, format!("its version is {}, not 1.0.0", layout.image_layout_version())));
    }
    let index = contents.small(INDEX)?;
    let index = ImageIndex::from_reader(index.as_slice()).map_err(|error| wrong(INDEX, error))?;
    if index.manifests().len() > ARCHIVE_IMAGES_MAX {
        let what = "the number of images".to_owned();
        return Err(ArchiveError::Bound { what, bound: ARCHIVE_IMAGES_MAX as u64 });
    }
    let groups = by_name(index.manifests());
    check_count(groups.len(), options)?;
    let mut records = Vec::new();
    for (name, candidates) in groups {
        let chosen = choose(&candidates, options.platform)?.clone();
        let image = image(intake, contents, chosen, options)?;
        let names: Vec<String> = name.map(str::to_owned).into_iter().collect();
        records.extend(image.records(&names, options)?);
    }
    Ok(records)
}

/// Puts together what has one name, as an image for several platforms; what has no name counts if nothing has one.
fn by_name(manifests: &[Descriptor]) -> BTreeMap<Option<&str>, Vec<&Descriptor>> {
    let mut groups: BTreeMap<Option<&str>, Vec<&Descriptor>> = BTreeMap::new();
    for manifest in manifests {
        let annotations = manifest.annotations().as_ref();
        let name = annotations.and_then(|all| all.get(CONTAINERD_NAME).or_else(|| all.get(REF_NAME)));
        groups.entry(name.map(String::as_str)).or_default().push(manifest);
    }
    if groups.len() > 1 {
        groups.remove(&None);
    }
    groups
}

/// Chooses the descriptor for a platform. A single one that says nothing about platforms is meant for all.
fn choose<'a>(candidates: &[&'a Descriptor], platform: &str) -> Result<&'a Descriptor, ArchiveError> {
    if let [only] = candidates
        && only.platform().is_none()
    {
        return Ok(only);
    }
    let found = candidates.iter().find(|candidate| is_for(candidate, platform));
    found.copied().ok_or_else(|| ArchiveError::Platform(platform.to_owned()))
}

fn is_for(descriptor: &Descriptor, platform: &str) -> bool {
    let Some(offered) = descriptor.platform() else { return false };
    let base = format!("{}/{}", offered.os(), offered.architecture());
    let Some(wanted) = platform.strip_prefix(&base) else { return false };
    match (wanted.strip_prefix('/'), offered.variant()) {
        (Some(wanted), Some(offered)) => wanted == offered,
        // Where one side says nothing about the variant, any will do.
        (Some(_), None) => true,
        (None, _) => wanted.is_empty(),
    }
}

/// Takes an image into the store, from its index or manifest on.
fn image(
    intake: &mut Intake,
    contents: &Contents,
    mut descriptor: Descriptor,
    options: &LoadOptions<'_>,
) -> Result<Image, ArchiveError> {
    let mut outermost = None;
    for _ in 0..ARCHIVE_INDEX_DEPTH_MAX {
        let bytes = json(intake, contents, &descriptor)?;
        if !is_index(&descriptor) {
            return image_of_manifest(intake, contents, (descriptor, outermost), &bytes);
        }
        let what = descriptor.digest().to_string();
        let index = ImageIndex::from_reader(bytes.as_slice()).map_err(|error| wrong(&what, error))?;
        let candidates: Vec<&Descriptor> = index.manifests().iter().collect();
        let chosen = choose(&candidates, options.platform)?.clone();
        outermost.get_or_insert(descriptor.digest().clone());
        descriptor = chosen;
    }
    Err(ArchiveError::Bound {
        what: "the depth of indexes".to_owned(),
        bound: ARCHIVE_INDEX_DEPTH_MAX as u64,
    })
}

fn image_of_manifest(
    intake: &mut Intake,
    contents: &Contents,
    (descriptor, index): (Descriptor, Option<Digest>),
    bytes: &[u8],
) -> Result<Image, ArchiveError> {
    let what = descriptor.digest().to_string();
    let manifest = ImageManifest::from_reader(bytes).map_err(|error| wrong(&what, error))?;
    let config = json(intake, contents, manifest.config())?;
    let image = Image::new(descriptor, index, &manifest, &config)?;
    for layer in manifest.layers() {
        intake.add(layer, || contents.need(&path_of(layer.digest())?))?;
    }
    Ok(image)
}

/// Takes a small blob into the store and reads it.
fn json(intake: &mut Intake, contents: &Contents, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
    check_small(descriptor)?;
    intake.add(descriptor, || contents.need(&path_of(descriptor.digest())?))?;
    Ok(intake.store.read_blob(descriptor)?)
}

fn is_index(descriptor: &Descriptor) -> bool {
    match descriptor.media_type() {
        MediaType::ImageIndex => true,
        other => other.to_string() == "application/vnd.docker.distribution.manifest.list.v2+json",
    }
}

/// Returns the name of the file of a blob.
pub(super) fn path_of(digest: &Digest) -> Result<String, ArchiveError> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(format!("blobs/sha256/{}", digest.digest())),
        _ => Err(wrong("a digest", "only sha256 is supported")),
    }
}
