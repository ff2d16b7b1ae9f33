// SPDX-License-Identifier: Apache-2.0
//! Images into archives and out of them, with skopeo as the other side.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use image::archive::{ArchiveError, Format, Kind, LoadOptions, Loaded, Source, load, save};
use image::store::{ImageRecord, Prune, Store};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use crate::sample::{
    Files, PLATFORM, add_blob, add_image, add_index, assert_empty, digest, gzip, layout, options, tar_of,
    tar_of_files,
};

fn open() -> (tempfile::TempDir, Store) {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    (images, store)
}

fn load_bytes(store: &Store, bytes: &[u8], options: &LoadOptions<'_>) -> Result<Loaded, ArchiveError> {
    let mut bytes = bytes;
    load(store, Source::Reader(&mut bytes), options)
}

fn saved(store: &Store, images: &[ImageRecord], format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    save(store, images, format, &mut bytes).unwrap();
    bytes
}

/// Fails unless all blobs of an image are in the store, verified.
fn assert_whole(store: &Store, image: &ImageRecord) {
    store.read_blob(&store.descriptor_of(&image.manifest_digest).unwrap()).unwrap();
    for layer in &image.layers {
        let descriptor = Descriptor::new(MediaType::ImageLayer, layer.size, layer.blob.clone());
        store.open_blob(&descriptor).unwrap().finish().unwrap();
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn write_layout(files: &Files, folder: &Path) {
    fs_err::create_dir_all(folder.join("blobs/sha256")).unwrap();
    for (name, bytes) in files {
        fs_err::write(folder.join(name), bytes).unwrap();
    }
}

/// Says whether skopeo is here; where nothing may be missing that is a failure.
fn skopeo_is_here() -> bool {
    let here = Command::new("skopeo").arg("--version").output().is_ok();
    assert!(here || std::env::var_os("MSB_TEST_REQUIRE").is_none(), "skopeo is missing");
    if !here {
        std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no skopeo\n").unwrap();
    }
    here
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_layout_is_loaded_from_a_directory_a_tar_and_a_compressed_stream() {
    let files = layout();
    let folder = tempfile::tempdir().unwrap();
    write_layout(&files, folder.path());
    let archive = tar_of_files(&files);
    let dotted: Files = files.iter().map(|(name, bytes)| (format!("./{name}"), bytes.clone())).collect();
    let zstd = zstd::encode_all(archive.as_slice(), 1).unwrap();
    let mut all = Vec::new();
    for bytes in [archive.clone(), gzip(&archive), zstd, tar_of_files(&dotted)] {
        let (_images, store) = open();
        let images = load_bytes(&store, &bytes, &options(None)).unwrap().tag().unwrap();
        assert_whole(&store, &images[0]);
        assert_eq!(store.list().unwrap().images, images);
        all.extend(images);
    }
    let (_images, store) = open();
    all.extend(load(&store, Source::Path(folder.path()), &options(None)).unwrap().tag().unwrap());
    let file = folder.path().join("archive.tar");
    fs_err::write(&file, &archive).unwrap();
    all.extend(load(&store, Source::Path(&file), &options(None)).unwrap().tag().unwrap());
    for image in &all {
        assert_eq!(image.reference, "example.test/app:1");
        assert_eq!((image.platform.as_str(), image.layers.len()), (PLATFORM, 2));
        assert_eq!(image.manifest_digest, all[0].manifest_digest);
        assert!(image.pulled > 1_700_000_000 && image.size > 0);
    }
}

#[test]
fn an_image_survives_each_format_and_its_bytes_are_always_the_same() {
    let (_images, store) = open();
    let images = load_bytes(&store, &tar_of_files(&layout()), &options(None)).unwrap().tag().unwrap();
    for format in [Format::Oci, Format::Docker] {
        let bytes = saved(&store, &images, format);
        assert_eq!(bytes, saved(&store, &images, format), "{format:?}");
        let (_other, other) = open();
        let loaded = load_bytes(&other, &bytes, &options(None)).unwrap().tag().unwrap();
        assert_whole(&other, &loaded[0]);
        assert_eq!(loaded[0].reference, images[0].reference);
        assert_eq!(loaded[0].config_digest, images[0].config_digest, "{format:?}");
        let diff_ids =
            |image: &ImageRecord| image.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
        assert_eq!(diff_ids(&loaded[0]), diff_ids(&images[0]), "{format:?}");
        assert_eq!(bytes, saved(&other, &loaded, format), "{format:?}: out, in and out again");
        if format == Format::Oci {
            assert_eq!(loaded[0].manifest_digest, images[0].manifest_digest);
        }
    }
}

#[test]
fn skopeo_reads_what_is_written_and_is_read_in_turn() {
    if !skopeo_is_here() {
        return;
    }
    let (_images, store) = open();
    let images = load_bytes(&store, &tar_of_files(&layout()), &options(None)).unwrap().tag().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (format, transport) in [(Format::Oci, "oci-archive"), (Format::Docker, "docker-archive")] {
        let path = folder.path().join(transport);
        fs_err::write(&path, saved(&store, &images, format)).unwrap();
        let source = format!("{transport}:{}", path.display());
        let inspected: Value = serde_json::from_slice(&skopeo(&["inspect", &source])).unwrap();
        assert_eq!(inspected["Architecture"], "amd64", "{inspected}");
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2, "{inspected}");
        assert_eq!(inspected["Env"], json!(["A=b"]), "{inspected}");
        for target in ["oci-archive", "docker-archive", "oci"] {
            let copy = folder.path().join(format!("{transport}-{target}"));
            let place = format!("{target}:{}:example.test/copy:2", copy.display());
            skopeo(&["copy", &source, &place]);
            let (_other, other) = open();
            let loaded = load(&other, Source::Path(&copy), &options(None)).unwrap().tag().unwrap();
            assert_whole(&other, &loaded[0]);
            assert_eq!(loaded[0].reference, "example.test/copy:2", "{place}");
            assert_eq!(loaded[0].layers[1].diff_id, images[0].layers[1].diff_id, "{place}");
        }
    }
}

#[test]
fn a_docker_archive_has_its_names_and_may_share_layers_by_links() {
    let layer = tar_of(&[("etc/hostname", "x")]);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer), digest(&layer)]}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1", "app:latest"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
    for (name, bytes) in [
        ("a/layer.tar", layer),
        ("c.json", config.to_string().into()),
        ("manifest.json", manifest.to_string().into()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let (_images, store) = open();
    let full = |name: &str| Ok(format!("docker.io/library/{name}"));
    let options = LoadOptions { full_reference: &full, ..options(None) };
    let loaded = load_bytes(&store, &builder.into_inner().unwrap(), &options).unwrap().tag().unwrap();
    let references: Vec<&str> = loaded.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(references, ["docker.io/library/app:1", "docker.io/library/app:latest"]);
    assert_eq!(loaded[0].layers[0], loaded[0].layers[1]);
    assert_whole(&store, &loaded[0]);
}

#[test]
fn a_root_file_system_becomes_an_image_of_one_layer() {
    let tree = tar_of(&[("etc/os-release", "ID=test\n"), ("manifest.json", "[]")]);
    for bytes in [tree.clone(), gzip(&tree), zstd::encode_all(tree.as_slice(), 1).unwrap()] {
        let (_images, store) = open();
        let rootfs = LoadOptions { kind: Kind::Rootfs, ..options(Some("local/tree:1")) };
        let loaded = load_bytes(&store, &bytes, &rootfs).unwrap().tag().unwrap();
        let [layer] = loaded[0].layers.as_slice() else { panic!("{:?}", loaded[0].layers) };
        assert_eq!(layer.diff_id, digest(&tree));
        assert_eq!((loaded[0].reference.as_str(), loaded[0].platform.as_str()), ("local/tree:1", PLATFORM));
        let mut read = Vec::new();
        let descriptor = Descriptor::new(MediaType::ImageLayer, layer.size, layer.blob.clone());
        store.open_blob(&descriptor).unwrap().read_to_end(&mut read).unwrap();
        if bytes == tree {
            assert_eq!((gunzip(&read), read[..2].to_vec()), (tree.clone(), vec![0x1f, 0x8b]));
        } else {
            assert_eq!(read, bytes, "what is compressed stays as it was sent");
        }
    }
    let (images, store) = open();
    let tree = tar_of(&[("etc/os-release", "ID=test\n")]);
    assert!(matches!(load_bytes(&store, &tree, &options(None)).unwrap_err(), ArchiveError::NoReference));
    assert_empty(images.path(), "a tree without a name");
    assert!(load_bytes(&store, &tree, &options(Some("tree"))).is_ok(), "it need not be said what it is");
}

#[test]
fn what_is_saved_for_docker_is_compressed() {
    let (_images, store) = open();
    let tree = tar_of(&[("etc/motd", "a text that is there again and again\n".repeat(1000))]);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&tree)]}});
    let manifest = json!([{"Config": "c", "RepoTags": ["a/b:1"], "Layers": ["l"]}]);
    let plain = tar_of(&[
        ("l", tree.clone()),
        ("c", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ]);
    let images = load_bytes(&store, &plain, &options(None)).unwrap().tag().unwrap();
    assert_eq!(images[0].layers[0].blob, digest(&tree), "it came plain");
    let bytes = saved(&store, &images, Format::Docker);
    assert!(bytes.len() < tree.len() / 2, "{} bytes of {}", bytes.len(), tree.len());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut layer = archive.entries().unwrap().next().unwrap().unwrap();
    let mut read = Vec::new();
    layer.read_to_end(&mut read).unwrap();
    assert_eq!(gunzip(&read), tree);

    let (_other, other) = open();
    let loaded = load_bytes(&other, &bytes, &options(None)).unwrap().tag().unwrap();
    assert_eq!((&loaded[0].layers[0].blob, &loaded[0].layers[0].diff_id), (&digest(&read), &digest(&tree)));
    assert_eq!(saved(&other, &loaded, Format::Docker), bytes, "what is compressed is written as it is");
    image::pull::unpack_image(&other, &loaded[0]).unwrap();
    let root = other.layer(&digest(&tree)).unwrap();
    assert!(fs_err::read_to_string(root.join("etc/motd")).unwrap().starts_with("a text"));
}

