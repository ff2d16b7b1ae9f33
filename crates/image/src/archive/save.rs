// SPDX-License-Identifier: Apache-2.0
//! From the store to an archive: the same bytes for the same images.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use oci_spec::image::{Descriptor, Digest, ImageManifest, MediaType};
use serde_json::json;
use tar::{EntryType, Header};

use super::compression::{self, Compression, gzip};
use super::docker::{self, Entry};
use super::oci::{self, path_of};
use super::{ArchiveError, wrong};
use crate::store::digests::{self, Hasher};
use crate::store::{ImageRecord, Store, StoreError};

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A tar of an OCI image layout; its layers are compressed as they came, for their digests are the image's.
    Oci,
    /// As `docker load` reads it; its layers are compressed with gzip.
    Docker,
}

/// Writes images as an archive. Bytes that turn out to be damaged end it with an error: what was written then is no
/// archive.
///
/// # Errors
/// What is missing or damaged in the store, or what the writer says.
pub fn save(
    store: &Store,
    images: &[ImageRecord],
    format: Format,
    writer: &mut dyn Write,
) -> Result<(), ArchiveError> {
    let store = store.holding()?;
    let mut archive = Archive { writer, written: BTreeSet::new() };
    match format {
        Format::Oci => save_oci(&store, images, &mut archive)?,
        Format::Docker => save_docker(&store, images, &mut archive)?,
    }
    archive.end()
}

fn save_oci(store: &Store, images: &[ImageRecord], archive: &mut Archive<'_>) -> Result<(), ArchiveError> {
    archive.small("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut manifests = Vec::new();
    let mut parts = Vec::new();
    for image in images {
        let (descriptor, manifest) = manifest_of(store, image)?;
        let names = [oci::REF_NAME, oci::CONTAINERD_NAME].map(|key| (key, &image.reference));
        manifests.push(json!({
            "mediaType": media_type_of(&manifest),
            "digest": descriptor.digest(),
            "size": descriptor.size(),
            "annotations": std::collections::BTreeMap::from(names),
        }));
        parts.push(descriptor);
        parts.push(manifest.config().clone());
        parts.extend(manifest.layers().iter().cloned());
    }
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests });
    archive.small(oci::INDEX, index.to_string().as_bytes())?;
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    for part in parts {
        let name = path_of(part.digest())?;
        if archive.is_new(&name) {
            let mut reader = store.open_blob(&part)?;
            archive.file(&name, part.size(), &mut reader)?;
        }
    }
    Ok(())
}

/// A manifest need not repeat what type it is of; those without are OCI's.
fn media_type_of(manifest: &ImageManifest) -> MediaType {
    manifest.media_type().clone().unwrap_or(MediaType::ImageManifest)
}

fn save_docker(store: &Store, images: &[ImageRecord], archive: &mut Archive<'_>) -> Result<(), ArchiveError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known: HashMap<Digest, usize> = HashMap::new();
    for image in images {
        let tag = docker_tag(&image.reference);
        if let Some(entry) = known.get(&image.manifest_digest) {
            entries[*entry].repo_tags.get_or_insert_default().extend(tag);
            continue;
        }
        known.insert(image.manifest_digest.clone(), entries.len());
        entries.push(save_docker_image(store, image, archive)?);
    }
    let text = serde_json::to_vec(&entries).expect("names are plain data");
    archive.small(docker::MANIFEST, &text)
}

fn save_docker_image(
    store: &Store,
    image: &ImageRecord,
    archive: &mut Archive<'_>,
) -> Result<Entry, ArchiveError> {
    let (_, manifest) = manifest_of(store, image)?;
    let mut layers = Vec::new();
    for (descriptor, layer) in manifest.layers().iter().zip(&image.layers) {
        let name = format!("{}.tar", layer.diff_id.digest());
        if archive.is_new(&name) {
            save_docker_layer(store, descriptor, &layer.diff_id, (&name, archive))?;
        }
        layers.push(name);
    }
    let config = format!("{}.json", manifest.config().digest().digest());
    if archive.is_new(&config) {
        archive.small(&config, &store.read_blob(manifest.config())?)?;
    }
    Ok(Entry { config, repo_tags: Some(docker_tag(&image.reference).into_iter().collect()), layers })
}

