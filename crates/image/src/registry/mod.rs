// SPDX-License-Identifier: Apache-2.0
//! Registries: a reference in, a checked manifest and the bytes of blobs out.
//!
//! ```text
//! Registry::resolve   mirrors, then the registry ─▶ index? choose the platform ─▶ manifest, kept as it came
//! Registry::fetch     mirrors, then the registry ─▶ blob by digest, resumed, bounded ─▶ BlobSink
//!   Session           one registry, one repository: attempts (retry), and a login when it is asked for (auth)
//!   Transport         one request: redirects, addresses, TLS (places, tls)
//! ```
//!
//! The requests are our own, over `reqwest`. The crate `oci-client` has none of the hooks that the promises here need:
//! its HTTP client is private, follows ten redirects to anywhere, from https to http too, resolves names unseen, sends
//! credentials to whatever realm it is told, reads manifests and errors without a bound, and hides `Retry-After`. What
//! would have been left of it is a list of addresses. The types of documents are those of `oci-spec`.

pub mod credentials;

mod auth;
mod blob;
mod challenge;
mod config;
mod error;
#[cfg(test)]
mod fuzz;
mod manifest;
mod places;
mod platform;
mod retry;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::sync::Arc;

pub use blob::BlobSink;
pub use config::{NamedBy, RegistryConfig, World};
pub use error::{ContentError, RegistryError};
pub use manifest::Compression;
pub use oci_spec::image::{Descriptor, Digest};
pub use platform::Platform;

use protocol::limits::{INDEX_DEPTH_MAX, REGISTRY_OPERATIONS_MAX};
use tokio::sync::Semaphore;

use self::auth::Auth;
use self::blob::Download;
use self::manifest::Document;
use self::session::Session;
use self::transport::Transport;
use crate::reference::{Reference, parse_registry};

/// What a reference is at the moment. Blobs are fetched by digest, so a tag that moves later changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The manifest, byte by byte as it came, checked against its digest.
    pub manifest: Vec<u8>,
    /// What the manifest is.
    pub media_type: &'static str,
    /// The configuration of the image.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The digest of the index that the manifest was chosen from, if there was one.
    pub index_digest: Option<Digest>,
}

/// A client of registries. A clone is the same client: it shares connections, tokens and bounds.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<RegistryConfig>,
    transport: Transport,
    auth: Auth,
    slots: Semaphore,
}

impl Registry {
    /// Makes a client.
    ///
    /// # Errors
    /// When the configuration names what is no registry or no certificate.
    pub fn new(mut config: RegistryConfig) -> Result<Registry, RegistryError> {
        config.check()?;
        let named = |text: &String| parse_registry(text).unwrap_or_else(|_| text.clone());
        config.mirrors =
            config.mirrors.iter().map(|(of, list)| (named(of), list.iter().map(named).collect())).collect();
        config.default_registry = named(&config.default_registry);
        let config = Arc::new(config);
        let transport = Transport::new(Arc::clone(&config))?;
        let auth = Auth::new(Arc::clone(&config));
        let slots = Semaphore::new(REGISTRY_OPERATIONS_MAX);
        Ok(Registry { shared: Arc::new(Shared { config, transport, auth, slots }) })
    }

