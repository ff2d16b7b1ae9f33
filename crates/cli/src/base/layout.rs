// SPDX-License-Identifier: Apache-2.0
//! A base image as an OCI image layout beside its archive: the way into the image store.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::base::{BaseError, BaseImage};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;
const BLOBS: &str = "blobs/sha256";

impl BaseImage {
    /// Makes the layout; its only layer is the archive, under another name. Returns its directory, which goes with the
    /// image.
    pub(crate) fn layout(&self) -> Result<PathBuf, BaseError> {
        self.write_layout().map_err(BaseError::io("make an image of the root file system"))
    }

    fn write_layout(&self) -> std::io::Result<PathBuf> {
        let root = self.tar.with_file_name("layout");
        fs::create_dir_all(root.join(BLOBS))?;
        let (layer, size) = digest_of(&self.tar)?;
        fs::rename(&self.tar, root.join(BLOBS).join(&layer))?;
        let config = blob(&root, "application/vnd.oci.image.config.v1+json", &self.configuration(&layer))?;
        let layer = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer}"),
            "size": size,
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

    fn configuration(&self, layer: &str) -> Value {
        let config = &self.config;
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
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
            "history": [{"created": config.created, "created_by": "msb image build-base"}],
        })
    }
}

/// Writes a document and returns its descriptor.
fn blob(root: &Path, media_type: &str, document: &Value) -> std::io::Result<Value> {
    let bytes = document.to_string();
    let digest = hex(&Sha256::digest(&bytes));
    fs::write(root.join(BLOBS).join(&digest), &bytes)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

fn digest_of(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((hex(&hasher.finalize()), size));
        }
        hasher.update(&chunk[..read]);
        size += read as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
