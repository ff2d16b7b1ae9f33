// SPDX-License-Identifier: Apache-2.0
//! From an archive to blobs in the store and records of images.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};
use protocol::limits::{ARCHIVE_BYTES_MAX, IMAGE_JSON_BYTES_MAX};
use rustix::fs::{Mode, OFlags};

use super::compression::{self, Compression};
use super::contents::{Content, Contents};
use super::index::Index;
use super::{ArchiveError, docker, oci, rootfs, wrong};
use crate::store::{ImageRecord, LayerRecord, Store, StoreError, layers_of};

/// Where an archive comes from.
pub enum Source<'a> {
    /// A file, or the directory of an OCI layout.
    Path(&'a Path),
    /// A stream, as standard input.
    Reader(&'a mut dyn Read),
}

/// What an archive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// What its files say.
    #[default]
    Any,
    /// A root file system, whatever files it has.
    Rootfs,
}

/// How an archive is loaded.
pub struct LoadOptions<'a> {
    /// What it is.
    pub kind: Kind,
    /// What its only image shall be called; without, images are called what the archive says.
    pub reference: Option<&'a str>,
    /// The platform that is chosen from an index, as `os/architecture` or `os/architecture/variant`.
    pub platform: &'a str,
    /// Makes a full reference of a name in the archive, or says why it is none. The names are a stranger's.
    pub full_reference: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Images whose blobs are in the store. They stay there as long as this lives, or once they are tagged.
#[derive(Debug)]
pub struct Loaded {
    /// The images.
    pub images: Vec<ImageRecord>,
    held: Store,
    added: Vec<Digest>,
}

impl Loaded {
    /// Makes the references mean these images.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn tag(self) -> Result<Vec<ImageRecord>, StoreError> {
        for image in &self.images {
            self.held.tag(image)?;
        }
        Ok(self.images)
    }

    /// Removes what was added for images that turned out to be of no use.
    ///
    /// # Errors
    /// What the disk says; what is left then goes with the next prune.
    pub fn take_back(self) -> Result<(), StoreError> {
        let store = self.held.without_holding();
        drop(self.held);
        store.take_back(&self.added)
    }
}

/// Loads the images of an archive into the store.
///
/// # Errors
/// [`ArchiveError`]; then nothing that was added stays.
pub fn load(store: &Store, source: Source<'_>, options: &LoadOptions<'_>) -> Result<Loaded, ArchiveError> {
    let mut intake = Intake { store: store.holding()?, added: Vec::new() };
    let result = opened(store, source).and_then(|archive| images(&mut intake, archive, options));
    let Intake { store: held, added } = intake;
    match result {
        Ok(images) => Ok(Loaded { images, held, added }),
        Err(error) => {
            drop(held);
            // What cannot be removed now goes with the next prune: the first failure is what is told.
            let _ = store.take_back(&added);
            Err(error)
        }
    }
}

/// An archive before anybody knows what it holds.
enum Archive {
    Directory(Contents),
    /// The file as it came, what it is compressed with, and the same without.
    File {
        as_sent: File,
        compression: Compression,
        plain: File,
    },
}

fn opened(store: &Store, source: Source<'_>) -> Result<Archive, ArchiveError> {
    let as_sent = match source {
        Source::Reader(reader) => spool(store, reader)?,
        Source::Path(path) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty());
            let mut file = File::from(opened.map_err(|error| ArchiveError::Read(error.into()))?);
            let status = file.metadata().map_err(ArchiveError::Read)?;
            if status.is_dir() {
                return Ok(Archive::Directory(Contents::Directory(file.into())));
            }
            if status.is_file() { file } else { spool(store, &mut file)? }
        }
    };
    let (mut plain, compression) = compression::plain(again(&as_sent)?).map_err(ArchiveError::Read)?;
    let plain = match compression {
        Compression::None => again(&as_sent)?,
        Compression::Gzip | Compression::Zstd => spool(store, &mut plain)?,
    };
    Ok(Archive::File { as_sent, compression, plain })
}

/// Another descriptor of a file, at its beginning. The two share where they are.
fn again(file: &File) -> Result<File, ArchiveError> {
    let mut twin = file.try_clone().map_err(ArchiveError::Read)?;
    twin.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
    Ok(twin)
}

/// Copies a stream into a file without a name.
fn spool(store: &Store, from: &mut dyn Read) -> Result<File, ArchiveError> {
    let mut file = store.scratch()?;
    let copied = io::copy(&mut from.take(ARCHIVE_BYTES_MAX + 1), &mut file).map_err(ArchiveError::Read)?;
    if copied > ARCHIVE_BYTES_MAX {
        return Err(ArchiveError::Bound { what: "the size".to_owned(), bound: ARCHIVE_BYTES_MAX });
    }
    Ok(file)
}