    /// Finds out what a reference is at the moment, for a platform.
    ///
    /// # Errors
    /// [`RegistryError`]; if mirrors were tried, with what they said.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        let _slot = self.slot().await;
        let mut failed = Vec::new();
        for mirror in self.mirrors(reference) {
            match self.resolve_at(mirror, reference, platform).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => failed.push(error),
            }
        }
        let resolved = self.resolve_at(reference.registry(), reference, platform).await;
        resolved.map_err(|error| after(failed, error))
    }

    /// Streams a blob into a sink, from where the sink is. The sink checks the digest.
    ///
    /// A mirror can send other bytes of the right number; whoever finds that out asks [`Registry::fetch_from_origin`].
    ///
    /// # Errors
    /// [`RegistryError`]; the sink keeps what it has, for the next call.
    pub async fn fetch(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), RegistryError> {
        let _slot = self.slot().await;
        let mut failed = Vec::new();
        for mirror in self.mirrors(reference) {
            match self.fetch_at(mirror, reference, blob, &mut *sink).await {
                Ok(()) => return Ok(()),
                Err(error @ RegistryError::Sink { .. }) => return Err(error),
                Err(error) => failed.push(error),
            }
        }
        if failed.iter().any(|error| matches!(error, RegistryError::Content { .. })) {
            // What such a mirror sent before is worth nothing.
            let what = blob.digest().to_string();
            sink.restart().map_err(|source| RegistryError::Sink { what, source })?;
        }
        let fetched = self.fetch_at(reference.registry(), reference, blob, sink).await;
        fetched.map_err(|error| after(failed, error))
    }

    /// Does as [`Registry::fetch`] without asking mirrors.
    ///
    /// # Errors
    /// [`RegistryError`]; the sink keeps what it has, for the next call.
    pub async fn fetch_from_origin(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), RegistryError> {
        let _slot = self.slot().await;
        self.fetch_at(reference.registry(), reference, blob, sink).await
    }

    /// Asks a registry whether it takes the login that is configured for it; `false` when it asks nobody for one, so
    /// that nothing is known of the login.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Denied`] when it does not take it.
    pub async fn takes_login(&self, registry: &str) -> Result<bool, RegistryError> {
        let shared = &*self.shared;
        let session = Session::new(&shared.config, &shared.transport, &shared.auth, (registry, ""));
        session.takes_login().await.map_err(|failure| match failure.error {
            RegistryError::Denied { host, reason, .. } => {
                let remedy = "check the name and the password".to_owned();
                RegistryError::Denied { host, what: "the login".to_owned(), reason, remedy }
            }
            error => error,
        })
    }

    async fn resolve_at(
        &self,
        registry: &str,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        let session = self.session(registry, reference);
        let mut sent = session.manifest(reference.version(), reference.digest(), None).await?;
        let mut indexes: Vec<Digest> = Vec::new();
        loop {
            let wrong = |source| RegistryError::Content {
                host: registry.to_owned(),
                what: format!("{}@{}", reference.repository(), sent.digest),
                source,
            };
            let index = match sent.document {
                Document::Image { media_type, config, layers } => {
                    let index_digest = indexes.into_iter().next();
                    let (manifest_digest, manifest) = (sent.digest, sent.bytes);
                    return Ok(Resolved {
                        manifest_digest,
                        manifest,
                        media_type,
                        config,
                        layers,
                        index_digest,
                    });
                }
                Document::Index(ref index) => index,
            };
            indexes.push(sent.digest.clone());
            let entry = platform::choose(index, platform).map_err(wrong)?;
            descend(&indexes, entry.digest()).map_err(wrong)?;
            sent =
                session.manifest(entry.digest().as_ref(), Some(entry.digest()), Some(entry.size())).await?;
        }
    }

    async fn fetch_at(
        &self,
        registry: &str,
        reference: &Reference,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), RegistryError> {
        let what = format!("{}@{}", reference.repository(), blob.digest());
        let world = &self.shared.config.world;
        self.session(registry, reference).blob(Download { blob, what, sink, world, restarts: 0 }).await
    }

    fn session<'a>(&'a self, registry: &'a str, reference: &'a Reference) -> Session<'a> {
        let shared = &*self.shared;
        Session::new(&shared.config, &shared.transport, &shared.auth, (registry, reference.repository()))
    }

    fn mirrors(&self, reference: &Reference) -> impl Iterator<Item = &str> {
        self.shared.config.mirrors.get(reference.registry()).into_iter().flatten().map(String::as_str)
    }

    async fn slot(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.shared.slots.acquire().await.expect("nobody closes the semaphore")
    }
}

/// Says whether one may go on from these indexes to what the last one names.
fn descend(indexes: &[Digest], to: &Digest) -> Result<(), ContentError> {
    manifest::check_digest(to)?;
    let allowed = "an index must lead to images";
    if indexes.contains(to) {
        return Err(ContentError::Unexpected { wrong: "its indexes lead to each other".to_owned(), allowed });
    }
    if indexes.len() > INDEX_DEPTH_MAX {
        let wrong = format!("more than {INDEX_DEPTH_MAX} indexes lead one to the other");
        return Err(ContentError::Unexpected { wrong, allowed });
    }
    Ok(())
}

fn after(mirrors: Vec<RegistryError>, origin: RegistryError) -> RegistryError {
    if mirrors.is_empty() {
        return origin;
    }
    let mirrors: Vec<String> = mirrors.iter().map(ToString::to_string).collect();
    RegistryError::AfterMirrors { mirrors: mirrors.join("; "), origin: Box::new(origin) }
}
