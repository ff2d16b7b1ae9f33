// SPDX-License-Identifier: Apache-2.0
//! A writer of archives that writes what no honest one would: every field is the test's to say.

/// An archive that grows.
#[derive(Clone, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    /// Adds a header and a content, which need not fit each other.
    pub(crate) fn entry(mut self, block: Block, content: &[u8]) -> Tar {
        self.bytes.extend_from_slice(&block.sealed());
        self.content(content)
    }

    /// Adds bytes, filled up to a whole block.
    pub(crate) fn content(mut self, content: &[u8]) -> Tar {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(Block::new(b'0', name).size(content.len()), content)
    }

    pub(crate) fn directory(self, name: &str) -> Tar {
        self.entry(Block::new(b'5', name).mode(0o755), b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(Block::new(b'2', name).target(target.as_bytes()), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(Block::new(b'1', name).target(target.as_bytes()), b"")
    }

    /// Adds PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let bytes = records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<u8>>();
        self.raw_pax(&bytes)
    }

    pub(crate) fn raw_pax(self, bytes: &[u8]) -> Tar {
        self.entry(Block::new(b'x', "pax").size(bytes.len()), bytes)
    }

    /// Adds the end of the archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive without an end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// One PAX record, whose length counts itself.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut bytes = format!("{length} {key}=").into_bytes();
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
    bytes
}

/// A header whose checksum is made at the end.
#[derive(Clone)]
pub(crate) struct Block {
    bytes: [u8; 512],
    sum: Option<Vec<u8>>,
}

impl Block {
    pub(crate) fn new(kind: u8, name: &str) -> Block {
        let block = Block { bytes: [0; 512], sum: None };
        let block = block.put(0, name.as_bytes()).put(156, &[kind]).put(257, b"ustar\x0000");
        block.mode(0o644).put(108, b"0000000").put(116, b"0000000").size(0).put(136, b"00000000000")
    }

    /// Writes a field, wherever.
    pub(crate) fn put(mut self, at: usize, field: &[u8]) -> Block {
        self.bytes[at..at + field.len()].copy_from_slice(field);
        self
    }

    pub(crate) fn size(self, size: usize) -> Block {
        self.put(124, format!("{size:011o}").as_bytes())
    }

    pub(crate) fn mode(self, mode: u32) -> Block {
        self.put(100, format!("{mode:07o}").as_bytes())
    }

    pub(crate) fn owner(self, user: u32, group: u32) -> Block {
        self.put(108, format!("{user:07o}").as_bytes()).put(116, format!("{group:07o}").as_bytes())
    }

    pub(crate) fn modified(self, seconds: u64) -> Block {
        self.put(136, format!("{seconds:011o}").as_bytes())
    }

    pub(crate) fn target(self, target: &[u8]) -> Block {
        self.put(157, target)
    }

    /// Turns the header into one of GNU tar.
    pub(crate) fn gnu(self) -> Block {
        self.put(257, b"ustar  \0")
    }

    pub(crate) fn sum(mut self, sum: &[u8]) -> Block {
        self.sum = Some(sum.to_vec());
        self
    }

    pub(crate) fn sealed(&self) -> [u8; 512] {
        let mut bytes = self.bytes;
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        let text = self.sum.clone().unwrap_or_else(|| format!("{sum:06o}\0 ").into_bytes());
        bytes[148..148 + text.len()].copy_from_slice(&text);
        bytes
    }
}
