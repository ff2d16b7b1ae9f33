// SPDX-License-Identifier: Apache-2.0
//! Which sandbox has which name, and who drives it.
//!
//! The registry reads states and never writes one: it begins drivers, tells them to stop, and waits for what they publish.
//! Its lock is held for short sections only, never across a wait.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::store::Lease;
use protocol::agent::Language;
use protocol::calls::{ImageSource, Target};
use protocol::isolation::Protection;
use protocol::limits::STOP_WAIT;
use protocol::network::{Network, PublishedPort};
use runtime::{Backend, HostVolume, Rootfs, SandboxId, SandboxSpec};
use tokio::sync::{Semaphore, mpsc, watch};

use super::admission::{OnCall, OnStart, OnStop, Phase, on_call, on_start, on_stop};
use super::book::{Book, Entry, ToDriver};
use super::driver::Driver;
use super::live::Live;
use super::running::Running;
use super::state::{Ending, Failure, State};

/// All sandboxes of a server: a cheap handle.
#[derive(Clone)]
pub(crate) struct Registry {
    backend: Arc<dyn Backend>,
    capacity: Arc<Semaphore>,
    capacity_max: usize,
    book: Arc<Mutex<Book>>,
}

/// What a sandbox shall be, checked and with its image found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) image: String,
    /// Where it was found.
    pub(crate) from: String,
    /// Where it was found, in one word.
    pub(crate) image_source: ImageSource,
    /// Its reference and digest in the store, when it was found there.
    pub(crate) image_reference: Option<String>,
    /// Keeps it in the store.
    pub(crate) lease: Leased,
    pub(crate) rootfs: Rootfs,
    pub(crate) memory_mib: u32,
    pub(crate) cpu_millis: u32,
    pub(crate) pids_max: u32,
    pub(crate) open_files_max: u32,
    pub(crate) io_weight: u32,
    pub(crate) shm_mib: u32,
    pub(crate) disk_mib: u32,
    pub(crate) volumes: Vec<HostVolume>,
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) prestart: Option<Language>,
    pub(crate) network: Network,
    pub(crate) ports: Vec<PublishedPort>,
}

/// Keeps an image in the store as long as a sandbox may need it; what it keeps is no part of a wish.
#[derive(Clone, Debug)]
pub(crate) struct Leased(
    #[expect(dead_code, reason = "it is held, and looked at by nobody")] pub(crate) Option<Arc<Lease>>,
);

impl PartialEq for Leased {
    fn eq(&self, _: &Leased) -> bool {
        true
    }
}

impl Eq for Leased {}

/// A start that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// Whether this start had nothing to do, or shared another's.
    pub(crate) by_another: bool,
    /// What the sandbox has otherwise than this start asked for.
    pub(crate) differs: Vec<&'static str>,
}

/// Why a start did not succeed.
#[derive(Debug)]
pub(crate) enum StartRefused {
    /// There is nothing to start from: no configuration was sent.
    NothingWanted,
    /// As many sandboxes run as may.
    Full,
    /// The server is ending.
    Closing,
    /// It failed.
    Failed(Failure),
    /// It was stopped, or died, before anybody could use it.
    Ended(Ending),
}

/// Why a stop did not succeed.
#[derive(Debug)]
pub(crate) enum StopRefused {
    /// No sandbox of that name was ever started.
    Unknown,
    /// Something of it is still there.
    NotWholly(String),
}

/// Why a sandbox cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// No sandbox of that name was ever started.
    Unknown,
    /// It is not running; how come, as the end of "the sandbox ...".
    NotRunning(String),
}

/// A sandbox in a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) target: Target,
    pub(crate) live: Option<Arc<Live>>,
}

/// A sandbox that is known, whether it runs or not.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) live: Option<Arc<Live>>,
}

