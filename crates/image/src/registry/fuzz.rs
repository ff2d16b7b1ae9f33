// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: what clients write for an image, and what registries send for one.
//!
//! `cargo test` runs each for a fixed number of inputs, made from the corpus in `corpus/` by random edits. `cargo bolero`
//! runs the same targets led by coverage: `cargo bolero test -p image registry::fuzz::a_reference_of_any_text`.

use bolero::check;
use corpus::Mutant;
use protocol::limits::{
    IMAGE_DOWNLOAD_BYTES_MAX, IMAGE_LAYERS_MAX, REFERENCE_REGISTRY_CHARS_MAX, REFERENCE_REPOSITORY_CHARS_MAX,
    REFERENCE_TAG_CHARS_MAX,
};

use super::challenge;
use super::manifest::{self, Document};
use super::{Compression, Platform, RegistryConfig, platform};
use crate::reference::Reference;

/// How many inputs each target gets in a test.
const INPUTS: usize = 10_000;
/// Longest text of an error, whatever it is about, in bytes.
const ERROR_BYTES_MAX: usize = 2048;

/// Says whether it was a reference.
fn reference_keeps_its_promises(bytes: &[u8]) -> bool {
    let (text, config) = (String::from_utf8_lossy(bytes), RegistryConfig::default());
    // It comes from the hand of whoever asks for a challenge, too.
    let _ = challenge::parse(&text);
    let reference = match Reference::parse(&text, &config) {
        Ok(reference) => reference,
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}");
            return false;
        }
    };
    let elsewhere = RegistryConfig { default_registry: "other.example".into(), ..config };
    assert_eq!(Reference::parse(&reference.to_string(), &elsewhere).as_ref(), Ok(&reference), "{reference}");
    assert!(reference.registry().len() <= REFERENCE_REGISTRY_CHARS_MAX);
    assert!(reference.repository().len() <= REFERENCE_REPOSITORY_CHARS_MAX);
    assert!(reference.tag().is_none_or(|tag| tag.len() <= REFERENCE_TAG_CHARS_MAX));
    let url =
        url::Url::parse(&format!("https://{}/v2/{}/", reference.registry(), reference.repository())).unwrap();
    assert!(url.username().is_empty() && url.query().is_none() && url.fragment().is_none(), "{url}");
    assert_eq!(url.path(), format!("/v2/{}/", reference.repository()), "no part leads elsewhere");
    true
}

/// Says whether it was a document.
fn manifest_keeps_its_promises(bytes: &[u8]) -> bool {
    let wanted = Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
    match manifest::read(bytes, None) {
        Ok(Document::Image { layers, config, .. }) => {
            assert!((1..=IMAGE_LAYERS_MAX).contains(&layers.len()));
            assert!(
                layers.iter().map(|layer| u128::from(layer.size())).sum::<u128>()
                    <= IMAGE_DOWNLOAD_BYTES_MAX.into()
            );
            assert!(layers.iter().all(|layer| Compression::of_layer(layer.media_type().as_ref()).is_some()));
            let digests = layers.iter().map(oci_spec::image::Descriptor::digest).chain([config.digest()]);
            for digest in digests {
                assert!(digest.as_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b == b':'), "{digest}");
            }
            true
        }
        Ok(Document::Index(index)) => {
            if let Err(error) = platform::choose(&index, &wanted) {
                assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}");
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}");
            false
        }
    }
}

#[test]
fn a_reference_of_any_text() {
    let corpus = corpus::read(env!("CARGO_MANIFEST_DIR"), "reference");
    assert!(
        corpus.iter().any(|bytes| reference_keeps_its_promises(bytes)),
        "the corpus has one that is good"
    );
    check!().with_type::<Mutant>().with_iterations(INPUTS).for_each(|mutant| {
        reference_keeps_its_promises(&mutant.of(&corpus));
    });
}

#[test]
fn a_manifest_of_any_bytes() {
    let corpus = corpus::read(env!("CARGO_MANIFEST_DIR"), "manifest");
    assert!(corpus.iter().any(|bytes| manifest_keeps_its_promises(bytes)), "the corpus has one that is good");
    check!().with_type::<Mutant>().with_iterations(INPUTS).for_each(|mutant| {
        manifest_keeps_its_promises(&mutant.of(&corpus));
    });
}
