// SPDX-License-Identifier: Apache-2.0
//! Blobs, layers and images in a store that one process uses.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use image::store::{LayerError, Prune, Store, StoreError};
use oci_spec::image::{Descriptor, Digest, MediaType};
use protocol::limits::{IMAGE_BLOB_BYTES_MAX, IMAGE_JSON_BYTES_MAX};

use crate::sample::{assert_empty, descriptor, digest, names, put, put_image, put_layer, write_at};

fn store() -> (tempfile::TempDir, Store) {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    (images, store)
}

/// Changes bytes of a file behind the store's back.
fn tamper(images: &Path, blob: &Descriptor, change: impl FnOnce(&mut std::fs::File)) {
    let path = images.join("store-v1/blobs").join(blob.digest().digest());
    fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    change(&mut std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
}

#[test]
fn a_blob_comes_back_as_it_was_written() {
    let (images, store) = store();
    let blob = put(&store, b"a layer");
    assert!(store.has_blob(blob.digest(), 7) && !store.has_blob(blob.digest(), 8));
    assert_eq!(store.read_blob(&blob).unwrap(), b"a layer");
    assert!(store.begin_blob(&blob).unwrap().is_none(), "it is there");
    let root = fs_err::metadata(images.path().join("store-v1")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&root.permissions()) & 0o777, 0o700);
    assert_eq!(names(images.path(), "partial"), Vec::<String>::new());
}

#[test]
fn wrong_bytes_never_become_a_blob() {
    let (images, store) = store();
    let wanted = descriptor(b"what was announced");
    let mut writer = store.begin_blob(&wanted).unwrap().unwrap();
    writer.write(b"what was deliverd!").unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, StoreError::Mismatch(..)), "{error}");
    assert!(error.to_string().contains(&digest(b"what was deliverd!").to_string()), "{error}");

    let mut writer = store.begin_blob(&wanted).unwrap().unwrap();
    assert_eq!(writer.have(), 0, "nothing of the wrong bytes is gone on from");
    writer.write(b"what was announced").unwrap();
    let error = writer.write(b" and more").unwrap_err();
    assert!(matches!(error, StoreError::Size { wanted: 18, found: 27, .. }), "{error}");
    assert!(!store.has_blob(wanted.digest(), 18));
    drop(writer);
    store.prune(Prune::Loose).unwrap();
    assert_empty(images.path(), "refused bytes");
}

#[test]
fn a_writer_goes_on_where_another_ended() {
    let (_images, store) = store();
    let wanted = descriptor(b"first and second");
    let mut writer = store.begin_blob(&wanted).unwrap().unwrap();
    writer.write(b"first").unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, StoreError::Size { wanted: 16, found: 5, .. }), "{error}");
    let mut writer = store.begin_blob(&wanted).unwrap().unwrap();
    assert_eq!(writer.have(), 5);
    writer.write(b" and second").unwrap();
    writer.finish().unwrap();
    assert_eq!(store.read_blob(&wanted).unwrap(), b"first and second");
}

#[test]
fn damage_on_the_disk_is_found_on_reading_and_fetched_again() {
    let (images, store) = store();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let blob = descriptor(&bytes);
    for position in [0, 1, 150_000, 299_999] {
        put(&store, &bytes);
        tamper(images.path(), &blob, |file| {
            let mut byte = [0];
            file.seek(SeekFrom::Start(position)).unwrap();
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::Start(position)).unwrap();
            file.write_all(&[byte[0] ^ 4]).unwrap();
        });
        let mut read = Vec::new();
        let error = store.open_blob(&blob).unwrap().read_to_end(&mut read).unwrap_err();
        assert!(error.to_string().contains(blob.digest().as_ref()), "bit {position}: {error}");
        assert!(!store.has_blob(blob.digest(), blob.size()), "a damaged blob does not stay");
    }
    // Whoever stops before the end asks for the rest to be verified.
    put(&store, &bytes);
    tamper(images.path(), &blob, |file| {
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(b"!").unwrap();
    });
    let mut reader = store.open_blob(&blob).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    assert!(matches!(reader.finish().unwrap_err(), StoreError::Mismatch(..)));
    // A file that was cut or has grown is no longer the blob either.
    for length in [0, 10, 300_001] {
        put(&store, &bytes);
        tamper(images.path(), &blob, |file| file.set_len(length).unwrap());
        assert!(matches!(store.open_blob(&blob).unwrap_err(), StoreError::Missing(_)), "{length}");
        assert!(store.begin_blob(&blob).unwrap().is_some(), "{length}");
    }
}

#[test]
fn a_descriptor_that_lies_about_the_size_does_not_cost_others_their_blob() {
    let (_images, store) = store();
    let blob = put(&store, b"shared by many");
    for size in [0, 13, 15] {
        let liar = Descriptor::new(MediaType::ImageLayer, size, blob.digest().clone());
        for error in [store.open_blob(&liar).unwrap_err(), store.begin_blob(&liar).unwrap_err()] {
            assert!(matches!(error, StoreError::Size { found: 14, .. }), "{error}");
        }
    }
    assert_eq!(store.read_blob(&blob).unwrap(), b"shared by many");
}

