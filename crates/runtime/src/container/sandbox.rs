// SPDX-License-Identifier: Apache-2.0
//! A sandbox that runs: its first process is held by a pidfd, and one task waits for its end and cleans up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::isolation::{Isolation, Protection, ProtectionName};
use protocol::limits::{GREETING_WAIT, STOP_WAIT};
use protocol::network::Network;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::Shares;
use super::isolation::{self, Seen};
use super::launch::{SOCKET, Share, blocking, walls};
use crate::agent::{ConnectError, Connection};
use crate::backend::{BoxFuture, Ended, Sandbox, StartError, StopError, Usage};
use crate::network::{Attached, BoundPorts, NetworkUse, Ports};
use crate::spec::SandboxId;

/// A sandbox behind the container wall.
pub(super) struct ContainerSandbox {
    id: SandboxId,
    shares: Arc<Shares>,
    process: Arc<OwnedFd>,
    /// The directory of the agent's socket: a path beneath a descriptor fits a socket address, however long it is.
    directory: OwnedFd,
    secret: String,
    /// The host's id of root inside; the agent's socket listens under it.
    owner: u32,
    /// Whether somebody asked for the end.
    asked: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Ended>>,
    /// What could not be removed.
    left: Arc<Mutex<Option<String>>>,
    wires: Arc<Mutex<Wires>>,
}

/// What connects a sandbox with others, until it ends.
#[derive(Debug, Default)]
struct Wires {
    attached: Option<Attached>,
    ports: Ports,
    /// It has ended: nothing is connected any more.
    cut: bool,
}

impl ContainerSandbox {
    /// Takes over a process that has become an agent, and watches over it from now on.
    pub(super) fn watch(
        share: Share,
        process: OwnedFd,
        secret: String,
        socket: &Path,
    ) -> Result<Arc<ContainerSandbox>, StartError> {
        let parent = socket.parent().unwrap_or(Path::new("/"));
        let directory = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| walls("open the sandbox's directory")(error.into()))?;
        let (sender, ended) = watch::channel(None);
        let sandbox = Arc::new(ContainerSandbox {
            id: share.id.clone(),
            shares: Arc::clone(&share.alive.shares),
            process: Arc::new(process),
            directory,
            secret,
            owner: share.ids.owner.user,
            asked: Arc::default(),
            ended,
            left: Arc::default(),
            wires: Arc::default(),
        });
        let watcher = Watcher {
            share,
            wires: Arc::clone(&sandbox.wires),
            process: Arc::clone(&sandbox.process),
            asked: Arc::clone(&sandbox.asked),
            left: Arc::clone(&sandbox.left),
        };
        tokio::spawn(watcher.run(sender));
        Ok(sandbox)
    }

    /// Connects it with whom it may reach, and with its ports.
    pub(super) async fn attach(
        &self,
        id: SandboxId,
        network: Network,
        ports: BoundPorts,
    ) -> Result<(), StartError> {
        let attached = self.shares.networks.attach(id, network, Arc::clone(&self.process)).await?;
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if !wires.cut {
            wires.attached = attached;
            wires.ports = ports.open(&self.process);
        }
        Ok(())
    }

    /// Reads what the kernel says of the first process. A pid alone could be another process by the time it is read, so
    /// the process must still be there afterwards.
    fn seen(&self) -> io::Result<Seen> {
        let seen = Seen::read(pid_of(&self.process)?)?;
        pid_of(&self.process)?;
        Ok(seen)
    }

    async fn open_connection(&self) -> Result<Connection, ConnectError> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        let peer = stream.peer_cred()?.uid();
        if peer != self.owner {
            return Err(ConnectError::Refused(format!(
                "its socket belongs to user {peer}, not to the sandbox"
            )));
        }
        Connection::greet(stream, &self.secret, GREETING_WAIT).await
    }
}

