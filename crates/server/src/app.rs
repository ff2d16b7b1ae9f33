// SPDX-License-Identifier: Apache-2.0
//! What all requests share.

use std::sync::Arc;

use image::Images;
use protocol::limits::{DISK_SCANS_MAX, SANDBOXES_MAX};
use runtime::Backend;
use runtime::volume::AllowedVolume;
use tokio::sync::Semaphore;

use crate::crowd::Crowd;
use crate::host::Host;
use crate::http::HostName;
use crate::keys::Keys;
use crate::memory::Memory;
use crate::repeats::Repeats;
use crate::sandbox::Registry;

/// Whether callers must show who they are.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody who reaches the server may use it: a development server.
    Open,
    /// One of these keys is needed.
    Keys(Arc<Keys>),
}

/// The server without its sockets: a cheap handle.
#[derive(Clone, Debug)]
pub struct App {
    shared: Arc<Shared>,
    allowed_hosts: Arc<[HostName]>,
    allowed_volumes: Arc<[AllowedVolume]>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    images: Images,
    host: Host,
    access: Access,
    disk_scans: Arc<Semaphore>,
    memory: Memory,
    repeats: Repeats,
    crowd: Crowd,
}

impl App {
    /// Puts one together.
    pub fn new(backend: Arc<dyn Backend>, images: Images, host: Host, access: Access) -> App {
        App::with_capacity(backend, images, host, access, SANDBOXES_MAX)
    }

    /// Puts one together that runs at most `sandboxes_max` sandboxes at once.
    pub fn with_capacity(
        backend: Arc<dyn Backend>,
        images: Images,
        host: Host,
        access: Access,
        sandboxes_max: usize,
    ) -> App {
        let registry = Registry::new(backend, sandboxes_max);
        let disk_scans = Arc::new(Semaphore::new(DISK_SCANS_MAX));
        let shared = Arc::new(Shared {
            registry,
            images,
            host,
            access,
            disk_scans,
            memory: Memory::new(),
            repeats: Repeats::default(),
            crowd: Crowd::default(),
        });
        App { shared, allowed_hosts: Arc::default(), allowed_volumes: Arc::default() }
    }

    /// Lets the server be called by these names too.
    #[must_use]
    pub fn allow_hosts(mut self, names: Vec<HostName>) -> App {
        self.allowed_hosts = names.into();
        self
    }

    /// Lets clients have what is below these directories in sandboxes.
    #[must_use]
    pub fn allow_volumes(mut self, volumes: Vec<AllowedVolume>) -> App {
        self.allowed_volumes = volumes.into();
        self
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn images(&self) -> &Images {
        &self.shared.images
    }

    pub(crate) fn host(&self) -> Host {
        self.shared.host
    }

    pub(crate) fn access(&self) -> &Access {
        &self.shared.access
    }

    pub(crate) fn allowed_hosts(&self) -> &[HostName] {
        &self.allowed_hosts
    }

    pub(crate) fn allowed_volumes(&self) -> &[AllowedVolume] {
        &self.allowed_volumes
    }

    pub(crate) fn disk_scans(&self) -> &Arc<Semaphore> {
        &self.shared.disk_scans
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    pub(crate) fn crowd(&self) -> &Crowd {
        &self.shared.crowd
    }

    /// Returns the answers that are kept for idempotency keys.
    pub(crate) fn repeats(&self) -> &Repeats {
        &self.shared.repeats
    }
}