#[test]
fn what_is_beyond_the_bounds_or_of_another_digest_is_refused_at_once() {
    let (images, store) = store();
    let large = |size| Descriptor::new(MediaType::ImageLayer, size, digest(b"large"));
    let error = store.begin_blob(&large(IMAGE_BLOB_BYTES_MAX + 1)).unwrap_err();
    assert!(matches!(error, StoreError::Bound { .. }), "{error}");
    let error = store.read_blob(&large(IMAGE_JSON_BYTES_MAX + 1)).unwrap_err();
    assert!(matches!(error, StoreError::Bound { .. }), "{error}");
    for text in
        [format!("sha512:{}", "a".repeat(128)), format!("other:{}", "a".repeat(64)), "md5:abc".to_owned()]
    {
        let other: Digest = text.parse().unwrap();
        let error = store.begin_blob(&Descriptor::new(MediaType::ImageLayer, 1, other.clone())).unwrap_err();
        assert!(matches!(error, StoreError::Digest(_)), "{error}");
        let added = store.add_layer(&other, |_| -> Result<Digest, std::io::Error> { panic!("not unpacked") });
        assert!(matches!(added.unwrap_err(), LayerError::Store(StoreError::Digest(_))));
        assert!(store.layer(&other).is_none() && !store.has_blob(&other, 1));
    }
    assert_empty(images.path(), "refusals");
}

#[test]
fn a_layer_that_fails_or_is_another_leaves_nothing() {
    let (images, store) = store();
    let diff_id = digest(b"the layer");
    let failed = store.add_layer(&diff_id, |root| {
        write_at(root, "half", b"half");
        Err::<Digest, _>(std::io::Error::other("the stream broke"))
    });
    assert!(matches!(failed.unwrap_err(), LayerError::Unpack(..)));
    assert_empty(images.path(), "a failure");
    let other = store.add_layer(&diff_id, |root| {
        write_at(root, "whole", b"whole");
        Ok::<_, std::io::Error>(digest(b"another layer"))
    });
    assert!(matches!(other.unwrap_err(), LayerError::Other(..)));
    assert!(store.layer(&diff_id).is_none());
    assert_empty(images.path(), "another layer");
}

#[test]
fn trees_are_removed_however_deep_and_whatever_their_names() {
    let (images, store) = store();
    let diff_id = digest(b"deep");
    let outside = images.path().join("outside");
    fs_err::write(&outside, "stays").unwrap();
    let added = store.add_layer(&diff_id, |root| {
        let mut directory = root.try_clone_to_owned().unwrap();
        for level in 0..1200 {
            let name = if level % 2 == 0 { ".lifted-1" } else { "directory" };
            rustix::fs::mkdirat(&directory, name, rustix::fs::Mode::from_raw_mode(0o555)).unwrap();
            rustix::fs::symlinkat(&outside, &directory, "link").unwrap();
            write_at(directory.as_fd(), ".lifted-2", b"x");
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, name, flags, rustix::fs::Mode::empty()).unwrap();
        }
        Ok::<_, std::io::Error>(diff_id.clone())
    });
    added.unwrap();
    let pruned = store.prune(Prune::Loose).unwrap();
    assert_eq!(pruned.layers, 1);
    assert!(pruned.bytes >= 1200 * 512, "{} bytes", pruned.bytes);
    assert_empty(images.path(), "a prune");
    assert_eq!(fs_err::read_to_string(outside).unwrap(), "stays");
}

#[test]
fn images_are_found_by_reference_and_by_the_beginning_of_their_digest() {
    let (_images, store) = store();
    let one = put_image(&store, "docker.io/library/one:1", &["base", "one"]);
    put_image(&store, "docker.io/library/two:1", &["base", "two"]);
    let again = put_image(&store, "docker.io/library/one:latest", &["base", "one"]);
    assert_eq!(store.find("docker.io/library/one:1").unwrap().as_ref(), Some(&one));
    for digest in [&one.manifest_digest, &one.config_digest] {
        for name in [digest.to_string(), digest.digest().to_owned(), digest.digest()[..12].to_owned()] {
            let found = store.find(&name).unwrap().unwrap();
            assert_eq!(found.manifest_digest, one.manifest_digest, "{name}");
        }
    }
    assert!(store.find(&one.manifest_digest.digest()[..3]).unwrap().is_none(), "too short for a name");
    assert!(store.find("../../etc/passwd").unwrap().is_none());
    let references: Vec<String> =
        store.list().unwrap().images.into_iter().map(|image| image.reference).collect();
    assert_eq!(
        references,
        ["docker.io/library/one:1", "docker.io/library/one:latest", "docker.io/library/two:1"]
    );
    assert!(store.untag(&again.reference).unwrap() && !store.untag(&again.reference).unwrap());
    assert!(store.find(&again.reference).unwrap().is_none());
}

