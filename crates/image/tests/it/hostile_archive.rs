// SPDX-License-Identifier: Apache-2.0
//! Archives that lie, lead astray, are too large or end too soon: each is refused, and nothing of it stays.

use std::io::Read;

use image::archive::{ArchiveError, LoadOptions, Source, load};
use image::store::Store;
use oci_spec::image::MediaType;
use protocol::limits::{
    ARCHIVE_ENTRIES_MAX, ARCHIVE_IMAGES_MAX, ARCHIVE_INDEX_DEPTH_MAX, IMAGE_JSON_BYTES_MAX, IMAGE_LAYERS_MAX,
};
use serde_json::{Value, json};

use crate::sample::{
    Files, add_blob, add_image, add_index, assert_empty, digest, gzip, layout, options, tar_of, tar_of_files,
};

/// Loads what must be refused, sees that nothing stays, and returns what was said.
fn refused(bytes: &[u8], options: &LoadOptions<'_>) -> String {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    let mut reader = bytes;
    let error = load(&store, Source::Reader(&mut reader), options).expect_err("it must be refused");
    assert_empty(images.path(), &error.to_string());
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(text.len() < 2000 && !text.chars().any(char::is_control), "{text:?}");
    text
}

fn check(bytes: &[u8], says: &str) {
    let text = refused(bytes, &options(Some("hostile")));
    assert!(text.contains(says), "{text:?} does not say {says:?}");
}

/// A docker archive with this `manifest.json`, one layer and its configuration.
fn docker(manifest: &Value) -> Vec<u8> {
    let layer = tar_of(&[("file", "x")]);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
    tar_of(&[
        ("layer.tar", layer),
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ])
}

fn change(files: &mut Files, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(files[name].clone()).unwrap();
    assert!(text.contains(from), "{text}");
    files.insert(name.to_owned(), text.replace(from, to).into_bytes());
}

#[test]
fn names_lead_nowhere_but_to_files_of_the_archive() {
    let entry =
        |config: &str, layer: &str| json!([{"Config": config, "RepoTags": ["a:1"], "Layers": [layer]}]);
    for name in ["../../../../etc/passwd", "/etc/passwd", "missing", "", ".", "\u{0}", "\u{1b}[31mred"] {
        check(&docker(&entry(name, "layer.tar")), "the archive has no file");
        check(&docker(&entry("config.json", name)), "the archive has no file");
    }
    check(&docker(&entry("config.json", "config.json")), "config.json in the archive is wrong");
}

#[test]
fn links_lead_out_of_no_archive_and_no_directory() {
    for (kind, target) in [
        (tar::EntryType::Symlink, "/etc/hostname"),
        (tar::EntryType::Symlink, "../../../../etc/hostname"),
        (tar::EntryType::Symlink, "config.json"),
        (tar::EntryType::Link, "/etc/hostname"),
        (tar::EntryType::Link, "../etc/hostname"),
        (tar::EntryType::Fifo, "nothing"),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, "config.json", target).unwrap();
        let manifest = br#"[{"Config":"config.json","Layers":["l"]}]"#;
        let mut header = tar::Header::new_gnu();
        header.set_size(manifest.len() as u64);
        builder.append_data(&mut header, "manifest.json", manifest.as_slice()).unwrap();
        check(&builder.into_inner().unwrap(), "the archive has no file config.json");
    }

    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    fs_err::create_dir_all(outside.path().join("sha256")).unwrap();
    for (name, bytes) in layout() {
        let place = match name.strip_prefix("blobs/") {
            Some(blob) => outside.path().join(blob),
            None => folder.path().join(name),
        };
        fs_err::write(place, bytes).unwrap();
    }
    fs_err::os::unix::fs::symlink(outside.path(), folder.path().join("blobs")).unwrap();
    let error = load(&store, Source::Path(folder.path()), &options(None)).unwrap_err();
    assert!(matches!(error, ArchiveError::Missing(_)), "{error}");
    assert_empty(images.path(), "a layout behind a link");
}

#[test]
fn wrong_digests_and_sizes_are_refused() {
    let whole = layout();
    for name in whole.keys().filter(|name| name.starts_with("blobs/")) {
        let mut files = whole.clone();
        files.get_mut(name).unwrap()[3] ^= 1;
        check(&tar_of_files(&files), "is not what was received or stored");
        let mut files = whole.clone();
        files.get_mut(name).unwrap().push(b' ');
        check(&tar_of_files(&files), "bytes, not");
        let mut files = whole.clone();
        files.get_mut(name).unwrap().pop();
        check(&tar_of_files(&files), "bytes, not");
        let mut files = whole.clone();
        files.remove(name);
        check(&tar_of_files(&files), "the archive has no file blobs/sha256/");
    }
    let mut files = whole.clone();
    change(&mut files, "index.json", "sha256:", "sha256:../../../");
    check(&tar_of_files(&files), "index.json in the archive is wrong");
    let layer = tar_of(&[("another", "x")]);
    let other = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(b"x")]}});
    let manifest = json!([{"Config": "c", "Layers": ["l"]}]).to_string().into_bytes();
    let bytes = tar_of(&[("l", layer), ("c", other.to_string().into_bytes()), ("manifest.json", manifest)]);
    check(&bytes, "l in the archive is wrong: it is sha256:");
}

