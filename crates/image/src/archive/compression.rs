// SPDX-License-Identifier: Apache-2.0
//! Tells compressed streams by their first bytes, and reads them within bounds.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use protocol::limits::{
    ARCHIVE_BYTES_MAX, ARCHIVE_RATIO_FREE_BYTES, ARCHIVE_RATIO_MAX, ARCHIVE_ZSTD_WINDOW_LOG_MAX,
};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 128 * 1024;

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
