// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: archives and blobs of any bytes.
//!
//! `cargo test` runs each for a fixed number of inputs. `cargo bolero` (a subcommand of cargo) runs the same targets for as
//! long as one likes, led by coverage: `cargo bolero test -p image unpack::fuzz::an_archive_of_anything`.
//!
//! The inputs are put together from entries, most of them with a right checksum, because random bytes never get past the
//! first one; then single bytes are changed.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bolero::{TypeGenerator, check};
use image::unpack::{Budget, Compression, UnpackError, decompress};
use rustix::fs::llistxattr;

use super::place::{Place, possible};
use super::tar::{Block, Tar, record};

/// How many inputs each target gets in a test.
const INPUTS: usize = 2_000;
/// Room for each input.
const BYTES_MAX: u64 = 1024 * 1024;
const ENTRIES_MAX: u64 = 300;
/// How long one input may take; a hundred times of what the slowest does.
const WAIT: Duration = Duration::from_secs(20);

const NAMES: &[&str] = &[
    "a",
    "b",
    "a/b",
    "a/b/c",
    "./a",
    "d/",
    "d/e",
    ".",
    "..",
    "../canary/file",
    "../canary",
    "/etc/passwd",
    "a/../b",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh...",
    ".wh..wh.plnk/1",
    "a//b",
    "",
    "d/e/f/g/h/i/j/k",
    "link",
    "link/file",
];
const KEYS: &[&str] = &[
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "comment",
    "SCHILY.xattr.user.x",
    "SCHILY.xattr.trusted.overlay.opaque",
    "SCHILY.xattr.security.capability",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.realsize",
];
const VALUES: &[&str] =
    &["0", "1", "512", "1024", "8589934591", "65536", "-1", "1.5", "", "\n", "1\n0\n512\n", "../canary/file"];
const KINDS: &[u8] = b"00000000111222555534S67xgLK";

/// Names that an honest layer may have.
const HONEST: &[&str] = &[
    "a",
    "b",
    "a/b",
    "a/b/c",
    "./a",
    "d",
    "d/e",
    ".",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    "d/e/f",
    "link",
    "link/file",
];

#[derive(Debug, TypeGenerator)]
struct Mutant {
    manners: Manners,
    pieces: Vec<Piece>,
    changes: Vec<(u32, u8)>,
    cut: Option<u16>,
    ends: bool,
}

/// How an archive is put together.
#[derive(Debug, TypeGenerator)]
enum Manners {
    /// Of entries that are good each for itself, so that it is their order that is hostile.
    Honest(Vec<(u8, u8, u8, u16)>),
    /// The same, and the other pieces after them.
    Mixed(Vec<(u8, u8, u8, u16)>),
    /// Of the other pieces alone.
    Wild,
}

#[derive(Debug, TypeGenerator)]
enum Piece {
    Entry {
        kind: u8,
        name: u8,
        target: u8,
        size: Size,
        mode: u16,
        owner: (u16, u16),
        content: Vec<u8>,
        patches: Vec<(u16, u8)>,
    },
    Named {
        kind: u8,
        name: Vec<u8>,
        content: Vec<u8>,
    },
    Pax {
        records: Vec<(u8, Value)>,
    },
    RawPax {
        bytes: Vec<u8>,
    },
    Long {
        link: bool,
        name: Vec<u8>,
    },
    Sparse {
        name: u8,
        size: u32,
        pieces: Vec<(u8, u8)>,
        extended: bool,
        blocks: u8,
    },
    Raw {
        bytes: Vec<u8>,
    },
}

#[derive(Debug, TypeGenerator)]
enum Size {
    Right,
    None,
    Any(u32),
}

#[derive(Debug, TypeGenerator)]
enum Value {
    Known(u8),
    Name(u8),
    Bytes(Vec<u8>),
}

fn pick<T: Copy>(from: &[T], index: u8) -> T {
    from[usize::from(index) % from.len()]
}

impl Piece {
    fn add(&self, tar: Tar) -> Tar {
        match self {
            Piece::Entry { kind, name, target, size, mode, owner, content, patches } => {
                let block = Block::new(pick(KINDS, *kind), pick(NAMES, *name)).mode(u32::from(*mode));
                let block =
                    block.target(pick(NAMES, *target).as_bytes()).owner(owner.0.into(), owner.1.into());
                let block = block.size(match size {
                    Size::Right => content.len(),
                    Size::None => 0,
                    Size::Any(size) => *size as usize,
                });
                let patch =
                    |block: Block, (at, byte): &(u16, u8)| block.put(usize::from(*at) % 512, &[*byte]);
                tar.entry(patches.iter().fold(block, patch), content)
            }
            Piece::Named { kind, name, content } => {
                let name = &name[..name.len().min(100)];
                let content = if pick(KINDS, *kind) == b'0' { content.as_slice() } else { b"" };
                tar.entry(
                    Block::new(pick(KINDS, *kind), "").put(0, name).target(b"a").size(content.len()),
                    content,
                )
            }
            Piece::Pax { records } => {
                let records = records.iter().flat_map(|(key, value)| {
                    record(
                        pick(KEYS, *key),
                        match value {
                            Value::Known(index) => pick(VALUES, *index).as_bytes(),
                            Value::Name(index) => pick(NAMES, *index).as_bytes(),
                            Value::Bytes(bytes) => bytes,
                        },
                    )
                });
                tar.raw_pax(&records.collect::<Vec<u8>>())
            }
            Piece::RawPax { bytes } => tar.raw_pax(bytes),
            Piece::Long { link, name } => {
                let kind = if *link { b'K' } else { b'L' };
                tar.entry(Block::new(kind, "long").gnu().size(name.len()), name)
            }
            Piece::Sparse { name, size, pieces, extended, blocks } => {
                let number = |value: u32| format!("{value:011o}\0").into_bytes();
                let mut block = Block::new(b'S', pick(NAMES, *name)).gnu().size(usize::from(*blocks) * 512);
                for (index, (offset, length)) in pieces.iter().take(4).enumerate() {
                    block = block.put(386 + 24 * index, &number(u32::from(*offset) * 512));
                    block = block.put(398 + 24 * index, &number(u32::from(*length) * 512));
                }
                block = block.put(482, &[u8::from(*extended)]).put(483, &number(*size));
                tar.entry(block, &vec![b's'; usize::from(*blocks) * 512])
            }
            Piece::Raw { bytes } => tar.content(bytes),
        }
    }
}