#[test]
fn the_image_for_the_platform_is_taken_and_the_others_need_not_be_there() {
    let mut files = Files::new();
    let arm = add_image(&mut files, &[tar_of(&[("arm", "x")])], "arm64");
    files.clear();
    let amd = add_image(&mut files, &[tar_of(&[("amd", "x")])], "amd64");
    let index = json!({"schemaVersion": 2, "manifests": [arm, amd]});
    let mut entry = add_blob(&mut files, index.to_string().as_bytes());
    entry["mediaType"] = json!(MediaType::ImageIndex);
    add_index(&mut files, &[entry]);
    let (images, store) = open();
    let loaded = load_bytes(&store, &tar_of_files(&files), &options(Some("both"))).unwrap();
    assert_eq!(loaded.images[0].manifest_digest, amd["digest"].as_str().unwrap().parse().unwrap());
    assert_eq!(loaded.images[0].index_digest, Some(digest(index.to_string().as_bytes())));
    // What was loaded stays as long as somebody has it in hand, and only then.
    assert_eq!(store.prune(Prune::Images).unwrap().blobs, 0);
    drop(loaded);
    assert_eq!(store.prune(Prune::Images).unwrap().blobs, 4);
    let other = LoadOptions { platform: "linux/riscv64", ..options(Some("both")) };
    let error = load_bytes(&store, &tar_of_files(&files), &other).unwrap_err();
    assert_eq!(error.to_string(), "the archive has no image for linux/riscv64");
    assert_empty(images.path(), "no image for the platform");
}

