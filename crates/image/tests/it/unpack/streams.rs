// SPDX-License-Identifier: Apache-2.0
//! Blobs and archives that end too early, too late or never.

use std::io::{self, Cursor, Read, Write};

use flate2::write::GzEncoder;
use image::unpack::{Budget, Compression, UnpackError, Unpacked, decompress};

use super::place::{Place, possible};
use super::tar::{Block, Tar, record};

pub(super) fn gzip(bytes: impl Read) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::copy(&mut { bytes }, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: impl Read) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn unpack(blob: impl Read, compression: Compression) -> Result<Unpacked, UnpackError> {
    let place = Place::new();
    let result = place.unpack(decompress(blob, compression)?);
    place.remove();
    result
}

fn small() -> Vec<u8> {
    Tar::new().directory("d/").file("d/f", &[7; 1000]).pax(&[("path", b"p")]).file("x", b"y").end()
}

/// The same bytes again and again, for ever.
struct Endless(Cursor<Vec<u8>>);

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read(&mut into[filled..])? {
                0 => self.0.set_position(0),
                length => filled += length,
            }
        }
        Ok(filled)
    }
}

fn endless(tar: Tar) -> Endless {
    Endless(Cursor::new(tar.cut()))
}

/// One byte at a time, with interruptions.
struct Drip<R>(R, bool);

impl<R: Read> Read for Drip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.0.read(&mut into[..1])
    }
}

#[test]
fn every_compression_gives_the_same_layer() {
    if !possible() {
        return;
    }
    let tar = small();
    let plain = unpack(tar.as_slice(), Compression::None).unwrap();
    assert_eq!(plain.entries, 3);
    let (gzipped, zstd) = (gzip(tar.as_slice()), zstd(tar.as_slice()));
    let members = [gzip(&tar[..700]), gzip(&[][..]), gzip(&tar[700..])].concat();
    let frames = [super::streams::zstd(&tar[..700]), super::streams::zstd(&tar[700..])].concat();
    for (blob, compression) in [
        (&gzipped, Compression::Gzip),
        (&members, Compression::Gzip),
        (&zstd, Compression::Zstd),
        (&frames, Compression::Zstd),
    ] {
        assert_eq!(unpack(blob.as_slice(), compression).unwrap(), plain);
        assert_eq!(unpack(Drip(blob.as_slice(), false), compression).unwrap(), plain);
    }
    assert_eq!(unpack(Drip(tar.as_slice(), false), Compression::None).unwrap(), plain);
}

#[test]
fn a_stream_that_is_cut_anywhere_is_refused() {
    if !possible() {
        return;
    }
    let tar = small();
    let truncated = |blob: &[u8], compression: Compression, at: usize| {
        let error = unpack(blob, compression).unwrap_err();
        assert!(matches!(error, UnpackError::Truncated), "at {at}: {error:?}");
        assert_eq!(error.to_string(), "the layer ends before its archive does");
    };
    // Without the last of the two blocks of zeros the archive is complete still.
    for at in (0..tar.len() - 512).step_by(61).chain([511, 512, 513, tar.len() - 1024, tar.len() - 513]) {
        truncated(&tar[..at], Compression::None, at);
    }
    for (blob, compression) in
        [(gzip(tar.as_slice()), Compression::Gzip), (zstd(tar.as_slice()), Compression::Zstd)]
    {
        for at in 0..blob.len() {
            truncated(&blob[..at], compression, at);
        }
    }
    let extension = Tar::new().pax(&[("path", b"a")]).end();
    truncated(&extension, Compression::None, 0);
}