#[test]
fn a_beginning_that_two_images_share_is_ambiguous() {
    let (_images, store) = store();
    let mut image = put_image(&store, "one", &["base"]);
    image.config_digest = format!("sha256:abcd{}", "0".repeat(60)).parse().unwrap();
    store.tag(&image).unwrap();
    image.reference = "two".to_owned();
    assert_eq!(store.find("abcd").unwrap().unwrap().reference, "one");
    image.manifest_digest = format!("sha256:abcd{}", "1".repeat(60)).parse().unwrap();
    store.tag(&image).unwrap();
    assert!(matches!(store.find("abcd").unwrap_err(), StoreError::Ambiguous(_)));
}

#[test]
fn a_prune_takes_what_belongs_to_no_image_and_nothing_else() {
    let (images, store) = store();
    let image = put_image(&store, "kept", &["base", "kept"]);
    let loose = put(&store, b"loose");
    put_layer(&store, "loose");
    let mut writer = store.begin_blob(&descriptor(b"half")).unwrap().unwrap();
    writer.write(b"ha").unwrap();
    let pruned = store.prune(Prune::Loose).unwrap();
    assert_eq!((pruned.blobs, pruned.layers, pruned.images.len()), (1, 1, 0), "what is being written stays");
    assert!(!store.has_blob(loose.digest(), loose.size()));
    writer.write(b"lf").unwrap();
    writer.finish().unwrap();
    for layer in &image.layers {
        assert!(store.has_blob(&layer.blob, layer.size));
        assert!(store.layer(&layer.diff_id).unwrap().join("file").is_file());
    }
    let pruned = store.prune(Prune::Images).unwrap();
    assert_eq!((pruned.images, pruned.layers), (vec!["kept".to_owned()], 2));
    assert_empty(images.path(), "all was pruned");
}

#[test]
fn removing_an_image_leaves_what_others_share_with_it() {
    let (_images, store) = store();
    let one = put_image(&store, "one", &["base", "one"]);
    let two = put_image(&store, "two", &["base", "two"]);
    let stranger = put(&store, b"not of this image");
    let removed = store.remove("one").unwrap().unwrap();
    assert!(!removed.in_use);
    assert_eq!(
        (removed.pruned.blobs, removed.pruned.layers),
        (3, 1),
        "manifest, configuration and one layer"
    );
    assert!(store.layer(&one.layers[1].diff_id).is_none());
    assert!(two.layers.iter().all(|layer| store.layer(&layer.diff_id).is_some()));
    assert!(store.has_blob(stranger.digest(), stranger.size()));
    assert!(store.remove("one").unwrap().is_none());
}

#[test]
fn a_broken_record_is_reported_by_name_and_costs_no_other_image() {
    let (images, store) = store();
    let image = put_image(&store, "good", &["base"]);
    put_image(&store, "bad", &["other"]);
    let records = images.path().join("store-v1/records");
    let bad = format!("{}.json", digest(b"bad").digest());
    let whole = fs_err::read_to_string(records.join(&bad)).unwrap();
    let stranger = format!("{}.json", digest(b"stranger").digest());
    for (text, why) in [
        (String::new(), "EOF"),
        (whole[..whole.len() / 2].to_owned(), "EOF"),
        (whole.replace("sha256:", "sha512:"), "digest"),
        (whole.replace("sha256:", "../../../"), "digest"),
        (whole.replace("\"bad\"", "\"worse\""), "another reference"),
        ("x".repeat(300_000), "300000 bytes"),
    ] {
        fs_err::write(records.join(&bad), text).unwrap();
        let listing = Store::open(images.path()).unwrap().list().unwrap();
        assert_eq!(listing.images, std::slice::from_ref(&image));
        assert_eq!(listing.broken.len(), 1);
        assert_eq!(listing.broken[0].file, bad);
        assert!(listing.broken[0].why.contains(why), "{why}: {}", listing.broken[0].why);
        let error = store.find("bad").unwrap_err();
        assert!(error.to_string().contains(&bad), "{error}");
    }
    std::os::unix::fs::symlink("/etc/hostname", records.join(&stranger)).unwrap();
    // Nobody knows what they need: so nothing is taken, and the prune says why.
    let before = names(images.path(), "blobs");
    let pruned = store.prune(Prune::Loose).unwrap();
    assert_eq!((pruned.blobs, pruned.layers, pruned.broken.len()), (0, 0, 2));
    assert_eq!(names(images.path(), "blobs"), before);
    // A broken one goes by the name of its file, or when its reference is pulled again.
    assert!(store.remove(&stranger).unwrap().unwrap().image.is_none());
    put_image(&store, "bad", &["other"]);
    assert_eq!(store.list().unwrap().broken, []);
    assert_eq!(store.find("bad").unwrap().unwrap().reference, "bad");
}
