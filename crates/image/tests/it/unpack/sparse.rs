// SPDX-License-Identifier: Apache-2.0
//! Files with holes.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use image::unpack::{Budget, Refusal, UnpackError};

use super::place::{Place, possible, refused};
use super::tar::{Block, Tar};

#[test]
fn what_tar_of_the_system_writes_is_unpacked_as_it_was() {
    if !possible() {
        return;
    }
    let original = tempfile::tempdir().unwrap();
    let path = original.path().join("holes");
    let file = fs_err::File::create(&path).unwrap();
    file.set_len(50_000_000).unwrap();
    // More pieces than one header and one block after it have room for.
    for number in 0..60_u64 {
        file.file().write_all_at(&number.to_le_bytes().repeat(100), 1_048_576 / 2 * (number + 1)).unwrap();
    }
    drop(file);
    let empty = original.path().join("empty");
    fs_err::File::create(&empty).unwrap().set_len(1_000_001).unwrap();
    let write = |options: &[&str]| {
        let output = Command::new("tar")
            .args(options)
            .args(["-cS", "holes", "empty"])
            .current_dir(original.path())
            .output();
        output.unwrap().stdout
    };
    for options in [&["--format=gnu"][..], &["--format=pax"], &["--format=pax", "--sparse-version=1.0"]] {
        let tar = write(options);
        assert!(tar.len() < 1_000_000);
        let place = Place::new();
        let unpacked = place.unpack(tar.as_slice()).unwrap();
        assert_eq!(unpacked.bytes, 51_000_001);
        for name in ["holes", "empty"] {
            let copy = place.layer().join(name);
            assert!(
                fs_err::read(&copy).unwrap() == fs_err::read(original.path().join(name)).unwrap(),
                "{options:?}"
            );
            assert!(fs_err::metadata(&copy).unwrap().blocks() < 2048, "{options:?}: the holes are filled");
        }
    }
    let why = Refusal::Sparse("is of another format than GNU tar's 1.0");
    for version in ["0.0", "0.1"] {
        let tar = write(&["--format=pax", &format!("--sparse-version={version}")]);
        let text = if version == "0.0" { "has a record twice" } else { "" };
        if text.is_empty() {
            refused(
                &tar,
                why,
                "refused the entry \"holes\": its sparse map is of another format than GNU tar's 1.0",
            );
        } else {
            assert!(matches!(Place::new().unpack(tar.as_slice()), Err(UnpackError::Refused { .. })));
        }
    }
}

fn number(value: u64) -> Vec<u8> {
    format!("{value:011o}\0").into_bytes()
}

/// A header of the old format, with these pieces.
fn old(size: u64, stored: usize, pieces: &[(u64, u64)]) -> Block {
    let mut block = Block::new(b'S', "a").gnu().size(stored).put(483, &number(size));
    for (index, (offset, length)) in pieces.iter().enumerate() {
        block = block.put(386 + 24 * index, &number(*offset)).put(398 + 24 * index, &number(*length));
    }
    block
}

#[test]
fn maps_that_cannot_be() {
    if !possible() {
        return;
    }
    let check = |tar: Tar, why: &'static str| {
        let text = format!("refused the entry \"a\": its sparse map {why}");
        refused(&tar.end(), Refusal::Sparse(why), &text);
    };
    let block = [b'x'; 512];
    let two = [block, block].concat();
    check(
        Tar::new().entry(old(2048, 1024, &[(1024, 512), (0, 512)]), &two),
        "has pieces that overlap or are out of order",
    );
    check(
        Tar::new().entry(old(2048, 1024, &[(0, 512), (511, 512)]), &two),
        "has pieces that overlap or are out of order",
    );
    check(Tar::new().entry(old(1024, 1024, &[(512, 1024)]), &two), "has a piece beyond the end of the file");
    check(Tar::new().entry(old(2048, 1024, &[(0, 512)]), &two), "has not the size of what is there");
    check(Tar::new().entry(old(2048, 512, &[(0, 1024)]), &block), "has not the size of what is there");
    check(
        Tar::new().entry(old(2048, 200, &[(0, 100), (512, 100)]), &block),
        "has a piece that is not made of whole blocks",
    );
    check(Tar::new().entry(Block::new(b'S', "a"), b""), "is in a header that has no room for it");
    let endless = Tar::new().entry(old(0, 0, &[]).put(482, b"\x01"), b"").content(&[0; 512]);
    check(endless, "has a part without pieces");
    let pax = |map: &[u8]| {
        let records = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"a"),
            ("GNU.sparse.realsize", b"2048"),
        ];
        Tar::new().pax(&records).file("b", map)
    };
    let text = |map: &str| {
        let mut block = map.as_bytes().to_vec();
        block.resize(512, 0);
        block
    };
    check(pax(b""), "is malformed");
    check(pax(&text("1\n0\n")), "is malformed");
    check(pax(&text("x\n")), "is malformed");
    check(pax(&text("-1\n")), "is malformed");
    check(pax(&text("111111111111111111111\n")), "is malformed");
    check(pax(&text("65537\n")), "has too many pieces");
    check(pax(&text("1\n2048\n1\n")), "has a piece beyond the end of the file");
    check(pax(&text("1\n18446744073709551615\n1\n")), "has a piece beyond the end of the file");
    check(pax(&text("1\n0\n512\n")), "has not the size of what is there");
    let version = Tar::new().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]).file("a", b"");
    check(version, "is of another format than GNU tar's 1.0");
}

#[test]
fn holes_count_as_bytes() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let size = 8 * 1024 * 1024 * 1024 - 1;
    let tar = Tar::new().entry(old(size, 0, &[]), b"").end();
    let error = place.unpack_within(tar.as_slice(), &Budget::new(1 << 30, 10)).unwrap_err();
    assert_eq!(error.to_string(), "the layer has more than 1073741824 bytes, unpacked");
    assert_eq!(fs_err::read_dir(place.layer()).unwrap().count(), 0);
    let huge = Tar::new().entry(Block::new(b'S', "a").gnu().put(483, b"777777777777"), b"").end();
    let why = "is more than a file of a layer may have";
    refused(&huge, Refusal::Size(why), &format!("refused the entry \"a\": its size {why}"));
}
