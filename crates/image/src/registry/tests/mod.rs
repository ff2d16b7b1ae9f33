// SPDX-License-Identifier: Apache-2.0
//! Against a registry on loopback that does what a good one never does.

mod clients;
mod content;
mod logins;
mod network;
mod redirects;
mod server;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::config::World;
use super::{BlobSink, Descriptor, Platform, Registry, RegistryConfig, RegistryError, Resolved};
use crate::reference::Reference;
use server::{Asked, Reply, Server};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What is downloaded, in memory.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    restarts: usize,
}

impl BlobSink for Memory {
    fn have(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        self.restarts += 1;
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// A configuration that is in no hurry with nobody, for registries that speak plain HTTP.
fn config(servers: &[&Server]) -> RegistryConfig {
    RegistryConfig {
        plain_http: servers.iter().map(|server| server.name()).collect(),
        world: World {
            backoff: Duration::from_millis(2),
            retry_after_max: Duration::from_secs(5),
            answer_wait: Duration::from_millis(800),
            document_wait: Duration::from_millis(800),
            progress_window: Duration::from_millis(150),
            ..World::default()
        },
        ..RegistryConfig::default()
    }
}

fn amd64() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn described(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest(bytes), bytes.len())
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    serde_json::from_str(&described(LAYER, bytes)).unwrap()
}

/// A manifest with one layer of these bytes.
fn manifest(layer: &[u8]) -> Vec<u8> {
    let (config, layer) = (described(CONFIG, b"{}"), described(LAYER, layer));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layer}]}}"#)
        .into_bytes()
}

fn index(entries: &[String]) -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(",")).into_bytes()
}

fn entry(document: &[u8], media_type: &str, platform: &str) -> String {
    let (os, architecture) = platform.split_once('/').unwrap();
    let platform = format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#);
    described(media_type, document).replace('}', &platform)
}

async fn resolve(config: RegistryConfig, reference: &str) -> Result<Resolved, RegistryError> {
    let reference = Reference::parse(reference, &config).unwrap();
    Registry::new(config).unwrap().resolve(&reference, &amd64()).await
}

/// Fetches a blob of these bytes into a sink.
async fn fetch(
    config: RegistryConfig,
    server: &Server,
    bytes: &[u8],
    sink: &mut Memory,
) -> Result<(), RegistryError> {
    let reference = Reference::parse(&format!("{}/app", server.name()), &config).unwrap();
    Registry::new(config).unwrap().fetch(&reference, &descriptor(bytes), sink).await
}

/// Says what an error says to its reader, and to nobody else anything secret.
fn told(error: &RegistryError) -> String {
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    for secret in ["s3cret", "t0ken", "signature", "czNjcmV0"] {
        assert!(!text.contains(secret) && !debug.contains(secret), "{text} {debug}");
    }
    assert!(text.len() < 2048, "{text}");
    text
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn is_blob(asked: &Asked) -> bool {
    asked.path.starts_with("/v2/app/blobs/")
}

fn as_manifest(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply::ok(bytes).with("content-type", MANIFEST)
}
