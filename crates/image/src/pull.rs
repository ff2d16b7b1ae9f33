// SPDX-License-Identifier: Apache-2.0
//! From a reference to an image in the store, ready to use: manifest, blobs, unpacked layers, a record.
//!
//! ```text
//! resolve ──▶ manifest ──▶ configuration ──▶ layers, fetched and unpacked side by side ──▶ record
//! ```
//!
//! A pull goes on when whoever asked for it does not wait any longer, and everyone who asks for the same reference
//! meanwhile waits for the same pull. What was fetched stays when a pull fails, and the next one goes on from there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};
use protocol::limits::{PULL_LAYERS_AT_ONCE_MAX, PULL_LAYERS_UNPACKED_AT_ONCE_MAX, PULLS_MAX};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::reference::Reference;
use crate::registry::{BlobSink, Platform, Registry, RegistryError, Resolved};
use crate::store::{BlobWriter, ImageRecord, LayerError, LayerRecord, Store, StoreError, layers_of};
use crate::unpack::{Budget, Compression, UnpackError, decompress, unpack};

/// When the registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always: a tag may mean something else by now.
    Always,
    /// Only when the image is not in the store.
    #[default]
    IfMissing,
    /// Never.
    Never,
}

/// Pulls images into one store: a cheap handle.
#[derive(Clone)]
pub struct Puller {
    store: Store,
    registry: Registry,
    platform: Platform,
    pulls: Arc<Mutex<HashMap<String, watch::Receiver<Pull>>>>,
}

/// How far a pull is.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    /// The layers, lowest first; none before the manifest is there.
    pub layers: Vec<PulledLayer>,
    /// How it ended, once it has.
    pub outcome: Option<Result<ImageRecord, Arc<PullError>>>,
}

