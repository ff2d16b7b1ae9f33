// SPDX-License-Identifier: Apache-2.0
//! Puts a server together on a real machine: home, walls, images.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use image::registry::RegistryConfig;
use image::{Allowed, Images, ResolveError};
use runtime::container::{self, ContainerBackend};
use runtime::network::Wish;
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
    /// The registries that images are pulled from.
    pub registries: RegistryConfig,
    /// What sandboxes have of the network.
    pub network: Wish,
    /// Whether the two default images are looked for in the default registry too.
    pub defaults_from_registry: bool,
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
    /// The walls cannot be built here.
    #[error("cannot build sandboxes on this machine")]
    Backend(#[from] container::OpenError),
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
    /// Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`], saying which part failed.
    pub fn open(settings: Settings) -> Result<Server, OpenError> {
        let home = Home::take(&settings.home)?;
        use_all_descriptors();
        let host = Host::read().map_err(OpenError::Machine)?;
        let Programs { jail, agent } = settings.programs;
        // First the backend: it ends sandboxes of an earlier server, which may use the host image that is there.
        let backend =
            ContainerBackend::open(home.path(), container::Programs { jail, agent }, settings.network)?;
        let allowed = Allowed { host: settings.allow_host_image, rootfs: settings.allowed_rootfs };
        let images =
            Images::open(home.path(), allowed, settings.registries, settings.defaults_from_registry)?;
        if settings.allow_host_image {
            // Built now: a machine that cannot be an image says so before anybody asks, and no request waits for it.
            images.prepare_host()?;
        }
        let app = App::new(Arc::new(backend), images, host, settings.access);
        let app = app.allow_hosts(settings.allowed_hosts);
        Ok(Server { app, _home: home })
    }

    /// Serves until `shutdown` is done and every sandbox is gone.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.app.serve(listener, shutdown).await;
    }
}

/// Takes as many file descriptors as the system lets us have: the usual limit is meant for programs that use `select`.
fn use_all_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