#[test]
fn several_images_are_saved_together_and_share_what_they_have_in_common() {
    let mut files = Files::new();
    let base = tar_of(&[("base", "x".repeat(100_000))]);
    let mut entries = Vec::new();
    for name in ["one:1", "two:1"] {
        let mut entry = add_image(&mut files, &[base.clone(), tar_of(&[(name, "x")])], "amd64");
        entry["annotations"] = json!({"io.containerd.image.name": name});
        entries.push(entry);
    }
    add_index(&mut files, &entries);
    let (_images, store) = open();
    let bytes = tar_of_files(&files);
    let error = load_bytes(&store, &bytes, &options(Some("only"))).unwrap_err();
    assert!(matches!(error, ArchiveError::Several(2)), "{error}");
    let images = load_bytes(&store, &bytes, &options(None)).unwrap().tag().unwrap();
    assert_eq!(images.len(), 2);
    let saved = saved(&store, &images, Format::Docker);
    assert!(saved.len() < 150_000, "the layer that both have is there once: {} bytes", saved.len());
    let (_other, other) = open();
    assert_eq!(load_bytes(&other, &saved, &options(None)).unwrap().tag().unwrap().len(), 2);
}

#[test]
fn damage_in_the_store_never_gets_into_an_archive() {
    let (images, store) = open();
    let loaded = load_bytes(&store, &tar_of_files(&layout()), &options(None)).unwrap().tag().unwrap();
    for format in [Format::Oci, Format::Docker] {
        let blob = images.path().join("store-v1/blobs").join(loaded[0].layers[1].blob.digest());
        let mut bytes = fs_err::read(&blob).unwrap();
        bytes[4] ^= 1;
        fs_err::remove_file(&blob).unwrap();
        fs_err::write(&blob, bytes).unwrap();
        let error = save(&store, &loaded, format, &mut std::io::sink()).unwrap_err();
        assert!(error.to_string().contains(loaded[0].layers[1].blob.as_ref()), "{format:?}: {error}");
        // Loading it again mends the store.
        load_bytes(&store, &tar_of_files(&layout()), &options(None)).unwrap().tag().unwrap();
        saved(&store, &loaded, format);
    }
}