/// How far a pull is with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its size as it is sent, in bytes.
    pub size: u64,
    /// How many bytes of it are there.
    pub fetched: u64,
    /// Whether it is unpacked.
    pub unpacked: bool,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// It is not in the store, and nobody may be asked for it.
    #[error("{0} is not in the image store, and the registry is not asked")]
    NotThere(String),
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be used.
    #[error(transparent)]
    Layer(#[from] LayerError<UnpackError>),
    /// As many are pulled as may be.
    #[error("{PULLS_MAX} images are being pulled already")]
    TooMany,
    /// It is for other machines.
    #[error("the image is for {is}, not for {wanted}")]
    Platform {
        /// What it is for.
        is: String,
        /// What was asked for.
        wanted: String,
    },
    /// What is said of a layer cannot be.
    #[error("cannot use a layer")]
    Unpack(#[from] UnpackError),
    /// Something unexpected happened.
    #[error("the pull ended without an outcome")]
    Lost,
}

impl Puller {
    /// Makes one that pulls for this machine.
    pub fn new(store: Store, registry: Registry) -> Puller {
        Puller { store, registry, platform: Platform::host(), pulls: Arc::default() }
    }

    /// Makes one that pulls for another platform.
    #[must_use]
    pub fn for_platform(mut self, platform: Platform) -> Puller {
        self.platform = platform;
        self
    }

    /// Returns an image that is ready to use, and pulls it if the policy says so. Dropping the future stops the waiting,
    /// not the pull.
    ///
    /// # Errors
    /// [`PullError`]; those who wait for the same pull share it.
    pub async fn image(
        &self,
        reference: &Reference,
        policy: PullPolicy,
    ) -> Result<ImageRecord, Arc<PullError>> {
        if policy != PullPolicy::Always {
            match self.stored(reference).await.map_err(Arc::new)? {
                Some(record) => return Ok(record),
                None if policy == PullPolicy::Never => {
                    return Err(Arc::new(PullError::NotThere(reference.to_string())));
                }
                None => {}
            }
        }
        let mut pull = self.begin(reference, policy);
        let ended = pull.wait_for(|pull| pull.outcome.is_some()).await;
        ended.ok().and_then(|pull| pull.outcome.clone()).unwrap_or_else(|| Err(Arc::new(PullError::Lost)))
    }

    /// Begins to pull, or joins whoever is at it, and returns the news of it.
    pub fn pull(&self, reference: &Reference) -> watch::Receiver<Pull> {
        self.begin(reference, PullPolicy::Always)
    }

    fn begin(&self, reference: &Reference, policy: PullPolicy) -> watch::Receiver<Pull> {
        let name = reference.to_string();
        let mut pulls = self.pulls();
        let full = pulls.len() >= PULLS_MAX;
        let sender = match pulls.entry(name.clone()) {
            Entry::Occupied(pull) => return pull.get().clone(),
            Entry::Vacant(_) if full => {
                let refused = Pull { outcome: Some(Err(Arc::new(PullError::TooMany))), ..Pull::default() };
                return watch::channel(refused).1;
            }
            Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(Pull::default());
                place.insert(receiver);
                sender
            }
        };
        drop(pulls);
        let receiver = sender.subscribe();
        let (puller, reference) = (self.clone(), reference.clone());
        tokio::spawn(async move {
            let news = Arc::new(sender);
            let begun = Begun { puller: puller.clone(), name };
            let outcome = puller.run(&reference, policy, &news).await.map_err(Arc::new);
            drop(begun);
            news.send_modify(|pull| pull.outcome = Some(outcome));
        });
        receiver
    }

    async fn run(
        &self,
        reference: &Reference,
        policy: PullPolicy,
        news: &Arc<watch::Sender<Pull>>,
    ) -> Result<ImageRecord, PullError> {
        if policy != PullPolicy::Always {
            // A pull that was under way when the caller looked may have ended before it could be joined.
            if let Some(record) = self.stored(reference).await? {
                return Ok(record);
            }
        }
        let holding = self.store.clone();
        let store = blocking(move || Ok(holding.holding()?)).await?;
        let resolved = self.registry.resolve(reference, &self.platform).await?;
        let fetcher =
            Fetcher { store: store.clone(), registry: self.registry.clone(), reference: reference.clone() };
        fetcher.fetch(&resolved.config, |_| {}).await?;
        let (held, kept) = (store.clone(), resolved.clone());
        let platform = self.platform.clone();
        let layers = blocking(move || keep_manifest(&held, &kept, &platform)).await?;
        news.send_modify(|pull| {
            let layer = |layer: &LayerRecord| PulledLayer {
                digest: layer.blob.clone(),
                size: layer.size,
                fetched: 0,
                unpacked: false,
            };
            pull.layers = layers.iter().map(layer).collect();
        });
        self.layers(fetcher, &resolved.layers, &layers, news).await?;
        let record = record(reference, &self.platform, &resolved, layers);
        blocking(move || {
            store.tag(&record)?;
            Ok(record)
        })
        .await
    }

    /// Finds an image that is ready to use.
    pub(crate) async fn stored(&self, reference: &Reference) -> Result<Option<ImageRecord>, PullError> {
        let (store, name) = (self.store.clone(), reference.to_string());
        blocking(move || ready(&store, &name)).await
    }

    /// Fetches layers side by side, and unpacks each as soon as it is there: none needs what another one has.
    async fn layers(
        &self,
        fetcher: Fetcher,
        blobs: &[Descriptor],
        layers: &[LayerRecord],
        news: &Arc<watch::Sender<Pull>>,
    ) -> Result<(), PullError> {
        let work = Work {
            fetcher,
            news: Arc::clone(news),
            fetching: Arc::new(Semaphore::new(PULL_LAYERS_AT_ONCE_MAX)),
            unpacking: Arc::new(Semaphore::new(PULL_LAYERS_UNPACKED_AT_ONCE_MAX)),
            budget: Arc::new(Budget::for_image()),
        };
        let mut all = JoinSet::new();
        for (index, (blob, layer)) in blobs.iter().cloned().zip(layers.iter().cloned()).enumerate() {
            let work = work.clone();
            all.spawn(async move { work.layer(index, blob, layer).await });
        }
        let mut outcome = Ok(());
        while let Some(ended) = all.join_next().await {
            outcome = ended.unwrap_or(Err(PullError::Lost));
            if outcome.is_err() {
                break;
            }
        }
        drop(all);
        // What is being unpacked cannot be stopped: when the pull has ended, nothing of it is half made any more.
        let unpacking = u32::try_from(PULL_LAYERS_UNPACKED_AT_ONCE_MAX).expect("it is a small number");
        let _none = work.unpacking.acquire_many(unpacking).await.expect("this semaphore is never closed");
        outcome
    }

    fn pulls(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Pull>>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the layers of one pull share.
#[derive(Clone)]
struct Work {
    fetcher: Fetcher,
    news: Arc<watch::Sender<Pull>>,
    fetching: Arc<Semaphore>,
    unpacking: Arc<Semaphore>,
    budget: Arc<Budget>,
}

impl Work {
    async fn layer(&self, index: usize, blob: Descriptor, layer: LayerRecord) -> Result<(), PullError> {
        {
            let _turn = self.fetching.acquire().await.expect("this semaphore is never closed");
            let tell = |have| self.news.send_modify(|pull| pull.layers[index].fetched = have);
            self.fetcher.fetch(&blob, tell).await?;
        }
        let turn = Arc::clone(&self.unpacking).acquire_owned().await.expect("this semaphore is never closed");
        let (store, budget) = (self.fetcher.store.clone(), Arc::clone(&self.budget));
        blocking(move || {
            // Kept to the end of the work, whoever still waits for it.
            let _turn = turn;
            unpack_layer(&store, &blob, &layer, &budget)
        })
        .await?;
        self.news.send_modify(|pull| pull.layers[index].unpacked = true);
        Ok(())
    }
}

/// A pull that others can join; when it is over, the next one who asks begins anew.
struct Begun {
    puller: Puller,
    name: String,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.puller.pulls().remove(&self.name);
    }
}

/// Fetches blobs of one repository into the store.
#[derive(Clone)]
struct Fetcher {
    store: Store,
    registry: Registry,
    reference: Reference,
}

impl Fetcher {
    /// Fetches a blob unless it is there. A mirror that sent something else is not believed twice.
    async fn fetch(&self, blob: &Descriptor, tell: impl Fn(u64) + Send + Sync) -> Result<(), PullError> {
        match self.attempt(blob, &tell, false).await {
            Err(PullError::Store(StoreError::Mismatch(..))) => self.attempt(blob, &tell, true).await,
            outcome => outcome,
        }
    }

    async fn attempt(
        &self,
        blob: &Descriptor,
        tell: &(impl Fn(u64) + Send + Sync),
        from_origin: bool,
    ) -> Result<(), PullError> {
        let (store, wanted) = (self.store.clone(), blob.clone());
        let Some(writer) = blocking(move || Ok(store.begin_blob(&wanted)?)).await? else {
            tell(blob.size());
            return Ok(());
        };
        let mut sink = Sink { writer, tell };
        if from_origin {
            self.registry.fetch_from_origin(&self.reference, blob, &mut sink).await?;
        } else {
            self.registry.fetch(&self.reference, blob, &mut sink).await?;
        }
        let Sink { writer, .. } = sink;
        blocking(move || Ok(writer.finish()?)).await
    }
}

struct Sink<'a, F> {
    writer: BlobWriter,
    tell: &'a F,
}

