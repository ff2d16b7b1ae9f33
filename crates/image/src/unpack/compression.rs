// SPDX-License-Identifier: Apache-2.0
//! From the bytes of a blob to the bytes of a tar archive, never more of them than a bound and a ratio allow.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use protocol::limits::{
    LAYER_BLOB_BYTES_MAX, LAYER_CHUNK_BYTES, LAYER_RATIO_FREE_BYTES, LAYER_RATIO_MAX,
    LAYER_ZSTD_WINDOW_LOG_MAX,
};

use super::error::UnpackError;

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As one or more members of gzip, one after the other.
    Gzip,
    /// As one or more frames of zstd, one after the other.
    Zstd,
}

impl Compression {
    /// Reads the media type of a layer, of OCI or of Docker.
    ///
    /// # Errors
    /// [`UnpackError::MediaType`] for encrypted layers, for those that may not be passed on, and for what is no layer.
    pub fn from_media_type(media_type: &str) -> Result<Compression, UnpackError> {
        let refused = |why| Err(UnpackError::MediaType(media_type.to_owned(), why));
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Ok(Compression::None)
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
            encrypted if encrypted.ends_with("+encrypted") => {
                refused("they are encrypted, and there is no key")
            }
            foreign
                if foreign.starts_with("application/vnd.oci.image.layer.nondistributable.")
                    || foreign.starts_with("application/vnd.docker.image.rootfs.foreign.") =>
            {
                refused("they are foreign, which registries do not have")
            }
            _ => refused("this is no type of a layer that is known"),
        }
    }
}

/// Opens a layer: the bytes of the blob in, the bytes of the archive out. An error while reading is an
/// [`UnpackError`] inside of an [`io::Error`]; [`super::unpack`] gets it out again.
///
/// # Errors
/// [`UnpackError::Compression`] when there is no memory for a decompressor.
pub fn decompress(blob: impl Read, compression: Compression) -> Result<impl Read, UnpackError> {
    let blob = Blob { inner: BufReader::with_capacity(LAYER_CHUNK_BYTES, blob), taken: 0 };
    let decoder = match compression {
        Compression::None => Decoder::None(blob),
        Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(blob))),
        Compression::Zstd => {
            let broken = |error| UnpackError::Compression("zstd", error);
            let mut decoder = zstd::Decoder::with_buffer(blob).map_err(broken)?;
            decoder.window_log_max(LAYER_ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            Decoder::Zstd(decoder)
        }
    };
    Ok(Decompressed { decoder, given: 0 })
}

/// A blob that counts the bytes that were used of it.
struct Blob<R> {
    inner: BufReader<R>,
    taken: u64,
}

impl<R: Read> BufRead for Blob<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken > LAYER_BLOB_BYTES_MAX {
            let over = UnpackError::Limit { what: "bytes, compressed", max: LAYER_BLOB_BYTES_MAX };
            return Err(io::Error::other(over));
        }
        self.inner.fill_buf().map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(UnpackError::of_reader(error)),
        })
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.taken += amount as u64;
    }
}

impl<R: Read> Read for Blob<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        self.consume(length);
        Ok(length)
    }
}

enum Decoder<R: Read> {
    None(Blob<R>),
    Gzip(Box<MultiGzDecoder<Blob<R>>>),
    Zstd(zstd::Decoder<'static, Blob<R>>),
}

struct Decompressed<R: Read> {
    decoder: Decoder<R>,
    given: u64,
}

impl<R: Read> Decompressed<R> {
    /// The bytes of the blob that were used.
    fn taken(&self) -> u64 {
        match &self.decoder {
            Decoder::None(blob) => blob.taken,
            Decoder::Gzip(decoder) => decoder.get_ref().taken,
            Decoder::Zstd(decoder) => decoder.get_ref().taken,
        }
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (read, name) = match &mut self.decoder {
            Decoder::None(blob) => (blob.read(into), "plain"),
            Decoder::Gzip(decoder) => (decoder.read(into), "gzip"),
            Decoder::Zstd(decoder) => (decoder.read(into), "zstd"),
        };
        let length = read.map_err(|error| explain(error, name))?;
        self.given += length as u64;
        if self.given > LAYER_RATIO_FREE_BYTES && self.given / LAYER_RATIO_MAX > self.taken() {
            let what = "bytes for each byte of its blob";
            return Err(io::Error::other(UnpackError::Limit { what, max: LAYER_RATIO_MAX }));
        }
        Ok(length)
    }
}

/// Tells the errors of the blob's reader, which are ours already, from those of the decompressor.
fn explain(error: io::Error, name: &'static str) -> io::Error {
    let ours = error.get_ref().is_some_and(|inner| inner.is::<UnpackError>());
    match error.kind() {
        _ if ours => error,
        io::ErrorKind::Interrupted => error,
        io::ErrorKind::UnexpectedEof => io::Error::other(UnpackError::Truncated),
        _ => io::Error::other(UnpackError::Compression(name, error)),
    }
}
