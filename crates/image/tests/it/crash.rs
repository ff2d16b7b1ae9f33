// SPDX-License-Identifier: Apache-2.0
//! `kill -9` at many moments: what the store holds afterwards is whole, and what was half made is gone.

use std::path::Path;

use image::store::{ImageRecord, LayerRecord, Prune, Store};
use oci_spec::image::Digest;

use crate::sample::{PLATFORM, assert_empty, descriptor, digest, names, put, write_at};
use crate::store_sharing::{Process, step};

const CHUNKS: usize = 8;
const FILES: usize = 12;

fn chunk(blob: usize) -> Vec<u8> {
    vec![u8::try_from(blob).unwrap(); 20_000]
}

/// Writes two blobs, a layer and a record; says after each step that it has done so.
pub(crate) fn write_everything(store: &Store) {
    for blob in 0..2 {
        if let Some(mut writer) = store.begin_blob(&descriptor(&chunk(blob).repeat(CHUNKS))).unwrap() {
            while writer.have() < writer_size() {
                writer.write(&chunk(blob)[..remaining(writer.have())]).unwrap();
                step("chunk");
            }
            writer.finish().unwrap();
            step("blob");
        }
    }
    let diff_id = unpack(store, "layer", FILES);
    step("layer");
    let blob = descriptor(&chunk(0).repeat(CHUNKS));
    store
        .tag(&ImageRecord {
            reference: "image".to_owned(),
            manifest_digest: descriptor(&chunk(1).repeat(CHUNKS)).digest().clone(),
            index_digest: None,
            config_digest: blob.digest().clone(),
            layers: vec![LayerRecord { blob: blob.digest().clone(), diff_id, size: blob.size() }],
            platform: PLATFORM.to_owned(),
            pulled: 1,
            size: 1,
        })
        .unwrap();
    step("record");
}

fn writer_size() -> u64 {
    (20_000 * CHUNKS) as u64
}

fn remaining(have: u64) -> usize {
    20_000 - usize::try_from(have % 20_000).unwrap()
}

fn unpack(store: &Store, name: &str, files: usize) -> Digest {
    let diff_id = digest(name.as_bytes());
    let added = store.add_layer(&diff_id, |root| {
        for file in 0..files {
            write_at(root, &format!("file-{file}"), name.as_bytes());
            if files == FILES {
                step("file");
            }
        }
        Ok::<_, std::io::Error>(diff_id.clone())
    });
    added.unwrap();
    diff_id
}

/// Adds layers and blobs and collects them again, for ever.
pub(crate) fn churn(store: &Store) {
    for round in 0.. {
        for layer in 0..2 {
            unpack(store, &format!("layer {round} {layer}"), 100);
        }
        put(store, format!("blob {round}").as_bytes());
        step("added");
        store.prune(Prune::Loose).unwrap();
        step("pruned");
    }
}

/// Opens the store as the next process does, and fails if anything in it is not whole.
fn check(images: &Path, files: usize, after: &str) -> Store {
    let store = Store::open(images).unwrap();
    for name in names(images, "blobs") {
        let bytes = fs_err::read(images.join("store-v1/blobs").join(&name)).unwrap();
        assert_eq!(digest(&bytes).digest(), name, "a blob after {after}");
    }
    for name in names(images, "layers") {
        let root = images.join("store-v1/layers").join(&name).join("root");
        assert_eq!(fs_err::read_dir(root).unwrap().count(), files, "a layer after {after}");
    }
    assert_eq!(names(images, "making"), Vec::<String>::new(), "after {after}");
    assert_eq!(names(images, "removing"), Vec::<String>::new(), "after {after}");
    assert_eq!(names(images, "leases"), Vec::<String>::new(), "after {after}");
    let records = names(images, "records");
    let listing = store.list().unwrap();
    assert_eq!(listing.broken, [], "after {after}");
    assert_eq!(records.len(), listing.images.len(), "after {after}: {records:?}");
    store
}

#[test]
fn a_writer_killed_at_any_step_leaves_whole_things_or_nothing() {
    // Two blobs with a step for each chunk and the end, a step for each file of the layer and its end, the record.
    let steps = 2 * (CHUNKS + 1) + FILES + 2;
    for killed_after in 0..=steps {
        let images = tempfile::tempdir().unwrap();
        let mut writer = Process::start("writer", images.path());
        for _ in 0..killed_after {
            writer.step().unwrap();
        }
        writer.kill();
        let after = format!("{killed_after} steps");
        let store = check(images.path(), FILES, &after);
        // Whoever comes next makes the rest, and all is there.
        let mut writer = Process::start("writer", images.path());
        while writer.step().is_some_and(|step| step != "record") {}
        writer.kill();
        let image = check(images.path(), FILES, &after).find("image").unwrap().unwrap();
        assert!(store.layer(&image.layers[0].diff_id).is_some());
        assert_eq!(names(images.path(), "blobs").len(), 2);
        store.prune(Prune::Images).unwrap();
        assert_empty(images.path(), &after);
    }
}

#[test]
fn a_writer_killed_between_chunks_is_gone_on_from() {
    let images = tempfile::tempdir().unwrap();
    let mut writer = Process::start("writer", images.path());
    for _ in 0..3 {
        assert_eq!(writer.step().as_deref(), Some("chunk"));
    }
    writer.kill();
    let store = Store::open(images.path()).unwrap();
    let writer = store.begin_blob(&descriptor(&chunk(0).repeat(CHUNKS))).unwrap().unwrap();
    assert!(writer.have() >= 3 * 20_000, "{} bytes are kept", writer.have());
}

#[test]
fn a_collector_killed_at_any_moment_leaves_no_half_layer() {
    let images = tempfile::tempdir().unwrap();
    for round in 0..12_u32 {
        let mut process = Process::start("churn", images.path());
        for _ in 0..=round % 4 {
            process.step().unwrap();
        }
        // Somewhere in the middle of what follows the step: later in every round.
        let begun = std::time::Instant::now();
        while begun.elapsed().as_micros() < u128::from(round) * 1000 {
            std::hint::spin_loop();
        }
        process.kill();
        check(images.path(), 100, &format!("round {round}"));
    }
}
