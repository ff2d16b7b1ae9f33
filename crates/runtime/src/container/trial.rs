// SPDX-License-Identifier: Apache-2.0
//! A sandbox with nothing in it, built and taken down again: whether walls can be built here is found out by that alone.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use protocol::isolation::Isolation;
use protocol::limits::{DISK_MIB_MIN, IO_WEIGHT_DEFAULT, OPEN_FILES_DEFAULT, SHM_MIB_DEFAULT};
use protocol::network::Network;

use super::isolation::{KIND, without_sandbox};
use super::launch::blocking;
use super::{ContainerBackend, Programs, rights};
use crate::backend::{Backend, Sandbox};
use crate::network::Wish;
use crate::spec::{Rootfs, RootfsMount, SandboxId, SandboxSpec};
use crate::volume::DiskStore;

/// Its image below the home: an empty directory.
const IMAGE: &str = "trial";
/// What the agent alone needs, and some more.
const MEMORY_MIB: u32 = 64;
const PIDS_MAX: u32 = 16;

/// Builds one, says what protects it, and takes it down. The start has a deadline of its own.
pub(super) async fn try_walls(backend: &ContainerBackend, home: &Path) -> Isolation {
    match build(backend, home).await {
        Ok(isolation) => isolation,
        Err(why) => {
            tracing::warn!(why, "no sandbox can be built on this host");
            Isolation::gather(KIND, without_sandbox(&backend.shares.facts, &backend.shares.standing, &why))
        }
    }
}

async fn build(backend: &impl Backend, home: &Path) -> Result<Isolation, String> {
    let image = home.join(IMAGE);
    make(&image).map_err(|error| error.to_string())?;
    let tried = start(backend, &image).await;
    if let Err(error) = fs_err::remove_dir(&image) {
        tracing::warn!(%error, "the trial left something behind");
    }
    tried
}

fn make(image: &Path) -> io::Result<()> {
    match fs_err::create_dir(image) {
        // Of a server that was killed at this moment.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

async fn start(backend: &impl Backend, image: &Path) -> Result<Isolation, String> {
    let spec = SandboxSpec {
        id: SandboxId::random().map_err(|error| error.to_string())?,
        hostname: "trial".to_owned(),
        rootfs: Rootfs { mounts: vec![RootfsMount { at: "/".to_owned(), lowers: vec![image.to_owned()] }] },
        memory_mib: MEMORY_MIB,
        cpu_millis: 1000,
        disk_mib: DISK_MIB_MIN,
        volumes: Vec::new(),
        pids_max: PIDS_MAX,
        open_files_max: OPEN_FILES_DEFAULT,
        io_weight: IO_WEIGHT_DEFAULT,
        shm_mib: SHM_MIB_DEFAULT,
        envs: Vec::new(),
        workdir: None,
        user: None,
        prestart: None,
        network: Network::None,
        ports: Vec::new(),
    };
    let sandbox: Arc<dyn Sandbox> = backend.start(spec).await.map_err(|error| chain(&error))?;
    let seen = Arc::clone(&sandbox);
    let isolation = blocking(move || seen.isolation()).await.map_err(|error| error.to_string());
    sandbox.stop().await.map_err(|error| chain(&error))?;
    isolation
}

/// Writes an error and all its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

/// Finds out what walls this host can have, without a server: opens a backend below an empty directory, builds a sandbox
/// there and takes it down. The directory is on the file system that is asked about.
pub async fn examine(directory: &Path, programs: Programs, network: Wish) -> Isolation {
    let jail = programs.jail.clone();
    match ContainerBackend::open(directory, programs, &DiskStore::default(), network) {
        Ok(backend) => {
            let isolation = backend.try_walls().await;
            backend.drain().await;
            isolation
        }
        Err(error) => {
            let (standing, facts) = rights::find(&jail, directory);
            Isolation::gather(KIND, without_sandbox(&facts, &standing, &chain(&error)))
        }
    }
}
