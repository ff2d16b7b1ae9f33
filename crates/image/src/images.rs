// SPDX-License-Identifier: Apache-2.0
//! From what a client writes for an image to what a sandbox is made of, along the chain that the operator set up.
//!
//! ```text
//! microsandbox/python, microsandbox/node   the store ─▶ the registry, where one is configured ─▶ this machine's own
//! /a/directory                             a directory that the operator allows
//! anything else                            the store ─▶ the registry that the reference names
//! ```

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::{Digest, ImageConfiguration};
use protocol::limits::{ENVS_BYTES_MAX, ENVS_MAX};

use crate::pull::{PullError, PullPolicy, Puller};
use crate::reference::{Reference, ReferenceError};
use crate::registry::{NamedBy, Registry, RegistryConfig, RegistryError};
use crate::resolver::{Allowed, ResolveError, Resolver};
use crate::store::{ImageRecord, Lease, Removed, Store, StoreError};
use crate::{ImageName, Rootfs, RootfsMount};

/// The images of one server: a cheap handle.
#[derive(Clone)]
pub struct Images {
    shared: Arc<Shared>,
}

struct Shared {
    own: Resolver,
    store: Store,
    puller: Puller,
    registries: RegistryConfig,
    defaults_from_registry: bool,
}

/// An image that is there, and what it asks for.
#[derive(Debug)]
pub struct Found {
    /// What a sandbox's file system is made of.
    pub rootfs: Rootfs,
    /// What its configuration says of the programs in it.
    pub settings: Settings,
    /// Where it was found.
    pub from: Source,
    /// Keeps it in the store as long as this lives.
    pub lease: Option<Lease>,
}

/// What an image's configuration says of the programs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The environment.
    pub envs: Vec<(String, String)>,
    /// The working directory, as an absolute path.
    pub workdir: Option<String>,
    /// The user, as the image writes it: a name or number, and after a colon a group.
    pub user: Option<String>,
}

/// Where an image was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This machine's own programs.
    Host,
    /// A directory that the operator allows.
    Directory,
    /// The store, where it was before.
    Store(Stored),
    /// A registry, from which it was pulled into the store for this.
    Registry(Stored),
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The reference, in full.
    pub reference: String,
    /// The manifest's digest.
    pub digest: Digest,
}

