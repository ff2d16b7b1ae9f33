// SPDX-License-Identifier: Apache-2.0
//! What a registry may send for a manifest or an index, read from bytes that nobody vouches for.
//!
//! OCI's and Docker's are one format under two names. A document is what its media type says and must look like it: one
//! that could be read both as a manifest and as an index is refused, for two programs could then see two images in it.
//! Addresses of layers elsewhere (`urls`) and content inside of descriptors (`data`) are not used.

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm, ImageIndex, ImageManifest};
use protocol::limits::{
    IMAGE_CONFIG_BYTES_MAX, IMAGE_DOWNLOAD_BYTES_MAX, IMAGE_LAYERS_MAX, INDEX_ENTRIES_MAX, MANIFEST_BYTES_MAX,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256, Sha512};

use super::error::ContentError;
use crate::reference::{is_known, quote};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What is asked for, in the words of HTTP.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

const MANIFEST_RULE: &str = "a manifest or an index of OCI, or of Docker's second schema, is allowed";
const LAYER_RULE: &str = "layers as tar, plain or compressed with gzip or zstd, are allowed";
const CONFIG_RULE: &str =
    "a configuration of an OCI or Docker image is allowed: this may be something else than an image";
const DIGEST_RULE: &str = "sha256 and sha512 are allowed";
const LAYERS_RULE: &str = "an image has at least one layer, so choose a reference of an image";

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A bare tar.
    Plain,
    /// As gzip does it.
    Gzip,
    /// As zstd does it.
    Zstd,
}

impl Compression {
    /// Returns what the media type of a layer says, or none for what is no layer.
    #[must_use]
    pub fn of_layer(media_type: &str) -> Option<Compression> {
        Some(match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Compression::Plain
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            _ => return None,
        })
    }
}

/// A checked document of a registry.
#[derive(Debug)]
pub(super) enum Document {
    Image { media_type: &'static str, config: Descriptor, layers: Vec<Descriptor> },
    Index(ImageIndex),
}

/// As much of a document as tells what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<Vec<IgnoredAny>>,
    fs_layers: Option<IgnoredAny>,
    manifests: Option<Vec<IgnoredAny>>,
}

/// Reads a document; `content_type` is what HTTP says of it, where it does.
pub(super) fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ContentError> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(too_large());
    }
    let content_type =
        content_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase());
    if content_type.as_deref().is_some_and(|text| text.contains("html")) {
        return Err(unexpected("it is a web page".to_owned(), MANIFEST_RULE));
    }
    let shape: Shape = parse(bytes)?;
    let media_type = media_type(&shape, content_type.as_deref())?;
    let is_index = matches!(media_type, OCI_INDEX | DOCKER_INDEX);
    let has_image = shape.config.is_some() || shape.layers.is_some();
    if shape.schema_version != Some(2) || shape.fs_layers.is_some() {
        return Err(unexpected("it is of another schema than the second".to_owned(), MANIFEST_RULE));
    }
    if (is_index && has_image) || (!is_index && shape.manifests.is_some()) {
        return Err(unexpected("it can be read both as an image and as an index".to_owned(), MANIFEST_RULE));
    }
    if is_index { read_index(bytes, &shape) } else { read_image(bytes, &shape, media_type) }
}

/// Returns what a document is: what it says itself, what HTTP says, and both the same if both do.
fn media_type(shape: &Shape, content_type: Option<&str>) -> Result<&'static str, ContentError> {
    let known = |text: &str| {
        let all = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
        all.into_iter().find(|media_type| *media_type == text)
    };
    let unknown = |text: &str| unexpected(format!("its media type is `{}`", quote(text)), MANIFEST_RULE);
    // Servers that know nothing of images have these for any document.
    let content_type = content_type.filter(|text| {
        !matches!(
            *text,
            "application/json" | "application/octet-stream" | "text/plain" | "binary/octet-stream"
        )
    });
    match (shape.media_type.as_deref(), content_type) {
        (Some(own), None) => known(own).ok_or_else(|| unknown(own)),
        (None, Some(said)) => known(said).ok_or_else(|| unknown(said)),
        (Some(own), Some(said)) if own == said => known(own).ok_or_else(|| unknown(own)),
        (Some(own), Some(said)) => {
            let wrong = format!("it says `{}` of itself and is sent as `{}`", quote(own), quote(said));
            Err(unexpected(wrong, MANIFEST_RULE))
        }
        (None, None) if shape.manifests.is_some() => Ok(OCI_INDEX),
        (None, None) => Ok(OCI_MANIFEST),
    }
}