enum Admitted {
    Already(Started),
    Wait { states: watch::Receiver<State>, ticket: mpsc::Sender<Infallible>, started: Started },
    AwaitEnd(watch::Receiver<State>),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("names", &self.book().entries.len()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Makes an empty one that runs at most `sandboxes_max` at once.
    pub(crate) fn new(backend: Arc<dyn Backend>, sandboxes_max: usize) -> Registry {
        let capacity = Arc::new(Semaphore::new(sandboxes_max));
        Registry { backend, capacity, capacity_max: sandboxes_max, book: Arc::default() }
    }

    /// Sees to it that a sandbox runs, and waits for that.
    ///
    /// Dropping the future gives up this wish; a start that nobody waits for any more is undone.
    pub(crate) async fn start(
        &self,
        target: &Target,
        wanted: Option<&Arc<Wanted>>,
    ) -> Result<Started, StartRefused> {
        loop {
            match self.admit_start(target, wanted)? {
                Admitted::Already(started) => return Ok(started),
                Admitted::AwaitEnd(states) => drop(until_ended(states).await),
                Admitted::Wait { states, ticket, started } => {
                    let ending = until_started(states).await;
                    drop(ticket);
                    match ending {
                        None => return Ok(started),
                        Some(Ending::Abandoned) => {}
                        Some(Ending::NotStarted(failure)) => return Err(StartRefused::Failed(failure)),
                        Some(ending) => return Err(StartRefused::Ended(ending)),
                    }
                }
            }
        }
    }

    fn admit_start(&self, target: &Target, wanted: Option<&Arc<Wanted>>) -> Result<Admitted, StartRefused> {
        let mut book = self.book();
        if book.closed {
            return Err(StartRefused::Closing);
        }
        let (phase, entry) = book.look(target);
        let differs = |entry: &Entry| wanted.map(|wanted| wanted.differs(&entry.wanted)).unwrap_or_default();
        match (on_start(phase), entry) {
            (OnStart::AlreadyRunning, Some(entry)) => {
                Ok(Admitted::Already(Started { by_another: true, differs: differs(entry) }))
            }
            (OnStart::Join, Some(entry)) => match entry.ticket() {
                Some(ticket) => {
                    let started = Started { by_another: true, differs: differs(entry) };
                    Ok(Admitted::Wait { states: entry.states.clone(), ticket, started })
                }
                // Its last waiter left a moment ago, and it is being given up.
                None => Ok(Admitted::AwaitEnd(entry.states.clone())),
            },
            (OnStart::AwaitEnd, Some(entry)) => Ok(Admitted::AwaitEnd(entry.states.clone())),
            (OnStart::Begin | OnStart::AlreadyRunning | OnStart::Join | OnStart::AwaitEnd, _) => {
                let wanted = wanted.ok_or(StartRefused::NothingWanted)?;
                self.begin(&mut book, target, wanted)
            }
        }
    }

    fn begin(
        &self,
        book: &mut Book,
        target: &Target,
        wanted: &Arc<Wanted>,
    ) -> Result<Admitted, StartRefused> {
        let permit = Arc::clone(&self.capacity).try_acquire_owned().map_err(|_| StartRefused::Full)?;
        let id = SandboxId::random().map_err(|error| {
            let detail = error.to_string();
            StartRefused::Failed(Failure::Broken {
                what: "the kernel gives no random number".to_owned(),
                detail,
            })
        })?;
        let spec = wanted.spec(id, target.sandbox.as_str());
        let (sender, states) = watch::channel(State::Starting);
        let (stop, stops) = mpsc::channel(1);
        let (ticket, tickets) = mpsc::channel(1);
        let life = book.insert(target, |life, before| Entry {
            life,
            states: states.clone(),
            driver: Some(ToDriver { stop, tickets: ticket.downgrade() }),
            wanted: Arc::clone(wanted),
            before,
        });
        let backend = Arc::clone(&self.backend);
        let driver = Driver { backend, states: sender, stop: stops, tickets, permit };
        let (registry, name) = (self.clone(), target.clone());
        tokio::spawn(async move {
            driver.drive(spec).await;
            registry.book().settle(&name, life);
        });
        let started = Started { by_another: false, differs: Vec::new() };
        Ok(Admitted::Wait { states, ticket, started })
    }

    /// Sees to it that a sandbox does not run, and waits until all of it is gone.
    pub(crate) async fn stop(&self, target: &Target) -> Result<(), StopRefused> {
        let (life, states) = {
            let book = self.book();
            let (phase, entry) = book.look(target);
            match (on_stop(phase), entry) {
                (OnStop::Unknown, _) | (_, None) => return Err(StopRefused::Unknown),
                (OnStop::AlreadyEnded, Some(_)) => return Ok(()),
                (OnStop::Tell, Some(entry)) => {
                    entry.tell_to_stop();
                    (entry.life, entry.states.clone())
                }
                (OnStop::AwaitEnd, Some(entry)) => (entry.life, entry.states.clone()),
            }
        };
        let ending = until_ended(states).await;
        // Its driver is about to do the same; whoever waited finds the image free.
        self.book().settle(target, life);
        match ending {
            Ending::NotWholly { left } => Err(StopRefused::NotWholly(left)),
            Ending::Stopped | Ending::Died { .. } | Ending::NotStarted(_) | Ending::Abandoned => Ok(()),
        }
    }

    /// Says what is known of whether policies about the network are enforced.
    pub(crate) fn network(&self) -> Protection {
        self.backend.network()
    }

    /// Finds a running sandbox for a call.
    pub(crate) fn running(&self, target: &Target) -> Result<Running, Unusable> {
        let book = self.book();
        let (phase, entry) = book.look(target);
        match (on_call(phase), entry) {
            (OnCall::Unknown, _) | (_, None) => Err(Unusable::Unknown),
            (OnCall::Serve | OnCall::NotRunning, Some(entry)) => match &*entry.states.borrow() {
                State::Running(live) => Ok(Running { live: Arc::clone(live), states: entry.states.clone() }),
                State::Starting => Err(Unusable::NotRunning("is still starting".to_owned())),
                State::Stopping => Err(Unusable::NotRunning("is being stopped".to_owned())),
                State::Ended(ending) => Err(Unusable::NotRunning(entry.told_ending(ending).describe())),
            },
        }
    }

    /// Looks at one name, whether it runs or not; `None` when it is unknown.
    pub(crate) fn find(&self, target: &Target) -> Option<Listed> {
        let book = self.book();
        let (phase, entry) = book.look(target);
        let entry = entry.filter(|_| phase != Phase::Unknown)?;
        Some(Listed { target: target.clone(), live: entry.live() })
    }

    /// Looks up what a sandbox was started as; `None` when it is unknown.
    pub(crate) fn known(&self, target: &Target) -> Option<Known> {
        let book = self.book();
        let (phase, entry) = book.look(target);
        let entry = entry.filter(|_| phase != Phase::Unknown)?;
        Some(Known { wanted: Arc::clone(&entry.wanted), live: entry.live() })
    }

    /// Lists the sandboxes that run and fulfil a condition, by name.
    pub(crate) fn list(&self, condition: impl Fn(&Target) -> bool) -> Vec<Listed> {
        let book = self.book();
        let chosen = book.entries.iter().filter(|(target, _)| condition(target));
        let running = chosen.filter_map(|(target, entry)| {
            entry.live().map(|live| Listed { target: target.clone(), live: Some(live) })
        });
        let mut list: Vec<Listed> = running.collect();
        list.sort_by(|a, b| a.target.cmp(&b.target));
        list
    }

    /// Returns every sandbox of that name, running or not, in any namespace.
    pub(crate) fn find_everywhere(&self, condition: impl Fn(&Target) -> bool) -> Vec<Listed> {
        let targets: Vec<Target> = self.book().entries.keys().filter(|t| condition(t)).cloned().collect();
        let mut list: Vec<Listed> = targets.iter().filter_map(|target| self.find(target)).collect();
        list.sort_by(|a, b| a.target.cmp(&b.target));
        list
    }

    /// Returns the most that a sandbox can be allowed to write, in MiB; `None` where that cannot be limited.
    pub(crate) fn disk_mib_max(&self) -> Option<u32> {
        self.backend.disk_mib_max()
    }

    /// Lets nothing start any more, stops everything, and waits until all of it is gone.
    pub(crate) async fn close(&self) {
        let waits: Vec<watch::Receiver<State>> = {
            let mut book = self.book();
            book.closed = true;
            let tell = |entry: &Entry| {
                entry.tell_to_stop();
                entry.states.clone()
            };
            book.entries.values().map(tell).collect()
        };
        for states in waits {
            if let Ending::NotWholly { left } = until_ended(states).await {
                tracing::error!(left, "a sandbox could not be removed wholly");
            }
        }
        // Those that died by themselves are published as ended before all of them is gone.
        let all = u32::try_from(self.capacity_max).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(STOP_WAIT, self.capacity.acquire_many(all)).await;
        if tokio::time::timeout(STOP_WAIT, self.backend.drain()).await.is_err() {
            tracing::error!("something of ended sandboxes is still there");
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn spec(&self, id: SandboxId, hostname: &str) -> SandboxSpec {
        SandboxSpec {
            id,
            hostname: hostname.to_owned(),
            rootfs: self.rootfs.clone(),
            memory_mib: self.memory_mib,
            cpu_millis: self.cpu_millis,
            pids_max: self.pids_max,
            open_files_max: self.open_files_max,
            io_weight: self.io_weight,
            shm_mib: self.shm_mib,
            disk_mib: self.disk_mib,
            volumes: self.volumes.clone(),
            envs: self.envs.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            prestart: self.prestart,
            network: self.network.clone(),
            ports: self.ports.clone(),
        }
    }

    /// What is told of a sandbox that has ended: without the image's lease and all that only a start needs.
    pub(super) fn remembered(&self) -> Wanted {
        Wanted {
            lease: Leased(None),
            rootfs: Rootfs { mounts: Vec::new() },
            volumes: Vec::new(),
            envs: Vec::new(),
            workdir: None,
            user: None,
            network: Network::None,
            ports: Vec::new(),
            ..self.clone()
        }
    }

    /// Names the parts in which two wishes differ.
    fn differs(&self, other: &Wanted) -> Vec<&'static str> {
        let parts = [
            ("image", self.image != other.image),
            ("memory", self.memory_mib != other.memory_mib),
            ("cpus", self.cpu_millis != other.cpu_millis),
            ("pids", self.pids_max != other.pids_max),
            ("open_files", self.open_files_max != other.open_files_max),
            ("io_weight", self.io_weight != other.io_weight),
            ("shm", self.shm_mib != other.shm_mib),
            ("disk", self.disk_mib != other.disk_mib),
            ("volumes", self.volumes != other.volumes),
            ("envs", self.envs != other.envs),
            ("workdir", self.workdir != other.workdir),
            ("network", self.network != other.network),
            ("ports", self.ports != other.ports),
        ];
        parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
    }
}

/// Waits until a start is over; how it ended, unless it runs or ran.
async fn until_started(mut states: watch::Receiver<State>) -> Option<Ending> {
    match states.wait_for(|state| !matches!(state, State::Starting)).await.as_deref() {
        Ok(State::Running(_) | State::Stopping) => None,
        Ok(State::Ended(ending)) => Some(ending.clone()),
        Ok(State::Starting) | Err(_) => Some(driver_lost()),
    }
}

/// Waits until a sandbox is over.
async fn until_ended(mut states: watch::Receiver<State>) -> Ending {
    match states.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
        Ok(State::Ended(ending)) => ending.clone(),
        Ok(State::Starting | State::Running(_) | State::Stopping) | Err(_) => driver_lost(),
    }
}

fn driver_lost() -> Ending {
    Ending::Died { reason: "the server lost track of it".to_owned() }
}