/// Why a name has no image here.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is none of this machine's own.
    #[error(transparent)]
    Own(#[from] ResolveError),
    /// It is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It could not be pulled; others who asked for it share the error.
    #[error(transparent)]
    Pull(#[from] Arc<PullError>),
    /// The store cannot give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its configuration asks for what cannot be.
    #[error("cannot use the configuration of the image: {0}")]
    Settings(String),
    /// Something unexpected happened.
    #[error("looking for the image ended without an outcome")]
    Lost,
}

/// Why the images of a home cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be allowed for images.
    #[error("cannot allow images in a directory")]
    Allowed(#[source] io::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration of registries cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("own", &self.shared.own).finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the images of a home. With `defaults_from_registry` the two default names are also looked for in the
    /// default registry. Blocks.
    ///
    /// # Errors
    /// [`OpenError`], saying which part cannot be used.
    pub fn open(
        home: &Path,
        allowed: Allowed,
        registries: RegistryConfig,
        defaults_from_registry: bool,
    ) -> Result<Images, OpenError> {
        // Whoever names an image here does so over the network.
        let registries = RegistryConfig { named_by: NamedBy::Clients, ..registries };
        let own = Resolver::new(home, allowed).map_err(OpenError::Allowed)?;
        let store = Store::open(&home.join("images"))?;
        let puller = Puller::new(store.clone(), Registry::new(registries.clone())?);
        let shared = Shared { own, store, puller, registries, defaults_from_registry };
        Ok(Images { shared: Arc::new(shared) })
    }

    /// Prepares what this machine's own programs need to be an image. Blocks.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn prepare_host(&self) -> Result<(), ResolveError> {
        self.shared.own.resolve(&ImageName::Python).map(|_| ())
    }

    /// Reads a reference as this server means it.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn reference(&self, text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text, &self.shared.registries)
    }

    /// Finds an image, and pulls it if need be. A pull goes on when this is dropped.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn find(&self, name: &ImageName, policy: PullPolicy) -> Result<Found, ImageError> {
        match name {
            ImageName::Directory(_) => self.own(name).await,
            ImageName::Python | ImageName::Node => self.default_image(name, policy).await,
            ImageName::Other(text) => self.pulled(&self.reference(text)?, policy).await,
        }
    }

    /// Pulls an image, if the policy says so, and returns what the store has of it. A pull goes on when this is dropped.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn pull(&self, name: &str, policy: PullPolicy) -> Result<ImageRecord, ImageError> {
        Ok(self.shared.puller.image(&self.reference(name)?, policy).await?)
    }

    /// Returns the images of the store. Blocks.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        Ok(self.shared.store.list()?.images)
    }

    /// Returns an image of the store, by its reference or the beginning of its digest, and its configuration. Blocks.
    ///
    /// # Errors
    /// [`ImageError`]; [`PullError::NotThere`] when there is none.
    pub fn inspect(&self, name: &str) -> Result<(ImageRecord, ImageConfiguration), ImageError> {
        let record = self.named(name)?;
        let store = &self.shared.store;
        let text = store.read_blob(&store.descriptor_of(&record.config_digest)?)?;
        let configuration = ImageConfiguration::from_reader(text.as_slice());
        let configuration = configuration.map_err(|error| ImageError::Settings(error.to_string()))?;
        Ok((record, configuration))
    }

    /// Removes an image of the store, by its reference or the beginning of its digest. Blocks.
    ///
    /// # Errors
    /// As for [`Images::inspect`].
    pub fn remove(&self, name: &str) -> Result<Removed, ImageError> {
        let record = self.named(name)?;
        let not_there = || ImageError::Pull(Arc::new(PullError::NotThere(name.to_owned())));
        self.shared.store.remove(&record.reference)?.ok_or_else(not_there)
    }

    fn named(&self, name: &str) -> Result<ImageRecord, ImageError> {
        let store = &self.shared.store;
        let by_reference = match self.reference(name) {
            Ok(reference) => store.find(&reference.to_string())?,
            Err(_) => None,
        };
        let record = match by_reference {
            Some(record) => Some(record),
            None => store.find(name)?,
        };
        record.ok_or_else(|| ImageError::Pull(Arc::new(PullError::NotThere(name.to_owned()))))
    }

    async fn default_image(&self, name: &ImageName, policy: PullPolicy) -> Result<Found, ImageError> {
        // Under this reference they are loaded and built, whichever registry is asked for other names.
        let local = Reference::parse(&name.to_string(), &RegistryConfig::default())?;
        let found = match self.pulled(&local, PullPolicy::Never).await {
            Err(ImageError::Pull(error)) if matches!(*error, PullError::NotThere(_)) => {
                if !self.shared.defaults_from_registry {
                    return self.own(name).await;
                }
                self.pulled(&self.reference(&name.to_string())?, policy).await
            }
            found => found,
        };
        match found {
            // Whoever allows this machine's own wants to go on without a registry.
            Err(error) if self.shared.own.allows_host() => {
                tracing::warn!(%error, image = %name, "this machine's own image is taken");
                self.own(name).await
            }
            found => found,
        }
    }

    async fn own(&self, name: &ImageName) -> Result<Found, ImageError> {
        let (images, name) = (self.clone(), name.clone());
        let from = if matches!(name, ImageName::Directory(_)) { Source::Directory } else { Source::Host };
        let looking = tokio::task::spawn_blocking(move || images.shared.own.resolve(&name));
        let rootfs = looking.await.map_err(|_| ImageError::Lost)??;
        Ok(Found { rootfs, settings: Settings::default(), from, lease: None })
    }

    async fn pulled(&self, reference: &Reference, policy: PullPolicy) -> Result<Found, ImageError> {
        let puller = &self.shared.puller;
        let here = match policy {
            PullPolicy::Always => None,
            PullPolicy::IfMissing | PullPolicy::Never => puller.stored(reference).await.map_err(Arc::new)?,
        };
        let (record, link): (_, fn(Stored) -> Source) = match here {
            Some(record) => (record, Source::Store),
            None => (puller.image(reference, policy).await?, Source::Registry),
        };
        let store = self.shared.store.clone();
        let reading = tokio::task::spawn_blocking(move || from_store(&store, record, link));
        reading.await.map_err(|_| ImageError::Lost)?
    }
}