#[test]
fn a_blob_that_is_damaged_or_of_another_kind_is_refused() {
    if !possible() {
        return;
    }
    let tar = small();
    let check = |blob: &[u8], compression: Compression, name: &str| {
        let error = unpack(blob, compression).unwrap_err();
        assert!(matches!(error, UnpackError::Compression(..)), "{name} {:?}: {error:?}", &blob[..4]);
        assert_eq!(error.to_string(), format!("cannot decompress the layer as {name}"));
    };
    check(&tar, Compression::Gzip, "gzip");
    check(&tar, Compression::Zstd, "zstd");
    check(&zstd(tar.as_slice()), Compression::Gzip, "gzip");
    check(&gzip(tar.as_slice()), Compression::Zstd, "zstd");
    let mut wrong_sum = gzip(tar.as_slice());
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    check(&wrong_sum, Compression::Gzip, "gzip");
    check(&[gzip(tar.as_slice()), b"more and more".to_vec()].concat(), Compression::Gzip, "gzip");
    check(&[zstd(tar.as_slice()), b"more and more".to_vec()].concat(), Compression::Zstd, "zstd");
}

#[test]
fn errors_of_the_reader_are_told_as_they_are() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line is dead"))
        }
    }
    if !possible() {
        return;
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let error = unpack(Broken, compression).unwrap_err();
        let UnpackError::Read(source) = &error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "the line is dead");
        assert_eq!(error.to_string(), "cannot read the layer");
    }
}

#[test]
fn bombs_are_stopped_by_their_ratio() {
    if !possible() {
        return;
    }
    let size = 64 * 1024 * 1024;
    let bomb = || {
        Cursor::new(Tar::new().entry(Block::new(b'0', "zeros").size(size), b"").cut())
            .chain(io::repeat(0).take(size as u64))
    };
    for (blob, compression) in [(gzip(bomb()), Compression::Gzip), (zstd(bomb()), Compression::Zstd)] {
        assert!(blob.len() < 1_000_000);
        let error = unpack(blob.as_slice(), compression).unwrap_err();
        assert_eq!(error.to_string(), "the layer has more than 200 bytes for each byte of its blob");
    }
}

#[test]
fn a_small_layer_of_zeros_is_no_bomb() {
    if !possible() {
        return;
    }
    let size = 30 * 1024 * 1024;
    let tar = Tar::new().file("zeros", &vec![0; size]).end();
    for (blob, compression) in
        [(gzip(tar.as_slice()), Compression::Gzip), (zstd(tar.as_slice()), Compression::Zstd)]
    {
        assert_eq!(unpack(blob.as_slice(), compression).unwrap().bytes, size as u64);
    }
}

#[test]
fn a_zstd_layer_that_asks_for_too_much_memory_is_refused() {
    if !possible() {
        return;
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&small()).unwrap();
    let blob = encoder.finish().unwrap();
    let error = unpack(blob.as_slice(), Compression::Zstd).unwrap_err();
    assert_eq!(error.to_string(), "cannot decompress the layer as zstd");
}

#[test]
fn a_million_entries_are_refused() {
    if !possible() {
        return;
    }
    let devices = Tar::new().entry(Block::new(b'3', "null"), b"");
    let error = unpack(endless(devices).take(1_000_000 * 512), Compression::None).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { max: 800_000, .. }), "{error:?}");
    assert_eq!(error.to_string(), "the layer has more than 800000 entries");
}

#[test]
fn directories_that_only_names_imply_are_entries_too() {
    if !possible() {
        return;
    }
    let deep = |number: usize| format!("{number}/{}", vec!["d"; 250].join("/"));
    let names =
        (0..10).map(deep).fold(Tar::new(), |tar, name| tar.pax(&[("path", name.as_bytes())]).file("x", b""));
    let place = Place::new();
    let error = place.unpack_within(names.end().as_slice(), &Budget::new(1 << 30, 1000)).unwrap_err();
    assert_eq!(error.to_string(), "the layer has more than 1000 entries");
    place.remove();
}

