// SPDX-License-Identifier: Apache-2.0
//! Blobs: what was sent, by its digest; verified when it is written and whenever it is read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use oci_spec::image::{Descriptor, Digest, MediaType};
use protocol::limits::{IMAGE_BLOB_BYTES_MAX, IMAGE_JSON_BYTES_MAX, IMAGE_WORK_WAIT};
use rustix::fs::Mode;

use super::digests::{self, Hasher};
use super::leases::Pin;
use super::lock::{self, Hold};
use super::{Store, StoreError};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 128 * 1024;

impl Store {
    /// Says whether a blob of this size is there. Its bytes are verified when they are read.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        let Ok(name) = digests::hex(digest) else { return false };
        self.hold(Pin::blob(name)).is_ok()
            && matches!(self.inner.blobs.file_size(name), Ok(Some(found)) if found == size)
    }

    /// Reads a small blob: a manifest, an index or a configuration.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Mismatch`] for one that was damaged (it is removed), or beyond the bound.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, StoreError> {
        within(descriptor, IMAGE_JSON_BYTES_MAX)?;
        let mut reader = self.open_blob(descriptor)?;
        let mut bytes = Vec::new();
        match reader.read_to_end(&mut bytes) {
            Ok(_) => reader.finish().map(|()| bytes),
            Err(error) => Err(reader.failure(error)),
        }
    }

    /// Describes a manifest of which only the digest is known.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub fn descriptor_of(&self, manifest: &Digest) -> Result<Descriptor, StoreError> {
        let name = digests::hex(manifest)?;
        self.hold(Pin::blob(name))?;
        let size = self.inner.blobs.file_size(name)?.ok_or_else(|| StoreError::Missing(manifest.clone()))?;
        Ok(Descriptor::new(MediaType::ImageManifest, size, manifest.clone()))
    }

    /// Opens a blob to read it from its beginning to its end, where its digest is compared.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or another size than the descriptor's.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<VerifiedReader, StoreError> {
        let name = digests::hex(descriptor.digest())?;
        self.hold(Pin::blob(name))?;
        if !self.is_there(descriptor, name)? {
            return Err(StoreError::Missing(descriptor.digest().clone()));
        }
        let file = self.inner.blobs.read(name)?;
        let file = file.ok_or_else(|| StoreError::Missing(descriptor.digest().clone()))?;
        Ok(VerifiedReader::new(self.clone(), name, file, descriptor.size()))
    }

    /// Begins to write a blob, or goes on where another writer ended; `None` when it is there already. While somebody
    /// else writes it, this waits: the work is done once. (Who holds a writer of the same blob would wait for itself.)
    ///
    /// # Errors
    /// A descriptor beyond the bounds, or of a blob that is there with another size; or what the disk says.
    pub fn begin_blob(&self, descriptor: &Descriptor) -> Result<Option<BlobWriter>, StoreError> {
        within(descriptor, IMAGE_BLOB_BYTES_MAX)?;
        let name = digests::hex(descriptor.digest())?;
        self.hold(Pin::blob(name))?;
        let partial = &self.inner.partial;
        loop {
            if self.is_there(descriptor, name)? {
                return Ok(None);
            }
            let file = partial.write(name)?;
            lock::wait(&file, Hold::Alone, IMAGE_WORK_WAIT, partial, name)?;
            // Whoever had the lock may have finished, and so have given the file its other name.
            if !partial.is(name, &file)? {
                continue;
            }
            if self.is_there(descriptor, name)? {
                partial.unlink(name)?;
                return Ok(None);
            }
            return BlobWriter::resume(self.clone(), descriptor, name, file).map(Some);
        }
    }

    /// Writes a whole blob from a reader, unless it is there; says whether it wrote it. Of one that fails nothing stays.
    ///
    /// # Errors
    /// As for [`Store::begin_blob`] and [`BlobWriter::finish`]; what the reader says.
    pub fn add_blob(&self, descriptor: &Descriptor, from: &mut dyn Read) -> Result<bool, StoreError> {
        let Some(mut writer) = self.begin_blob(descriptor)? else { return Ok(false) };
        writer.restart()?;
        match writer.copy(from) {
            Ok(()) => writer.finish().map(|()| true),
            Err(error) => {
                // What cannot be removed now goes with the next prune: the first failure is what is told.
                let _ = self.inner.partial.unlink(&writer.name);
                Err(error)
            }
        }
    }

    /// Makes a file without a name for what is needed for a moment.
    pub(crate) fn scratch(&self) -> Result<File, StoreError> {
        let partial = &self.inner.partial;
        for number in 0..u32::MAX {
            let name = format!("scratch-{}-{number}", std::process::id());
            if let Some(file) = partial.create(&name)? {
                partial.unlink(&name)?;
                return Ok(file);
            }
        }
        Err(StoreError::Busy(partial.path.display().to_string()))
    }

    /// Says whether a blob is there with the right size. If it has another one, either the blob or the descriptor is
    /// wrong: a damaged blob is removed, a good one is not for a descriptor that lies.
    fn is_there(&self, descriptor: &Descriptor, name: &str) -> Result<bool, StoreError> {
        match self.inner.blobs.file_size(name)? {
            None => Ok(false),
            Some(found) if found == descriptor.size() => Ok(true),
            Some(found) => {
                let Some(file) = self.inner.blobs.read(name)? else { return Ok(false) };
                match VerifiedReader::new(self.clone(), name, file, found).finish() {
                    Ok(()) => Err(size(descriptor.digest().to_string(), descriptor.size(), found)),
                    Err(StoreError::Mismatch(..) | StoreError::Size { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Removes a blob whose bytes are wrong, so that it is fetched again; but not one that has been since.
    fn set_aside(&self, name: &str, file: &File) -> Result<(), StoreError> {
        let _alone = self.lock(Hold::Alone)?;
        if self.inner.blobs.is(name, file)? {
            self.inner.blobs.unlink(name)?;
        }
        Ok(())
    }
}

fn within(descriptor: &Descriptor, bound: u64) -> Result<(), StoreError> {
    if descriptor.size() <= bound {
        return Ok(());
    }
    Err(StoreError::Bound {
        what: format!("the size {} of {}", descriptor.size(), descriptor.digest()),
        bound,
    })
}

fn size(what: String, wanted: u64, found: u64) -> StoreError {
    StoreError::Size { what, wanted, found }
}

/// A blob being read. The end of it, as a read of 0 bytes or [`VerifiedReader::finish`], is only reached if its bytes
/// are what its digest says; else the blob is removed from the store.
#[derive(Debug)]
pub struct VerifiedReader {
    store: Store,
    name: String,
    file: File,
    hasher: Hasher,
    size: u64,
    read: u64,
    ended: bool,
}

impl VerifiedReader {
    fn new(store: Store, name: &str, file: File, size: u64) -> VerifiedReader {
        VerifiedReader {
            store,
            name: name.to_owned(),
            file,
            hasher: Hasher::default(),
            size,
            read: 0,
            ended: false,
        }
    }

    /// Verifies what was not read yet.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] or [`StoreError::Size`], or what the disk says.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// Says what ended a read: what this reader found, or the disk.
    fn failure(&self, error: io::Error) -> StoreError {
        match error.downcast::<StoreError>() {
            Ok(found) => found,
            Err(error) => self.store.inner.blobs.error("read", &self.name, error),
        }
    }

    fn verify(&mut self) -> Result<(), StoreError> {
        let digest = digests::from_hex(&self.name);
        if self.read != self.size {
            self.store.set_aside(&self.name, &self.file)?;
            return Err(size(digest.to_string(), self.size, self.read));
        }
        let found = self.hasher.finish();
        if found != self.name {
            self.store.set_aside(&self.name, &self.file)?;
            return Err(StoreError::Mismatch(digest, found));
        }
        self.ended = true;
        Ok(())
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        self.hasher.update(&buffer[..read]);
        if read == 0 || self.read > self.size {
            self.verify().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(read)
    }
}

/// A blob being written, which nobody else writes. Dropped before its end it leaves what it has, to go on from.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    name: String,
    file: File,
    hasher: Hasher,
    size: u64,
    have: u64,
}

impl BlobWriter {
    fn resume(
        store: Store,
        descriptor: &Descriptor,
        name: &str,
        file: File,
    ) -> Result<BlobWriter, StoreError> {
        let mut writer = BlobWriter {
            store,
            name: name.to_owned(),
            file,
            hasher: Hasher::default(),
            size: descriptor.size(),
            have: 0,
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = writer.file.read(&mut chunk).map_err(|error| writer.error("read", error))?;
            if read == 0 {
                return Ok(writer);
            }
            writer.hasher.update(&chunk[..read]);
            writer.have += read as u64;
            if writer.have > writer.size {
                writer.restart()?;
                return Ok(writer);
            }
        }
    }

    /// Returns how many of the first bytes are there already.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(|error| self.error("empty", error))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.error("empty", error))?;
        self.hasher = Hasher::default();
        self.have = 0;
        Ok(())
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::Size`] for more than the descriptor announced; then what is there is of no use, and removed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let found = self.have.saturating_add(bytes.len() as u64);
        if found > self.size {
            self.restart()?;
            return Err(size(digests::from_hex(&self.name).to_string(), self.size, found));
        }
        self.file.write_all(bytes).map_err(|error| self.error("write", error))?;
        self.hasher.update(bytes);
        self.have = found;
        Ok(())
    }

    /// Writes all that a reader gives, to the size that was announced.
    fn copy(&mut self, from: &mut dyn Read) -> Result<(), StoreError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk).map_err(|error| self.error("receive", error))?;
            if read == 0 {
                let digest = digests::from_hex(&self.name);
                return if self.have == self.size {
                    Ok(())
                } else {
                    Err(size(digest.to_string(), self.size, self.have))
                };
            }
            self.write(&chunk[..read])?;
        }
    }

    /// Verifies what was written, waits until it is on the disk, and puts it into its place.
    ///
    /// # Errors
    /// [`StoreError::Size`] when bytes are missing (what is there is kept), [`StoreError::Mismatch`] for wrong ones (they
    /// are removed), or what the disk says.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let digest = digests::from_hex(&self.name);
        if self.have != self.size {
            return Err(size(digest.to_string(), self.size, self.have));
        }
        let inner = &self.store.inner;
        let found = self.hasher.finish();
        if found != self.name {
            inner.partial.unlink(&self.name)?;
            return Err(StoreError::Mismatch(digest, found));
        }
        rustix::fs::fchmod(&self.file, Mode::RUSR).map_err(|error| self.error("finish", error.into()))?;
        self.file.sync_all().map_err(|error| self.error("write to the disk", error))?;
        let _shared = self.store.lock(Hold::Shared)?;
        inner.partial.rename(&self.name, &inner.blobs, &self.name)?;
        inner.blobs.sync()
    }

    fn error(&self, act: &'static str, error: io::Error) -> StoreError {
        self.store.inner.partial.error(act, &self.name, error)
    }
}