fn read_index(bytes: &[u8], shape: &Shape) -> Result<Document, ContentError> {
    if shape.manifests.as_ref().is_some_and(|entries| entries.len() > INDEX_ENTRIES_MAX) {
        return Err(ContentError::TooLarge { what: "it has", max: INDEX_ENTRIES_MAX as u64, unit: "images" });
    }
    let index: ImageIndex = parse(bytes)?;
    Ok(Document::Index(index))
}

fn read_image(bytes: &[u8], shape: &Shape, media_type: &'static str) -> Result<Document, ContentError> {
    match shape.layers.as_ref().map_or(0, Vec::len) {
        0 => return Err(unexpected("it has no layers".to_owned(), LAYERS_RULE)),
        1..=IMAGE_LAYERS_MAX => {}
        _ => {
            return Err(ContentError::TooLarge {
                what: "it has",
                max: IMAGE_LAYERS_MAX as u64,
                unit: "layers",
            });
        }
    }
    let manifest: ImageManifest = parse(bytes)?;
    let (config, layers) = (manifest.config().clone(), manifest.layers().clone());
    if !CONFIGS.contains(&config.media_type().as_ref()) {
        let wrong = format!("its configuration is of the type `{}`", quote(config.media_type().as_ref()));
        return Err(unexpected(wrong, CONFIG_RULE));
    }
    if config.size() > IMAGE_CONFIG_BYTES_MAX {
        let what = "its configuration has";
        return Err(ContentError::TooLarge { what, max: IMAGE_CONFIG_BYTES_MAX, unit: "bytes" });
    }
    check_digest(config.digest())?;
    check_layers(&layers)?;
    Ok(Document::Image { media_type, config, layers })
}

fn check_layers(layers: &[Descriptor]) -> Result<(), ContentError> {
    let mut total: u64 = 0;
    for layer in layers {
        if Compression::of_layer(layer.media_type().as_ref()).is_none() {
            let wrong = format!("a layer is of the type `{}`", quote(layer.media_type().as_ref()));
            return Err(unexpected(wrong, LAYER_RULE));
        }
        check_digest(layer.digest())?;
        total = total.saturating_add(layer.size());
    }
    if total > IMAGE_DOWNLOAD_BYTES_MAX {
        let what = "its layers have";
        return Err(ContentError::TooLarge { what, max: IMAGE_DOWNLOAD_BYTES_MAX, unit: "bytes" });
    }
    Ok(())
}

/// Refuses what content cannot be checked against.
pub(super) fn check_digest(digest: &Digest) -> Result<(), ContentError> {
    if is_known(digest) {
        Ok(())
    } else {
        Err(unexpected(format!("the digest `{}` is of an unknown kind", quote(digest.as_ref())), DIGEST_RULE))
    }
}

/// Says whether content is what a digest says.
pub(super) fn verify(bytes: &[u8], wanted: &Digest) -> Result<(), ContentError> {
    check_digest(wanted)?;
    let got = match wanted.algorithm() {
        DigestAlgorithm::Sha512 => format!("sha512:{}", hexadecimal(&Sha512::digest(bytes))),
        _ => format!("sha256:{}", hexadecimal(&Sha256::digest(bytes))),
    };
    if got == wanted.as_ref() {
        Ok(())
    } else {
        Err(ContentError::WrongDigest { wanted: wanted.to_string(), got })
    }
}

/// Returns the digest of content that was asked for by its tag.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    let text = format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)));
    text.parse().expect("64 hexadecimal digits are a digest")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

pub(super) fn too_large() -> ContentError {
    ContentError::TooLarge { what: "it has", max: MANIFEST_BYTES_MAX as u64, unit: "bytes" }
}

