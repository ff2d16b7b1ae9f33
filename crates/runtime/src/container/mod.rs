// SPDX-License-Identifier: Apache-2.0
//! The container wall: kernel namespaces, an id range of its own, overlay mounts, cgroups, seccomp.
//!
//! [`plan`] says what is set up (pure), `msb-jail` does it ([`launch`] runs it), [`sandbox`] watches over the result.
//! [`rights`] finds out with whose rights walls are built, [`probe`] tries what this host can do, [`isolation`] reads from outside what protects a sandbox, and [`trial`] builds
//! one to see. [`seccomp`] is the policy on system calls and [`bpf`] its machine code; [`ids`], [`cgroup`] and
//! [`crate::volume`] give each sandbox its share of the host.

mod bpf;
mod cgroup;
mod cgroup_limit;
mod cgroup_place;
mod cgroup_v1;
mod cgroup_v2;
mod ids;
mod isolation;
mod launch;
mod leftover;
mod plan;
mod probe;
mod rights;
mod sandbox;
mod seccomp;
mod trial;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jail::facts::Facts;
use jail::rights::Rights;
use protocol::isolation::{Isolation, Protection, ProtectionName};
use tokio::sync::{oneshot, watch};

pub use self::trial::examine;

use self::cgroup::Cgroups;
use self::ids::Ids;
use self::rights::Standing;
use crate::backend::{Backend, BoxFuture, Sandbox, StartError};
use crate::network::{Networks, Wish};
use crate::spec::{SandboxId, SandboxSpec};
use crate::volume::{DiskStore, Remover, Volume};

/// How often leftovers of an earlier server are tried to be removed: what was just killed takes a moment to die.
const LEFTOVER_TRIES: u32 = 20;

/// The helper programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `msb-jail`.
    pub jail: PathBuf,
    /// `msb-agent`.
    pub agent: PathBuf,
}

/// Why the backend cannot work here.
#[derive(Debug, thiserror::Error)]
#[error("the container wall cannot be built on this host: {step}")]
pub struct OpenError {
    /// What was tried.
    step: &'static str,
    /// What the host said.
    #[source]
    source: io::Error,
}

/// Builds sandboxes behind the container wall.
pub struct ContainerBackend {
    shares: Arc<Shares>,
    home: PathBuf,
}

/// What all sandboxes of one server draw from.
struct Shares {
    programs: Programs,
    cgroups: Arc<dyn Cgroups>,
    ids: Ids,
    standing: Standing,
    volume: Volume,
    networks: Networks,
    /// What was tried when the backend was opened.
    facts: Facts,
    /// How many sandboxes have something on this host: running, starting or being removed.
    alive: watch::Sender<usize>,
}

impl ContainerBackend {
    /// Opens the backend below a server's home, and removes what an earlier server left there. Needs to be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] when this host lacks something that the wall needs.
    pub fn open(
        home: &Path,
        programs: Programs,
        disk: &DiskStore,
        network: Wish,
    ) -> Result<ContainerBackend, OpenError> {
        let failed = |step| move |source| OpenError { step, source };
        // Directories of two servers must not meet in the shared cgroup hierarchies.
        let status = fs_err::metadata(home).map_err(failed("read the home directory"))?;
        let key = format!("{:x}-{:x}", status.dev(), status.ino());
        let (standing, facts) = rights::find(&programs.jail, home);
        let rights = standing.rights.clone();
        let remover = Remover { jail: programs.jail.clone(), rights: rights.clone() };
        let shares = Shares {
            facts,
            standing,
            programs,
            cgroups: cgroup::open(&key).map_err(failed("open the cgroups"))?,
            ids: Ids::open(&rights).map_err(failed("open the id blocks"))?,
            volume: Volume::open(home, disk, remover).map_err(failed("open the writable layers"))?,
            networks: Networks::open(&short(&key), network).map_err(failed("open the network"))?,
            alive: watch::Sender::new(0),
        };
        shares.remove_leftovers().map_err(failed("remove what an earlier server left"))?;
        for Protection { name, why, mend, .. } in shares.limits().filter(|limit| !limit.on) {
            tracing::warn!(limit = name.text(), why, mend, "this host does not hold a limit");
        }
        Ok(ContainerBackend { shares: Arc::new(shares), home: home.to_owned() })
    }

