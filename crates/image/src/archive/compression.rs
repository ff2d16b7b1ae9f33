// SPDX-License-Identifier: Apache-2.0
//! Tells compressed streams by their first bytes, reads them within bounds, and compresses layers.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

use flate2::GzBuilder;
use oci_spec::image::Digest;
use protocol::limits::{
    ARCHIVE_BYTES_MAX, ARCHIVE_RATIO_FREE_BYTES, ARCHIVE_RATIO_MAX, ARCHIVE_ZSTD_WINDOW_LOG_MAX,
    LAYER_RATIO_FREE_BYTES, LAYER_RATIO_MAX,
};

use crate::store::digests::{self, Hasher};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 128 * 1024;
/// How much layers are compressed, as other builders of images do it. Another level makes other digests.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(6);
/// What the header says of the system that it was made on: nothing.
const GZIP_SYSTEM_UNKNOWN: u8 = 255;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Tells it by the first bytes.
    pub(super) fn of(first: &[u8]) -> Compression {
        match first {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Returns the plain bytes of a stream, and how it was compressed.
pub(super) fn plain<'a>(stream: impl Read + 'a) -> io::Result<(Box<dyn Read + 'a>, Compression)> {
    let read = Rc::new(Cell::new(0));
    let counted = Counted { stream, read: read.clone() };
    let mut buffered = BufReader::with_capacity(CHUNK_BYTES, counted);
    let compression = Compression::of(buffered.fill_buf()?);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ARCHIVE_ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok((Box::new(Bounded { plain, read, made: 0 }), compression))
}

/// Counts what is taken from a stream.
struct Counted<R> {
    stream: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// Ends a stream that becomes too large, as a whole or for what it is made of.
struct Bounded<'a> {
    plain: Box<dyn Read + 'a>,
    read: Rc<Cell<u64>>,
    made: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let made = self.plain.read(buffer)?;
        self.made += made as u64;
        let ratio_bound = ARCHIVE_RATIO_FREE_BYTES.max(self.read.get().saturating_mul(ARCHIVE_RATIO_MAX));
        let bound = ARCHIVE_BYTES_MAX.min(ratio_bound);
        if self.made > bound {
            let why = format!("{} bytes become more than {bound}", self.read.get());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(made)
    }
}

/// A layer that was compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gzipped {
    /// The digest of the plain tar.
    pub diff_id: Digest,
    /// The digest of what it became.
    pub digest: Digest,
    /// The size of what it became.
    pub size: u64,
}

/// Compresses a plain layer, always to the same bytes. `None` if these would be so few that whoever unpacks the layer takes
/// it for a bomb: such a layer stays as it is, and what was written is of no use.
///
/// # Errors
/// What the reader or the writer says.
pub fn gzip(plain: &mut dyn Read, into: &mut dyn Write) -> io::Result<Option<Gzipped>> {
    let sink = Sink { into, hasher: Hasher::default(), size: 0 };
    let header = GzBuilder::new().mtime(0).operating_system(GZIP_SYSTEM_UNKNOWN);
    let mut encoder = header.write(sink, GZIP_LEVEL);
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut taken = 0;
    loop {
        let read = plain.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        encoder.write_all(&chunk[..read])?;
        taken += read as u64;
        // Half of what is allowed: what the encoder still holds back is not counted.
        if taken > LAYER_RATIO_FREE_BYTES && taken / (LAYER_RATIO_MAX / 2) > encoder.get_ref().size {
            return Ok(None);
        }
    }
    let mut sink = encoder.finish()?;
    sink.flush()?;
    let (diff_id, digest) = (digests::from_hex(&hasher.finish()), digests::from_hex(&sink.hasher.finish()));
    Ok(Some(Gzipped { diff_id, digest, size: sink.size }))
}

/// Hashes and counts what is written.
struct Sink<'a> {
    into: &'a mut dyn Write,
    hasher: Hasher,
    size: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.into.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_compressed_to_the_same_bytes_that_say_nothing_of_when_and_where() {
        let plain = b"some bytes of a tar ".repeat(10_000);
        let compressed = || {
            let mut bytes = Vec::new();
            (gzip(&mut plain.as_slice(), &mut bytes).unwrap().unwrap(), bytes)
        };
        let (made, bytes) = compressed();
        assert_eq!((&made, &bytes), (&compressed().0, &compressed().1));
        assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!((made.digest, made.size), (digests::of(&bytes), bytes.len() as u64));
        assert_eq!(made.diff_id, digests::of(&plain));
        let mut again = Vec::new();
        super::plain(bytes.as_slice()).unwrap().0.read_to_end(&mut again).unwrap();
        assert_eq!(again, plain);
    }

    #[test]
    fn what_would_look_like_a_bomb_stays_as_it_is() {
        let zeros = |megabytes: u64| io::repeat(0).take(megabytes << 20);
        assert_eq!(gzip(&mut zeros(64), &mut io::sink()).unwrap(), None);
        assert!(gzip(&mut zeros(16), &mut io::sink()).unwrap().is_some(), "small ones never do");
    }
}