impl Sandbox for ContainerSandbox {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>> {
        Box::pin(self.open_connection())
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let waited = ended.wait_for(Option::is_some).await;
            waited
                .ok()
                .and_then(|how| how.clone())
                .unwrap_or(Ended::Died { reason: "nobody watched".to_owned() })
        })
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        self.asked.store(true, Ordering::Release);
        // No such process is as good: it is on its way already.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        Box::pin(async move {
            if tokio::time::timeout(STOP_WAIT, self.ended()).await.is_err() {
                return Err(StopError { left: format!("its processes did not end within {STOP_WAIT:?}") });
            }
            match self.left.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                None => Ok(()),
                Some(left) => Err(StopError { left }),
            }
        })
    }

    fn usage(&self) -> io::Result<Usage> {
        self.shares.cgroups.usage(&self.id)
    }

    fn oom_kills(&self) -> io::Result<u64> {
        self.shares.cgroups.oom_kills(&self.id)
    }

    fn network(&self) -> io::Result<NetworkUse> {
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = wires.attached.as_ref().map(Attached::refused).transpose()?;
        Ok(NetworkUse { denied, ports: wires.ports.published() })
    }

    fn isolation(&self) -> Isolation {
        let mut said = isolation::of_the_jail(&self.shares.facts, &self.shares.standing);
        said.extend(self.shares.limits().cloned());
        said.extend(self.shares.volume.protections());
        match self.seen() {
            Ok(seen) => {
                let connected = self.wires.lock().unwrap_or_else(PoisonError::into_inner).attached.is_some();
                let network = self.shares.networks.protection();
                said.extend(seen.protections(&self.shares.standing, &network, connected));
                said.extend(self.shares.counts_processes().then(|| seen.processes_counted()));
            }
            Err(error) => {
                let why = format!("it cannot be read from the sandbox: {error}");
                said = ProtectionName::ALL.iter().map(|name| Protection::off(*name, why.clone())).collect();
            }
        }
        Isolation::gather(isolation::KIND, said)
    }

    fn disk_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        let (shares, id) = (Arc::clone(&self.shares), self.id.clone());
        Box::pin(async move { blocking(move || shares.volume.measure(&id)).await? })
    }
}

/// Returns the pid of a process that is held by a descriptor (`pidfd_open(2)`), unless it was reaped.
fn pid_of(process: &OwnedFd) -> io::Result<i32> {
    let text = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has ended"))
}

/// Waits for the end of a sandbox, whoever caused it, and removes what it had.
struct Watcher {
    share: Share,
    wires: Arc<Mutex<Wires>>,
    process: Arc<OwnedFd>,
    asked: Arc<AtomicBool>,
    left: Arc<Mutex<Option<String>>>,
}

impl Watcher {
    async fn run(self, sender: watch::Sender<Option<Ended>>) {
        let how = match wait_for_end(&self.process).await {
            Ok(how) => how,
            Err(error) => format!("its end could not be watched: {error}"),
        };
        let Watcher { share, asked, left, wires, .. } = self;
        let (id, shares) = (share.id.clone(), Arc::clone(&share.alive.shares));
        let cleanup = blocking(move || {
            *wires.lock().unwrap_or_else(PoisonError::into_inner) = Wires { cut: true, ..Wires::default() };
            let out_of_memory = shares.cgroups.oom_kills(&share.id).is_ok_and(|kills| kills > 0);
            (out_of_memory, shares.remove(&share.id), share)
        });
        let ended = match cleanup.await {
            Ok((out_of_memory, removed, share)) => {
                if let Err(error) = removed {
                    tracing::error!(sandbox = %id, %error, "cannot remove a sandbox wholly");
                    *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                }
                // The id block and the place in the count are free before anybody hears of the end.
                drop(share);
                let limit = if out_of_memory { "; its memory limit was reached" } else { "" };
                format!("{how}{limit}")
            }
            Err(error) => format!("{how}; its removal was cut off: {error}"),
        };
        let asked = asked.load(Ordering::Acquire);
        sender.send_replace(Some(if asked { Ended::Stopped } else { Ended::Died { reason: ended } }));
    }
}

/// Waits until the first process is dead, and with it, by the rules of pid namespaces, every other; reaps it.
async fn wait_for_end(process: &Arc<OwnedFd>) -> io::Result<String> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that lie about their descriptor; an OwnedFd does not"
    )]
    let readable = AsyncFd::new(process.try_clone()?)?;
    loop {
        let mut ready = readable.readable().await?;
        let waited = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        match waited {
            Some(status) => return Ok(describe(&status)),
            None => ready.clear_ready(),
        }
    }
}

fn describe(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("its agent exited with code {code}"),
        (None, Some(signal)) => format!("its agent was killed by signal {signal}"),
        (None, None) => "its agent ended".to_owned(),
    }
}