fn unexpected(wrong: String, allowed: &'static str) -> ContentError {
    ContentError::Unexpected { wrong, allowed }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ContentError> {
    serde_json::from_slice(bytes).map_err(|error| {
        unexpected(format!("it is no such JSON: {}", quote(&error.to_string())), MANIFEST_RULE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(media_type: &str, size: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","size":{size},"digest":"sha256:{}"}}"#, "ab".repeat(32))
    }

    fn image(config: &str, layers: &[String]) -> String {
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","))
    }

    fn good() -> String {
        image(&descriptor(CONFIGS[0], "2"), &[descriptor(LAYER, "3")])
    }

    fn wrong(text: &str, content_type: Option<&str>) -> String {
        read(text.as_bytes(), content_type).expect_err(text).to_string()
    }

    #[test]
    fn both_families_of_media_types_are_read() {
        for (config, layers, sent_as) in [
            (CONFIGS[0], [LAYER, "application/vnd.oci.image.layer.v1.tar+zstd"], OCI_MANIFEST),
            (CONFIGS[1], ["application/vnd.docker.image.rootfs.diff.tar.gzip", LAYER], DOCKER_MANIFEST),
            (CONFIGS[0], ["application/vnd.oci.image.layer.v1.tar", LAYER], "application/json"),
        ] {
            let text = image(&descriptor(config, "2"), &layers.map(|layer| descriptor(layer, "3")));
            match read(text.as_bytes(), Some(sent_as)).unwrap() {
                Document::Image { layers, .. } => assert_eq!(layers.len(), 2),
                Document::Index(_) => panic!("{text}"),
            }
        }
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(OCI_MANIFEST, "1"));
        for sent_as in [
            Some(OCI_INDEX),
            Some("application/vnd.docker.distribution.manifest.list.v2+json; charset=utf-8"),
            None,
        ] {
            assert!(matches!(read(index.as_bytes(), sent_as), Ok(Document::Index(_))), "{sent_as:?}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        let config = descriptor(CONFIGS[0], "2");
        let layer = descriptor(LAYER, "3");
        let rows = [
            ("<html>login</html>".to_owned(), Some("text/html; charset=utf-8"), "web page"),
            ("<html>login</html>".into(), Some(OCI_MANIFEST), "JSON"),
            (String::new(), None, "JSON"),
            ("[]".into(), None, "JSON"),
            ("[".repeat(100_000), None, "JSON"),
            (good(), Some("image/png"), "image/png"),
            (good(), Some(OCI_INDEX), "both"),
            (
                good().replacen("{", &format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","#), 1),
                Some(OCI_MANIFEST),
                "of itself",
            ),
            (good().replacen("{", r#"{"manifests":[],"#, 1), Some(OCI_MANIFEST), "both"),
            (good().replacen("{", r#"{"layers":[],"#, 1), None, "duplicate"),
            (good().replace(r#"sion":2"#, r#"sion":1"#), None, "schema"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schema"),
            (image(&config, &[]), None, "no layers"),
            (format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#), None, "no layers"),
            (format!(r#"{{"schemaVersion":2,"config":{config}}}"#), None, "no layers"),
            (image(&config, &vec![layer.clone(); IMAGE_LAYERS_MAX + 1]), None, "128 layers"),
            (image(&config, &[descriptor("application/x-evil", "1")]), None, "application/x-evil"),
            (
                image(
                    &config,
                    &[descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "1")],
                ),
                None,
                "foreign",
            ),
            (
                image(
                    &descriptor("application/vnd.cncf.helm.config.v1+json", "1"),
                    std::slice::from_ref(&layer),
                ),
                None,
                "helm",
            ),
            (image(&descriptor(CONFIGS[0], "99999999"), std::slice::from_ref(&layer)), None, "bytes"),
            (image(&config, &[descriptor(LAYER, "-1")]), None, "-1"),
            (image(&config, &[descriptor(LAYER, "1e400")]), None, "JSON"),
            (image(&config, &[descriptor(LAYER, "18446744073709551615"), layer.clone()]), None, "bytes"),
            (image(&config, &[layer.replace("sha256:", "md5:")]), None, "md5"),
            (image(&config, &[layer.replace("sha256:ab", "sha256:../")]), None, "JSON"),
        ];
        for (text, content_type, reason) in rows {
            let error = wrong(&text, content_type);
            assert!(error.contains(reason), "{reason}: {error}");
            assert!(error.len() < 1024, "an error is no place for a document");
        }
        assert!(read(&vec![b' '; MANIFEST_BYTES_MAX + 1], None).is_err());
    }

    #[test]
    fn content_is_checked_against_both_kinds_of_digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(b"").as_ref(), empty);
        assert_eq!(verify(b"", &empty.parse().unwrap()), Ok(()));
        assert!(matches!(verify(b"x", &empty.parse().unwrap()), Err(ContentError::WrongDigest { .. })));
        let long = format!("sha512:{}", hexadecimal(&Sha512::digest(b"x")));
        assert_eq!(verify(b"x", &long.parse().unwrap()), Ok(()));
        assert!(verify(b"y", &long.parse().unwrap()).is_err());
        assert!(verify(b"", &"blake3:abcd".parse().unwrap()).is_err());
    }
}