impl<F: Fn(u64) + Send + Sync> BlobSink for Sink<'_, F> {
    fn have(&self) -> u64 {
        self.writer.have()
    }

    fn restart(&mut self) -> io::Result<()> {
        self.writer.restart().map_err(io::Error::other)
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.writer.write(chunk).map_err(io::Error::other)?;
        (self.tell)(self.writer.have());
        Ok(())
    }
}

/// Unpacks the layers of an image whose blobs are in the store, so that it is ready to use.
///
/// # Errors
/// [`PullError`]; layers that were unpacked until then stay.
pub fn unpack_image(store: &Store, image: &ImageRecord) -> Result<(), PullError> {
    let bytes = store.read_blob(&store.descriptor_of(&image.manifest_digest)?)?;
    let unreadable = |error: oci_spec::OciSpecError| StoreError::Unreadable {
        what: image.manifest_digest.to_string(),
        why: error.to_string(),
    };
    let manifest = ImageManifest::from_reader(bytes.as_slice()).map_err(unreadable)?;
    let budget = Budget::for_image();
    for (blob, layer) in manifest.layers().iter().zip(&image.layers) {
        unpack_layer(store, blob, layer, &budget)?;
    }
    Ok(())
}

/// Unpacks a layer whose blob is in the store, unless it is.
///
/// # Errors
/// [`PullError`]; then nothing is left of the layer.
pub fn unpack_layer(
    store: &Store,
    blob: &Descriptor,
    layer: &LayerRecord,
    budget: &Budget,
) -> Result<(), PullError> {
    let compression = Compression::from_media_type(blob.media_type().as_ref())?;
    let reader = store.open_blob(blob)?;
    store.add_layer(&layer.diff_id, |into| {
        let unpacked = unpack(decompress(reader, compression)?, into, budget)?;
        Ok(unpacked.diff_id.parse().expect("what is computed here is a digest"))
    })?;
    Ok(())
}