fn images(
    intake: &mut Intake,
    archive: Archive,
    options: &LoadOptions<'_>,
) -> Result<Vec<ImageRecord>, ArchiveError> {
    let (contents, as_sent, compression) = match archive {
        Archive::Directory(contents) if options.kind == Kind::Any && is_layout(&contents) => {
            return oci::load(intake, &contents, options);
        }
        Archive::Directory(_) => {
            return Err(ArchiveError::Unknown("the directory has no oci-layout and index.json".to_owned()));
        }
        Archive::File { as_sent, compression, plain } => {
            let index = Index::of(&plain)?;
            (Contents::Tar(plain, index), as_sent, compression)
        }
    };
    let Contents::Tar(plain, index) = &contents else { unreachable!("directories were returned above") };
    if options.kind == Kind::Any && is_layout(&contents) {
        index.whole()?;
        return oci::load(intake, &contents, options);
    }
    if options.kind == Kind::Any && contents.has(docker::MANIFEST) {
        index.whole()?;
        return docker::load(intake, &contents, options);
    }
    rootfs::load(intake, again(&as_sent)?, compression, again(plain)?, options)
}

fn is_layout(contents: &Contents) -> bool {
    contents.has(oci::LAYOUT) && contents.has(oci::INDEX)
}

/// Takes blobs into the store, and remembers which were not there before.
pub(super) struct Intake {
    pub(super) store: Store,
    added: Vec<Digest>,
}

impl Intake {
    /// Adds a blob from a file of the archive. One that is in the store already need not be in the archive.
    pub(super) fn add<'a>(
        &mut self,
        descriptor: &Descriptor,
        open: impl FnOnce() -> Result<Content<'a>, ArchiveError>,
    ) -> Result<(), ArchiveError> {
        if self.store.has_blob(descriptor.digest(), descriptor.size()) {
            return Ok(());
        }
        self.add_from(descriptor, &mut open()?)
    }

    /// Adds a blob from a reader.
    pub(super) fn add_from(
        &mut self,
        descriptor: &Descriptor,
        from: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        if self.store.add_blob(descriptor, from)? {
            self.added.push(descriptor.digest().clone());
        }
        Ok(())
    }
}

/// A manifest in the store, with what else is known of its image.
pub(super) struct Image {
    pub(super) manifest: Descriptor,
    pub(super) index: Option<Digest>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<LayerRecord>,
    pub(super) platform: String,
}

impl Image {
    /// Puts together what a manifest and the bytes of its configuration say.
    pub(super) fn new(
        manifest: Descriptor,
        index: Option<Digest>,
        parsed: &ImageManifest,
        config: &[u8],
    ) -> Result<Image, ArchiveError> {
        let layers = layers_of(parsed, config)?;
        let platform = platform(parsed.config().digest(), config)?;
        Ok(Image { manifest, index, config: parsed.config().clone(), layers, platform })
    }

    /// Makes a record for each name.
    pub(super) fn records(
        &self,
        names: &[String],
        options: &LoadOptions<'_>,
    ) -> Result<Vec<ImageRecord>, ArchiveError> {
        let layers: u64 = self.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        let record = |reference: String| ImageRecord {
            reference,
            manifest_digest: self.manifest.digest().clone(),
            index_digest: self.index.clone(),
            config_digest: self.config.digest().clone(),
            layers: self.layers.clone(),
            platform: self.platform.clone(),
            pulled: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            size: layers.saturating_add(self.manifest.size()).saturating_add(self.config.size()),
        };
        if let Some(reference) = options.reference {
            return Ok(vec![record(reference.to_owned())]);
        }
        if names.is_empty() {
            return Err(ArchiveError::NoReference);
        }
        let full = |name: &String| (options.full_reference)(name).map_err(|why| wrong(name, why));
        names.iter().map(|name| full(name).map(record)).collect()
    }
}

/// Returns the platform that a configuration names.
fn platform(digest: &Digest, config: &[u8]) -> Result<String, ArchiveError> {
    let config = ImageConfiguration::from_reader(config).map_err(|error| wrong(digest.as_ref(), error))?;
    Ok(match config.variant() {
        Some(variant) => format!("{}/{}/{variant}", config.os(), config.architecture()),
        None => format!("{}/{}", config.os(), config.architecture()),
    })
}

/// Refuses more images than one reference can name.
pub(super) fn check_count(images: usize, options: &LoadOptions<'_>) -> Result<(), ArchiveError> {
    match images {
        0 => Err(ArchiveError::Missing("of an image".to_owned())),
        1 => Ok(()),
        _ if options.reference.is_some() => Err(ArchiveError::Several(images)),
        _ if images > protocol::limits::ARCHIVE_IMAGES_MAX => Err(ArchiveError::Bound {
            what: "the number of images".to_owned(),
            bound: protocol::limits::ARCHIVE_IMAGES_MAX as u64,
        }),
        _ => Ok(()),
    }
}

/// Refuses JSON that is too large before it is taken into the store.
pub(super) fn check_small(descriptor: &Descriptor) -> Result<(), ArchiveError> {
    if descriptor.size() <= IMAGE_JSON_BYTES_MAX {
        return Ok(());
    }
    let what = format!("{} with {} bytes", descriptor.digest(), descriptor.size());
    Err(ArchiveError::Bound { what, bound: IMAGE_JSON_BYTES_MAX })
}