/// Puts together what the store has of an image. Leased first: what is looked up after that stays.
fn from_store(store: &Store, record: ImageRecord, link: fn(Stored) -> Source) -> Result<Found, ImageError> {
    let lease = store.lease(&record.manifest_digest)?;
    let mut lowers = Vec::new();
    for layer in record.layers.iter().rev() {
        lowers.push(store.layer(&layer.diff_id).ok_or_else(|| StoreError::Missing(layer.diff_id.clone()))?);
    }
    let configuration = store.read_blob(&store.descriptor_of(&record.config_digest)?)?;
    let settings = Settings::read(&configuration)?;
    let rootfs = Rootfs { mounts: vec![RootfsMount { at: "/".to_owned(), lowers }] };
    let from = link(Stored { reference: record.reference, digest: record.manifest_digest });
    Ok(Found { rootfs, settings, from, lease: Some(lease) })
}

impl Settings {
    /// Reads the configuration of an image (OCI Image Specification, "Image Configuration").
    fn read(configuration: &[u8]) -> Result<Settings, ImageError> {
        let wrong = |text: String| ImageError::Settings(text);
        let configuration =
            ImageConfiguration::from_reader(configuration).map_err(|error| wrong(error.to_string()))?;
        let Some(config) = configuration.config() else { return Ok(Settings::default()) };
        let texts = config.env().as_deref().unwrap_or_default();
        if texts.len() > ENVS_MAX || texts.iter().map(String::len).sum::<usize>() > ENVS_BYTES_MAX {
            return Err(wrong(format!(
                "its environment has more than {ENVS_MAX} variables or {ENVS_BYTES_MAX} bytes"
            )));
        }
        let assignment = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(wrong("its environment has an entry that is no NAME=value".to_owned())),
        };
        let envs = texts.iter().map(assignment).collect::<Result<_, _>>()?;
        let workdir = config.working_dir().clone().filter(|text| !text.is_empty());
        if workdir.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains('\0')) {
            return Err(wrong("its working directory is no absolute path".to_owned()));
        }
        Ok(Settings { envs, workdir, user: config.user().clone().filter(|text| !text.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str) -> Result<Settings, String> {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
        );
        Settings::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_an_image_says_of_its_programs_is_read() {
        let read =
            settings(r#"{"Env":["PATH=/bin","A=b=c","E="],"WorkingDir":"/srv","User":"web:www"}"#).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read.envs, [pair("PATH", "/bin"), pair("A", "b=c"), pair("E", "")]);
        assert_eq!((read.workdir.as_deref(), read.user.as_deref()), (Some("/srv"), Some("web:www")));
        assert_eq!(settings(r#"{"WorkingDir":"","User":""}"#), Ok(Settings::default()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let large = format!(r#"{{"Env":["A={}"]}}"#, "x".repeat(1 << 20));
        for config in [r#"{"Env":["novalue"]}"#, r#"{"Env":["=x"]}"#, r#"{"WorkingDir":"srv"}"#, &large] {
            assert!(
                settings(config).unwrap_err().starts_with("cannot use the configuration"),
                "{config:.40}"
            );
        }
        assert!(Settings::read(b"<html>").is_err());
    }
}