    /// Says of each limit of a cgroup whether this host holds it.
    pub fn limits(&self) -> &[Protection] {
        self.shares.cgroups.protections()
    }
}

impl Backend for ContainerBackend {
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, StartError>> {
        let alive = Alive::count(&self.shares);
        let (sender, receiver) = oneshot::channel();
        // In a task of its own, so that a caller who gives up leaves nothing half made.
        tokio::spawn(async move {
            let result = launch::launch(alive, spec).await;
            if let Err(Ok(unwanted)) = sender.send(result)
                && let Err(error) = unwanted.stop().await
            {
                tracing::error!(%error, "a start that was given up left something behind");
            }
        });
        Box::pin(async move {
            let result = receiver.await.unwrap_or_else(|_| {
                Err(StartError::Walls { step: "the start was cut off".to_owned(), source: None })
            })?;
            Ok(result as Arc<dyn Sandbox>)
        })
    }

    fn network(&self) -> Protection {
        self.shares.networks.protection()
    }

    fn disk_mib_max(&self) -> Option<u32> {
        self.shares.volume.disk_mib_max()
    }

    fn try_walls(&self) -> BoxFuture<'_, Isolation> {
        Box::pin(trial::try_walls(self, &self.home))
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        let mut alive = self.shares.alive.subscribe();
        Box::pin(async move {
            // The sender lives as long as `self`, so this only ends with the count.
            let _ = alive.wait_for(|count| *count == 0).await;
            if let Err(error) = self.shares.cgroups.remove_own() {
                tracing::warn!(%error, "cannot remove the server's cgroups");
            }
            let shares = Arc::clone(&self.shares);
            if launch::blocking(move || shares.networks.close()).await.is_err() {
                tracing::warn!("cannot remove the server's network");
            }
        })
    }
}

/// Makes eight hexadecimal digits of a server's key: names of interfaces are short.
fn short(key: &str) -> String {
    let hash =
        key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

impl Shares {
    /// Whether the processes of a sandbox are counted in its user namespace. Only an ordinary user's can be: those of
    /// root are held to no limit. It is for want of a cgroup.
    fn counts_processes(&self) -> bool {
        let by_group = |one: &&Protection| one.name == ProtectionName::PidsLimit && one.on;
        self.standing.rights != Rights::Root && self.cgroups.protections().iter().find(by_group).is_none()
    }

    /// What is known of limits before there is a sandbox, without that of which it must be read.
    fn limits(&self) -> impl Iterator<Item = &Protection> {
        let counts = self.counts_processes();
        self.cgroups
            .protections()
            .iter()
            .filter(move |limit| !(counts && limit.name == ProtectionName::PidsLimit))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        let mut left = self.cgroups.list()?;
        left.extend(self.volume.list()?);
        left.sort();
        left.dedup();
        for id in left {
            tracing::info!(sandbox = %id, "removing what an earlier server left");
            self.remove_leftover(&id)?;
        }
        Ok(())
    }

    fn remove_leftover(&self, id: &SandboxId) -> io::Result<()> {
        leftover::end(&self.volume.process_file(id))?;
        for _ in 1..LEFTOVER_TRIES {
            self.cgroups.kill(id)?;
            match self.cgroups.remove(id) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.cgroups.remove(id)?;
        self.volume.remove(id)
    }

    /// Removes the groups and layers of a sandbox in which nothing runs any more.
    fn remove(&self, id: &SandboxId) -> io::Result<()> {
        let groups = self.cgroups.remove(id);
        self.volume.remove(id).and(groups)
    }
}

/// One sandbox in the count of those that have something on this host.
struct Alive {
    shares: Arc<Shares>,
}

impl Alive {
    fn count(shares: &Arc<Shares>) -> Alive {
        shares.alive.send_modify(|count| *count += 1);
        Alive { shares: Arc::clone(shares) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shares.alive.send_modify(|count| *count -= 1);
    }
}