/// Adds an entry that is good for itself.
fn add_honest(tar: Tar, (kind, name, target, length): &(u8, u8, u8, u16)) -> Tar {
    let name = pick(HONEST, *name);
    let marker = name.contains(".wh.");
    match pick(b"0005512", *kind) {
        b'5' if !marker => tar.directory(name),
        b'2' if !marker && name != "." => tar.symlink(name, pick(NAMES, *target)),
        b'1' if !marker && name != "." => tar.hard_link(name, pick(HONEST, *target)),
        _ if name == "." => tar.directory(name),
        _ => tar.file(name, &vec![b'h'; if marker { 0 } else { usize::from(*length) % 2000 }]),
    }
}

impl Mutant {
    fn bytes(&self) -> Vec<u8> {
        let honest = |entries: &[_]| entries.iter().fold(Tar::new(), add_honest);
        let tar = match &self.manners {
            Manners::Honest(entries) => return honest(entries).end(),
            Manners::Mixed(entries) => honest(entries),
            Manners::Wild => Tar::new(),
        };
        let tar = self.pieces.iter().fold(tar, |tar, piece| piece.add(tar));
        let mut bytes = if self.ends { tar.end() } else { tar.cut() };
        // Few changes, or hardly any checksum would stay right.
        for (at, byte) in self.changes.iter().take(2) {
            let at = *at as usize % bytes.len().max(1);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        if let Some(cut) = self.cut {
            bytes.truncate(usize::from(cut));
        }
        bytes
    }
}

/// Says whether it was unpacked.
fn keeps_its_promises(place: &Place, blob: &[u8], compression: Compression) -> bool {
    let budget = Budget::new(BYTES_MAX, ENTRIES_MAX);
    let begin = Instant::now();
    // Looks also at what is beside the layer.
    let result = place.unpack_within(decompress(blob, compression).unwrap(), &budget);
    assert!(begin.elapsed() < WAIT, "took {:?}", begin.elapsed());
    let mut made = 0;
    inspect(&place.layer(), &mut made);
    assert!(made <= ENTRIES_MAX, "{made} files");
    place.remove();
    match result {
        Ok(unpacked) => {
            assert!(unpacked.bytes <= BYTES_MAX);
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 2048, "{error}");
            let ours = |text: &str| !text.contains('\n') && !text.contains('\0');
            assert!(ours(&error.to_string()), "{error}");
            assert!(!matches!(error, UnpackError::Read(_)), "{error:?}");
            false
        }
    }
}

fn inspect(directory: &Path, made: &mut u64) {
    for entry in fs_err::read_dir(directory).unwrap() {
        *made += 1;
        let path = entry.unwrap().path();
        let status = fs_err::symlink_metadata(&path).unwrap();
        let kind = status.file_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_char_device(), "{path:?}");
        assert!(!kind.is_char_device() || status.rdev() == 0, "{path:?}");
        assert!(kind.is_symlink() || status.mode() & 0o6000 == 0, "{path:?}: {:o}", status.mode());
        assert!(status.uid() <= 65_535 && status.gid() <= 65_535, "{path:?}");
        let mut names = [0; 4096];
        let length = llistxattr(&path, names.as_mut_slice()).unwrap();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            assert!(name.starts_with(b"user.") || name == b"trusted.overlay.opaque", "{path:?}");
        }
        if kind.is_dir() {
            inspect(&path, made);
        }
    }
}

#[test]
fn an_archive_of_anything() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let good =
        Tar::new().file("a", b"x").directory("d/").symlink("link", "../canary").hard_link("b", "a").end();
    assert!(keeps_its_promises(&place, &good, Compression::None), "one that is good is unpacked");
    check!().with_type::<Mutant>().with_iterations(INPUTS).for_each(|mutant| {
        keeps_its_promises(&place, &mutant.bytes(), Compression::None);
    });
}

#[test]
fn a_blob_of_anything() {
    if !possible() {
        return;
    }
    let place = Place::new();
    check!().with_type::<(Mutant, bool, Vec<(u16, u8)>)>().with_iterations(INPUTS / 4).for_each(
        |(mutant, zstd, changes)| {
            let bytes = mutant.bytes();
            let (mut blob, compression) = if *zstd {
                (super::streams::zstd(bytes.as_slice()), Compression::Zstd)
            } else {
                (super::streams::gzip(bytes.as_slice()), Compression::Gzip)
            };
            for (at, byte) in changes {
                let at = usize::from(*at) % blob.len();
                blob[at] = *byte;
            }
            keeps_its_promises(&place, &blob, compression);
        },
    );
}