/// Finds an image whose layers are all unpacked.
fn ready(store: &Store, reference: &str) -> Result<Option<ImageRecord>, PullError> {
    let Some(record) = store.find(reference)? else { return Ok(None) };
    let all = record.layers.iter().all(|layer| store.layer(&layer.diff_id).is_some());
    Ok(all.then_some(record))
}

/// Puts the manifest into the store, and returns the layers as manifest and configuration have them.
fn keep_manifest(
    store: &Store,
    resolved: &Resolved,
    platform: &Platform,
) -> Result<Vec<LayerRecord>, PullError> {
    let size = resolved.manifest.len() as u64;
    let manifest = Descriptor::new(resolved.media_type.into(), size, resolved.manifest_digest.clone());
    store.add_blob(&manifest, &mut resolved.manifest.as_slice())?;
    let unreadable = |error: oci_spec::OciSpecError| StoreError::Unreadable {
        what: resolved.manifest_digest.to_string(),
        why: error.to_string(),
    };
    let parsed = ImageManifest::from_reader(resolved.manifest.as_slice()).map_err(unreadable)?;
    let text = store.read_blob(&resolved.config)?;
    let configuration = ImageConfiguration::from_reader(text.as_slice()).map_err(unreadable)?;
    let (os, architecture) = (configuration.os().to_string(), configuration.architecture().to_string());
    // An index says it of each manifest; a manifest alone says it nowhere else.
    if (os.as_str(), architecture.as_str()) != (platform.os.as_str(), platform.architecture.as_str()) {
        return Err(PullError::Platform { is: format!("{os}/{architecture}"), wanted: platform.to_string() });
    }
    Ok(layers_of(&parsed, &text)?)
}

fn record(
    reference: &Reference,
    platform: &Platform,
    resolved: &Resolved,
    layers: Vec<LayerRecord>,
) -> ImageRecord {
    let blobs: u64 = layers.iter().map(|layer| layer.size).sum();
    ImageRecord {
        reference: reference.to_string(),
        manifest_digest: resolved.manifest_digest.clone(),
        index_digest: resolved.index_digest.clone(),
        config_digest: resolved.config.digest().clone(),
        layers,
        platform: platform.to_string(),
        pulled: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        size: resolved.manifest.len() as u64 + resolved.config.size() + blobs,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PullError::Lost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryConfig;

    #[tokio::test]
    async fn pulls_at_once_are_bounded_and_those_of_one_reference_are_one() {
        let home = tempfile::tempdir().unwrap();
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, config) = (silent.local_addr().unwrap(), RegistryConfig::default());
        let store = Store::open(&home.path().join("images")).unwrap();
        let puller = Puller::new(store, Registry::new(config.clone()).unwrap());
        let begin = |number: usize| {
            let reference = Reference::parse(&format!("{address}/i:{number}"), &config).unwrap();
            puller.pull(&reference)
        };
        let begun: Vec<watch::Receiver<Pull>> = (0..PULLS_MAX).map(begin).collect();
        assert!(begun.iter().all(|pull| pull.borrow().outcome.is_none()));
        assert!(begin(0).borrow().outcome.is_none(), "it joins the one that is under way");
        let refused = begin(PULLS_MAX).borrow().outcome.clone();
        assert!(matches!(refused, Some(Err(error)) if matches!(*error, PullError::TooMany)));
    }
}
