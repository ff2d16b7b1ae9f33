// SPDX-License-Identifier: Apache-2.0
//! Puts a server together on a real machine: home, walls, images.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::registry::RegistryConfig;
use image::{Allowed, Images, ResolveError};
use protocol::isolation::{Isolation, Level};
use runtime::container::{self, ContainerBackend};
use runtime::network::Wish;
use runtime::volume::{AllowedVolume, DiskStore};
use runtime::{Backend, Demanding};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::app::{Access, App};
use crate::home::{Home, HomeError};
use crate::host::Host;
use crate::http::HostName;

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's home directory.
    pub home: PathBuf,
    /// The helper programs.
    pub programs: Programs,
    /// Whether callers need a key.
    pub access: Access,
    /// Names by which the server may be called, beside its addresses.
    pub allowed_hosts: Vec<HostName>,
    /// Whether this machine's own programs may be used as an image.
    pub allow_host_image: bool,
    /// Directories whose subdirectories may be used as images.
    pub allowed_rootfs: Vec<PathBuf>,
    /// Directories whose contents clients may have in sandboxes, as `DIR` or `DIR:ro`.
    pub allowed_volumes: Vec<String>,
    /// Where sandboxes write.
    pub disk: DiskStore,
    /// The registries that images are pulled from.
    pub registries: RegistryConfig,
    /// What sandboxes have of the network.
    pub network: Wish,
    /// Whether the two default images are looked for in the default registry too.
    pub defaults_from_registry: bool,
    /// What every sandbox must have.
    pub min_isolation: Level,
}

/// Where the helper programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Builds the walls.
    pub jail: PathBuf,
    /// Is process 1 of every sandbox.
    pub agent: PathBuf,
}

/// A server that holds its home and can serve.
#[derive(Debug)]
pub struct Server {
    app: App,
    _home: Home,
}

/// Why a server cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The machine does not say what it has.
    #[error("cannot read the size of this machine")]
    Machine(#[source] io::Error),
    /// A directory that is allowed as a volume is not there.
    #[error("cannot allow a directory as a volume")]
    Volume(#[source] io::Error),
    /// The walls cannot be built here.
    #[error("cannot build sandboxes on this machine")]
    Backend(#[from] container::OpenError),
    /// What is demanded of sandboxes cannot be had here; each protection that is missing, and what mends it.
    #[error("{0}")]
    TooWeak(String),
    /// The images cannot be used.
    #[error(transparent)]
    Images(#[from] image::images::OpenError),
    /// The host image cannot be built.
    #[error(transparent)]
    HostImage(#[from] ResolveError),
}

impl Server {
    /// Takes the home, clears up what an earlier server left there, and builds what all sandboxes share. Blocks.
    ///
    /// Needs to be called within a tokio runtime of several threads, where it may block.
    ///
    /// # Errors
    /// [`OpenError`], saying which part failed.
    pub fn open(settings: Settings) -> Result<Server, OpenError> {
        let home = Home::take(&settings.home)?;
        use_all_descriptors();
        let host = Host::read().map_err(OpenError::Machine)?;
        let Programs { jail, agent } = settings.programs;
        let volumes: Vec<AllowedVolume> = settings
            .allowed_volumes
            .iter()
            .map(|text| AllowedVolume::open(text))
            .collect::<Result<_, _>>()
            .map_err(OpenError::Volume)?;
        // First the backend: it ends sandboxes of an earlier server, which may use the host image that is there.
        let programs = container::Programs { jail, agent };
        let backend = ContainerBackend::open(home.path(), programs, &settings.disk, settings.network)?;
        let backend = demand(backend, settings.min_isolation)?;
        let allowed = Allowed { host: settings.allow_host_image, rootfs: settings.allowed_rootfs };
        let images =
            Images::open(home.path(), allowed, settings.registries, settings.defaults_from_registry)?;
        if settings.allow_host_image {
            // Built now: a machine that cannot be an image says so before anybody asks, and no request waits for it.
            images.prepare_host()?;
        }
        let app = App::new(backend, images, host, settings.access);
        let app = app.allow_hosts(settings.allowed_hosts).allow_volumes(volumes);
        Ok(Server { app, _home: home })
    }

    /// Serves until `shutdown` is done and every sandbox is gone.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.app.serve(listener, shutdown).await;
    }
}

/// Finds out what walls this machine can have, by building some below an empty directory.
pub async fn examine(directory: &Path, programs: Programs, network: Wish) -> Isolation {
    let Programs { jail, agent } = programs;
    container::examine(directory, container::Programs { jail, agent }, network).await
}

/// Builds a sandbox to see what protects those of this server, and refuses to go on with less than is demanded.
fn demand(backend: ContainerBackend, level: Level) -> Result<Arc<dyn Backend>, OpenError> {
    let isolation = tokio::runtime::Handle::current().block_on(backend.try_walls());
    if let Some(lacking) = Demanding::lacking(level, &isolation) {
        return Err(OpenError::TooWeak(lacking));
    }
    let off: Vec<&str> =
        isolation.protections.iter().filter(|one| !one.on).map(|one| one.name.text()).collect();
    match isolation.level() {
        Level::Complete => tracing::info!("isolation: complete"),
        met => tracing::warn!("isolation: {met}; off: {} (msb doctor says why)", off.join(", ")),
    }
    Ok(if level == Level::Any {
        Arc::new(backend)
    } else {
        Arc::new(Demanding::new(Arc::new(backend), level))
    })
}

/// Takes as many file descriptors as the system lets us have: the usual limit is meant for programs that use `select`.
fn use_all_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
