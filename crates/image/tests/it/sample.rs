// SPDX-License-Identifier: Apache-2.0
//! Images, blobs and archives to test with, and what is left of them in a store.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use image::archive::{Kind, LoadOptions};
use image::store::{ImageRecord, LayerRecord, Store};
use oci_spec::image::{Descriptor, Digest, MediaType};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const PLATFORM: &str = "linux/amd64";

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}").parse().unwrap()
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, digest(bytes))
}

pub(crate) fn put(store: &Store, bytes: &[u8]) -> Descriptor {
    let descriptor = descriptor(bytes);
    if let Some(mut writer) = store.begin_blob(&descriptor).unwrap() {
        writer.restart().unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
    }
    descriptor
}

/// Writes a file into the directory of a layer.
pub(crate) fn write_at(root: BorrowedFd<'_>, name: &str, bytes: &[u8]) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(rustix::io::write(&file, bytes).unwrap(), bytes.len());
}

/// Adds a layer with one file, called `file`, that holds `text`.
pub(crate) fn put_layer(store: &Store, text: &str) -> Digest {
    let diff_id = digest(format!("tar of {text}").as_bytes());
    let path = store
        .add_layer(&diff_id, |root| {
            write_at(root.as_fd(), "file", text.as_bytes());
            Ok::<_, std::io::Error>(diff_id.clone())
        })
        .unwrap();
    assert_eq!(fs_err::read_to_string(path.join("file")).unwrap(), text);
    diff_id
}

/// Puts an image into a store: blobs, unpacked layers, and a record if `reference` names one.
pub(crate) fn put_image(store: &Store, reference: &str, layers: &[&str]) -> ImageRecord {
    let mut records = Vec::new();
    for text in layers {
        let blob = put(store, format!("compressed {text}").as_bytes());
        let diff_id = put_layer(store, text);
        records.push(LayerRecord { blob: blob.digest().clone(), diff_id, size: blob.size() });
    }
    let diff_ids: Vec<String> = records.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put(store, config.to_string().as_bytes());
    let layers: Vec<Value> = records
        .iter()
        .map(
            |layer| json!({"mediaType": MediaType::ImageLayerGzip, "digest": layer.blob, "size": layer.size}),
        )
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": MediaType::ImageConfig, "digest": config.digest(), "size": config.size()},
        "layers": layers,
    });
    let manifest = put(store, manifest.to_string().as_bytes());
    let record = ImageRecord {
        reference: reference.to_owned(),
        manifest_digest: manifest.digest().clone(),
        index_digest: None,
        config_digest: config.digest().clone(),
        layers: records,
        platform: PLATFORM.to_owned(),
        pulled: 1_700_000_000,
        size: 1,
    };
    if !reference.is_empty() {
        store.tag(&record).unwrap();
    }
    record
}

/// Lists the names in one of the store's directories.
pub(crate) fn names(images: &Path, folder: &str) -> Vec<String> {
    let entries = fs_err::read_dir(images.join("store-v1").join(folder)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Fails if a store holds anything at all.
pub(crate) fn assert_empty(images: &Path, after: &str) {
    for folder in ["blobs", "partial", "layers", "making", "removing", "records", "leases"] {
        assert_eq!(names(images, folder), Vec::<String>::new(), "{folder} after {after}");
    }
}

/// Makes a tar of regular files.
pub(crate) fn tar_of<N: AsRef<str>, B: AsRef<[u8]>>(files: &[(N, B)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.as_ref().len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name.as_ref(), bytes.as_ref()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut compressed).unwrap();
    compressed
}

/// The files of an OCI layout, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn add_blob(files: &mut Files, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    files.insert(format!("blobs/sha256/{}", digest.digest()), bytes.to_owned());
    json!({"digest": digest, "size": bytes.len()})
}

/// Adds an image to a layout and returns the descriptor of its manifest.
pub(crate) fn add_image(files: &mut Files, layers: &[Vec<u8>], architecture: &str) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let mut config = add_blob(files, config.to_string().as_bytes());
    config["mediaType"] = json!(MediaType::ImageConfig);
    let mut descriptors = Vec::new();
    for layer in layers {
        let mut layer = add_blob(files, &gzip(layer));
        layer["mediaType"] = json!(MediaType::ImageLayerGzip);
        descriptors.push(layer);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": descriptors,
    });
    let mut manifest = add_blob(files, manifest.to_string().as_bytes());
    manifest["mediaType"] = json!(MediaType::ImageManifest);
    manifest["platform"] = json!({"os": "linux", "architecture": architecture});
    manifest
}

pub(crate) fn add_index(files: &mut Files, manifests: &[Value]) {
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
}

/// A layout of one image with two layers, called `example.test/app:1`.
pub(crate) fn layout() -> Files {
    let mut files = Files::new();
    let layers = [tar_of(&[("etc/os-release", "ID=test\n")]), tar_of(&[("app", "x".repeat(3000))])];
    let mut manifest = add_image(&mut files, &layers, "amd64");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "example.test/app:1"});
    add_index(&mut files, &[manifest]);
    files
}

pub(crate) fn tar_of_files(files: &Files) -> Vec<u8> {
    tar_of(&files.iter().collect::<Vec<_>>())
}

pub(crate) fn options(reference: Option<&str>) -> LoadOptions<'_> {
    LoadOptions {
        kind: Kind::Any,
        reference,
        platform: PLATFORM,
        full_reference: &|name| Ok(name.to_owned()),
    }
}