#[test]
fn streams_without_end_are_stopped() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let stopped = |tar: &mut dyn Read| {
        let error = place.unpack_within(tar, &Budget::new(16 << 20, 10_000)).unwrap_err();
        place.remove();
        error.to_string()
    };
    let entries = "the layer has more than 10000 entries";
    let bytes = "the layer has more than 16777216 bytes, unpacked";
    assert_eq!(stopped(&mut endless(Tar::new().entry(Block::new(b'3', "a"), b""))), entries);
    assert_eq!(stopped(&mut endless(Tar::new().directory("a"))), entries);
    assert_eq!(stopped(&mut endless(Tar::new().file(".wh.a", b""))), entries);
    let comment = record("comment", b"x");
    let global = Tar::new().entry(Block::new(b'g', "g").size(comment.len()), &comment);
    assert_eq!(stopped(&mut endless(global)), entries);
    let records = record("comment", &vec![b'x'; 1_000_000]);
    assert_eq!(stopped(&mut endless(Tar::new().raw_pax(&records).entry(Block::new(b'3', "a"), b""))), bytes);
    let file = Tar::new().entry(Block::new(b'0', "a").put(124, b"77777777777"), b"");
    assert_eq!(stopped(&mut Cursor::new(file.cut()).chain(io::repeat(1))), bytes);
    let leftover = Tar::new().file(".wh..wh.a", &[1; 100_000]);
    assert_eq!(stopped(&mut endless(leftover)), bytes);
    let zeros = "the layer has more than 1048576 bytes after the end of its archive";
    assert_eq!(stopped(&mut Cursor::new(small()).chain(io::repeat(0))), zeros);
    assert_eq!(stopped(&mut io::repeat(0)), zeros);
    let names = Tar::new().pax(&[("path", "n/".repeat(250).as_bytes())]).directory("x");
    let error = place.unpack(endless(names)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the layer has more than 67108864 bytes of names of directories and whiteouts"
    );
}

#[test]
fn only_zeros_may_follow_the_archive() {
    if !possible() {
        return;
    }
    let mut tar = small();
    tar.resize(tar.len() + 10_240, 0);
    assert!(unpack(tar.as_slice(), Compression::None).is_ok());
    tar.extend_from_slice(b"x");
    let error = unpack(tar.as_slice(), Compression::None).unwrap_err();
    assert!(matches!(error, UnpackError::Trailing));
    assert_eq!(error.to_string(), "the layer has data after the end of its archive");
    let second = [small(), Tar::new().file("../canary/file", b"x").end()].concat();
    assert!(matches!(unpack(second.as_slice(), Compression::None), Err(UnpackError::Trailing)));
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    if !possible() {
        return;
    }
    let place = Place::new();
    fs_err::write(place.layer().join("mine"), "x").unwrap();
    let error = place.unpack(Tar::new().file("mine", b"y").end().as_slice()).unwrap_err();
    assert_eq!(error.to_string(), "cannot write the entry \".\"");
    assert_eq!(fs_err::read(place.layer().join("mine")).unwrap(), b"x");
}

#[test]
fn media_types_tell_the_compression() {
    let (oci, docker) =
        ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
    for (media_type, compression) in [
        (oci.to_owned(), Compression::None),
        (format!("{oci}+gzip"), Compression::Gzip),
        (format!("{oci}+zstd"), Compression::Zstd),
        (docker.to_owned(), Compression::None),
        (format!("{docker}.gzip"), Compression::Gzip),
        (format!("{docker}.zstd"), Compression::Zstd),
    ] {
        assert_eq!(Compression::from_media_type(&media_type).unwrap(), compression);
    }
    for (media_type, why) in [
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "they are foreign, which registries do not have",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "they are foreign, which registries do not have",
        ),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "they are encrypted, and there is no key"),
        ("application/vnd.oci.image.config.v1+json", "this is no type of a layer that is known"),
        ("", "this is no type of a layer that is known"),
    ] {
        let error = Compression::from_media_type(media_type).unwrap_err();
        assert_eq!(error.to_string(), format!("layers of type {media_type:?} are not unpacked: {why}"));
    }
}