#[test]
fn an_archive_that_ends_too_soon_is_refused_wherever_it_ends() {
    let oci = tar_of_files(&layout());
    let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]);
    for whole in [oci, docker(&manifest)] {
        // The last block is the second one of the end mark, which nobody needs.
        for end in (0..=whole.len() - 1024).step_by(512).flat_map(|end| [end, end + 100]) {
            let text = refused(&whole[..end.min(whole.len() - 1024)], &options(None));
            assert!(!text.is_empty());
        }
        let compressed = gzip(&whole);
        for end in [1, 10, compressed.len() / 2, compressed.len() - 9, compressed.len() - 1] {
            refused(&compressed[..end], &options(None));
        }
    }
}

#[test]
fn what_is_no_archive_or_no_json_is_refused() {
    check(b"", "this is no OCI layout");
    check(b"<!DOCTYPE html><html></html>", "this is no OCI layout");
    check(&[0; 4096], "this is no OCI layout");
    check(&[7; 4096], "this is no OCI layout");
    check(b"\x1f\x8b nonsense", "cannot read the archive");
    check(b"\x28\xb5\x2f\xfd nonsense", "cannot read the archive");
    for text in ["<html>", "", "[]", "{}", "null", "[[[[", "\"\u{1b}[31m\""] {
        check(&tar_of(&[("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"), ("index.json", text)]), "");
        check(&tar_of(&[("manifest.json", text)]), "");
    }
    let mut files = layout();
    change(&mut files, "oci-layout", "1.0.0", "9.0.0");
    check(&tar_of_files(&files), "its version is 9.0.0");
    let mut files = layout();
    files.insert("index.json".into(), files["index.json"].clone());
    let mut twice: Vec<(String, Vec<u8>)> = files.clone().into_iter().collect();
    twice.push(("index.json".to_owned(), b"{}".to_vec()));
    check(&tar_of(&twice), "it has index.json twice");
}

#[test]
fn what_is_too_large_or_too_many_is_refused() {
    let spaces = " ".repeat(usize::try_from(IMAGE_JSON_BYTES_MAX).unwrap() + 1);
    check(&tar_of(&[("manifest.json", &spaces)]), "beyond the bound");
    check(&tar_of(&[("oci-layout", &spaces), ("index.json", &spaces)]), "beyond the bound");
    let mut files = Files::new();
    let mut large = add_blob(&mut files, spaces.as_bytes());
    large["mediaType"] = json!(MediaType::ImageManifest);
    add_index(&mut files, &[large]);
    check(&tar_of_files(&files), "beyond the bound");

    let layers = vec!["layer.tar"; IMAGE_LAYERS_MAX + 1];
    check(&docker(&json!([{"Config": "config.json", "Layers": layers}])), "the number of layers (129)");
    let mut files = Files::new();
    let layers = vec![tar_of(&[("a", "b")]); 200];
    let image = add_image(&mut files, &layers, "amd64");
    add_index(&mut files, &[image]);
    check(&tar_of_files(&files), "the number of layers (200)");
    let mut files = Files::new();
    let image = add_image(&mut files, &[], "amd64");
    add_index(&mut files, &[image]);
    check(&tar_of_files(&files), "it names 0 layers");

    let entries = vec![json!({"Config": "config.json", "Layers": ["layer.tar"]}); ARCHIVE_IMAGES_MAX + 1];
    let text = refused(&docker(&json!(entries)), &options(None));
    assert!(text.contains("the number of images"), "{text}");
    let mut many: Vec<(String, &str)> = vec![("manifest.json".to_owned(), "[]")];
    many.extend((0..ARCHIVE_ENTRIES_MAX).map(|number| (number.to_string(), "")));
    check(&tar_of(&many), "it has more than 65536 files");
}

#[test]
fn indexes_that_lead_on_and_on_are_refused() {
    let mut files = Files::new();
    let mut entry = add_image(&mut files, &[tar_of(&[("a", "b")])], "amd64");
    for _ in 0..=ARCHIVE_INDEX_DEPTH_MAX {
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        entry = add_blob(&mut files, index.to_string().as_bytes());
        entry["mediaType"] = json!(MediaType::ImageIndex);
    }
    add_index(&mut files, &[entry]);
    check(&tar_of_files(&files), "the depth of indexes of the archive is beyond the bound of 3");
}

#[test]
fn bombs_are_refused_before_they_fill_the_disk() {
    // Streams follow each other in one file: so a bomb is quickly made.
    let zeros = vec![0; 1024 * 1024];
    let mut member = Vec::new();
    flate2::read::GzEncoder::new(zeros.as_slice(), flate2::Compression::best())
        .read_to_end(&mut member)
        .unwrap();
    check(&member.repeat(40), "bytes become more than");
    check(&zstd::encode_all(zeros.as_slice(), 3).unwrap().repeat(40), "bytes become more than");
}

#[test]
fn headers_that_lie_are_refused() {
    let lying = |change: &dyn Fn(&mut tar::Header), says: &str| {
        let mut bytes = tar_of(&[("manifest.json", "[]")]);
        let mut header = tar::Header::new_gnu();
        header.set_path("layer").unwrap();
        header.set_size(0);
        change(&mut header);
        header.set_cksum();
        bytes.truncate(1024);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 1024]);
        check(&bytes, says);
    };
    lying(&|header| header.set_size(u64::MAX), "in the middle of a file");
    lying(&|header| header.set_size(1 << 40), "in the middle of a file");
    lying(&|header| header.as_old_mut().size = *b"-0000000001\0", "the tar in the archive is wrong");
    lying(&|header| header.as_old_mut().size = [0xff; 12], "the tar in the archive is wrong");
    lying(&|header| header.set_entry_type(tar::EntryType::GNUSparse), "sparse");
    let long = |header: &mut tar::Header| {
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 30);
    };
    lying(&long, "bytes of extended header");
}