/// Writes a layer: one that is compressed with gzip as it came, another one compressed anew.
fn save_docker_layer(
    store: &Store,
    descriptor: &Descriptor,
    diff_id: &Digest,
    (name, archive): (&str, &mut Archive<'_>),
) -> Result<(), ArchiveError> {
    let (mut plain, size, compression) = plain_layer(store, descriptor, diff_id)?;
    if compression == Compression::Gzip {
        return archive.file(name, descriptor.size(), &mut store.open_blob(descriptor)?);
    }
    let mut file = store.scratch()?;
    match gzip(&mut plain, &mut file).map_err(ArchiveError::Write)? {
        Some(packed) => archive.file(name, packed.size, rewound(&mut file)?),
        None => archive.file(name, size, rewound(&mut plain)?),
    }
}

/// Returns the plain tar of a layer in a file without a name, because a tar says sizes first; and what the blob is.
fn plain_layer(
    store: &Store,
    descriptor: &Descriptor,
    diff_id: &Digest,
) -> Result<(File, u64, Compression), ArchiveError> {
    let mut blob = store.open_blob(descriptor)?;
    let mut file = store.scratch()?;
    let mut hasher = Hasher::default();
    let (mut plain, compression) = compression::plain(&mut blob).map_err(damaged)?;
    let mut chunk = vec![0; 128 * 1024];
    let mut size = 0;
    loop {
        let read = plain.read(&mut chunk).map_err(damaged)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        size += read as u64;
        // Only its digest is of use: the blob itself is what is written.
        if compression != Compression::Gzip {
            file.write_all(&chunk[..read]).map_err(ArchiveError::Write)?;
        }
    }
    drop(plain);
    blob.finish()?;
    let found = digests::from_hex(&hasher.finish());
    if found != *diff_id {
        return Err(wrong(descriptor.digest().as_ref(), format!("it unpacks to {found}, not {diff_id}")));
    }
    rewound(&mut file)?;
    Ok((file, size, compression))
}

fn rewound(file: &mut File) -> Result<&mut File, ArchiveError> {
    file.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
    Ok(file)
}

/// Returns what the store found out about a blob while it was read.
fn damaged(error: io::Error) -> ArchiveError {
    match error.downcast::<StoreError>() {
        Ok(found) => ArchiveError::Store(found),
        Err(error) => ArchiveError::Read(error),
    }
}

fn manifest_of(store: &Store, image: &ImageRecord) -> Result<(Descriptor, ImageManifest), ArchiveError> {
    let descriptor = store.descriptor_of(&image.manifest_digest)?;
    let bytes = store.read_blob(&descriptor)?;
    let what = image.manifest_digest.to_string();
    let manifest = ImageManifest::from_reader(bytes.as_slice()).map_err(|error| wrong(&what, error))?;
    let blobs = manifest.layers().iter().map(Descriptor::digest);
    if !blobs.eq(image.layers.iter().map(|layer| &layer.blob)) {
        return Err(wrong(&what, "it has other layers than the record of the image"));
    }
    Ok((descriptor, manifest))
}

/// Returns the name and tag of a reference as Docker has them; one by digest alone has none.
fn docker_tag(reference: &str) -> Option<String> {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.contains(':').then(|| name.to_owned())
}

/// A tar that is written one file after the other.
struct Archive<'a> {
    writer: &'a mut dyn Write,
    written: BTreeSet<String>,
}

impl Archive<'_> {
    /// Says whether a file was not written yet: images share layers.
    fn is_new(&mut self, name: &str) -> bool {
        self.written.insert(name.to_owned())
    }

    fn small(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let mut bytes = bytes;
        self.file(name, bytes.len() as u64, &mut bytes)
    }

    fn file(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<(), ArchiveError> {
        self.header(name, EntryType::Regular, size)?;
        let mut chunk = vec![0; 128 * 1024];
        let mut copied = 0;
        loop {
            let read = from.read(&mut chunk).map_err(damaged)?;
            if read == 0 {
                break;
            }
            self.writer.write_all(&chunk[..read]).map_err(ArchiveError::Write)?;
            copied += read as u64;
        }
        if copied != size {
            return Err(wrong(name, format!("it has {copied} bytes, not {size}")));
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).expect("less than a block");
        self.writer.write_all(&[0; 512][..padding]).map_err(ArchiveError::Write)
    }

    fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.header(name, EntryType::Directory, 0)
    }

    /// Writes a header that says the same wherever and whenever it is written.
    fn header(&mut self, name: &str, kind: EntryType, size: u64) -> Result<(), ArchiveError> {
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(ArchiveError::Write)?;
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.writer.write_all(header.as_bytes()).map_err(ArchiveError::Write)
    }

    fn end(self) -> Result<(), ArchiveError> {
        self.writer.write_all(&[0; 1024]).map_err(ArchiveError::Write)?;
        self.writer.flush().map_err(ArchiveError::Write)
    }
}
