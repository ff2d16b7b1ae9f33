// SPDX-License-Identifier: Apache-2.0
//! A base image as an OCI image layout beside its archive: the way into the image store.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use image::archive::{Gzipped, gzip};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::base::config::BaseConfig;
use crate::base::{BaseError, BaseImage};

const BLOBS: &str = "blobs/sha256";

impl BaseImage {
    /// Makes the layout; its only layer is the archive, compressed. Returns its directory, which goes with the image; the
    /// archive is gone then.
    pub(crate) fn layout(&self) -> Result<PathBuf, BaseError> {
        write(&self.tar, &self.config).map_err(BaseError::io("make an image of the root file system"))
    }
}

fn write(tar: &Path, config: &BaseConfig) -> std::io::Result<PathBuf> {
    let root = tar.with_file_name("layout");
    fs::create_dir_all(root.join(BLOBS))?;
    let packed = root.join("layer");
    let layer = compress(tar, &packed)?;
    fs::rename(packed, root.join(BLOBS).join(layer.digest.digest()))?;
    fs::remove_file(tar)?;
    let configuration = configuration(config, layer.diff_id.as_ref());
    let config = blob(&root, "application/vnd.oci.image.config.v1+json", &configuration)?;
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": layer.digest.to_string(),
        "size": layer.size,
    });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
    });
    let manifest = blob(&root, manifest_type, &manifest)?;
    fs::write(root.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(root)
}

fn configuration(config: &BaseConfig, diff_id: &str) -> Value {
    json!({
        "created": config.created,
        "architecture": config.architecture,
        "os": "linux",
        "config": {
            "Env": config.env,
            "WorkingDir": config.workdir,
            "Cmd": config.cmd,
            "Labels": config.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": config.created, "created_by": "msb image build-base"}],
    })
}

/// Writes a document and returns its descriptor.
fn blob(root: &Path, media_type: &str, document: &Value) -> std::io::Result<Value> {
    let bytes = document.to_string();
    let digest = hex(&Sha256::digest(&bytes));
    fs::write(root.join(BLOBS).join(&digest), &bytes)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

/// Compresses the archive; the same bytes for the same archive.
fn compress(plain: &Path, into: &Path) -> std::io::Result<Gzipped> {
    let (mut plain, mut into) = (fs::File::open(plain)?, fs::File::create(into)?);
    let packed = gzip(&mut plain, &mut into)?;
    packed.ok_or_else(|| std::io::Error::other("it has nearly nothing but zeros"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use image::archive::{LoadOptions, Source, load};
    use image::store::Store;

    use super::*;

    fn config() -> BaseConfig {
        BaseConfig {
            created: "2025-01-01T00:00:00Z".to_owned(),
            architecture: "amd64",
            env: vec!["A=b".to_owned()],
            workdir: "/",
            cmd: vec!["sh".to_owned()],
            labels: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn the_layout_is_a_compressed_image_and_always_the_same() {
        let tar = vec![0; 20 * 512];
        let made = || {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("tar"), &tar).unwrap();
            let layout = write(&folder.path().join("tar"), &config()).unwrap();
            let index = fs::read(layout.join("index.json")).unwrap();
            assert!(!folder.path().join("tar").exists(), "it is not there twice");
            let images = tempfile::tempdir().unwrap();
            let store = Store::open(images.path()).unwrap();
            let options = LoadOptions {
                kind: image::archive::Kind::Any,
                reference: Some("microsandbox/test:1"),
                platform: "linux/amd64",
                full_reference: &|name| Ok(name.to_owned()),
            };
            let loaded = load(&store, Source::Path(&layout), &options).unwrap().tag().unwrap();
            (index, loaded[0].layers.clone())
        };
        let (index, layers) = made();
        assert_eq!((&index, &layers), (&made().0, &made().1));
        assert_eq!(layers[0].diff_id.digest(), hex(&Sha256::digest(&tar)));
        assert!(layers[0].size < 200, "{} bytes for {} zeros", layers[0].size, tar.len());
    }
}
