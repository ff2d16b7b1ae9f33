// SPDX-License-Identifier: Apache-2.0
//! The only one that waits for children: woken by SIGCHLD, it reaps whatever ended and tells who watches it.
//!
//! Children of the agent are supervisors, which are watched, and orphans of supervisors that somebody killed. Because
//! nothing else reaps, the number of a supervisor that is still watched cannot have been given to another process.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::limits::PIDS_MAX;
use sys::spawn::{Program, Spawned};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{Notify, watch};

/// How a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Nothing was left below it.
    Empty,
    /// Somebody killed it; what was below it is now below us.
    Killed,
}

/// The owner of all waiting.
pub(crate) struct Reaper {
    watched: Mutex<HashMap<i32, watch::Sender<Option<Gone>>>>,
    reaped: Notify,
}

/// A supervisor that this agent started.
pub(crate) struct Supervisor {
    pid: i32,
    gone: watch::Receiver<Option<Gone>>,
}

impl Reaper {
    /// Starts reaping in a task of its own.
    pub(crate) fn start() -> io::Result<Arc<Reaper>> {
        let children = unix::signal(SignalKind::child())?;
        let reaper = Arc::new(Reaper { watched: Mutex::default(), reaped: Notify::new() });
        tokio::spawn(Arc::clone(&reaper).run(children));
        Ok(reaper)
    }

    /// Starts a program below a supervisor that is watched from its first instant.
    pub(crate) fn spawn(
        &self,
        program: &Program,
        descriptors: &[(BorrowedFd<'_>, RawFd)],
    ) -> io::Result<(Supervisor, std::os::fd::OwnedFd)> {
        let mut watched = self.watched();
        if watched.len() >= PIDS_MAX as usize {
            return Err(io::Error::other(format!("{PIDS_MAX} process trees are alive")));
        }
        let Spawned { supervisor: pid, report } = sys::spawn::spawn(program, descriptors)?;
        let (sender, gone) = watch::channel(None);
        watched.insert(pid, sender);
        Ok((Supervisor { pid, gone }, report))
    }

    /// Tells whether a child of ours is a supervisor.
    pub(crate) fn watches(&self, pid: i32) -> bool {
        self.watched().contains_key(&pid)
    }

    /// Waits until the next child is reaped.
    pub(crate) async fn reaped(&self) {
        self.reaped.notified().await;
    }

    async fn run(self: Arc<Self>, mut children: unix::Signal) {
        while children.recv().await.is_some() {
            self.reap();
        }
    }

    fn reap(&self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, _)) => self.tell(pid, Gone::Empty),
                Ok(WaitStatus::Signaled(pid, _, _)) => self.tell(pid, Gone::Killed),
                // EINVAL: an orphan died of a real-time signal, for which nix has no name; it is reaped all the same.
                Err(Errno::EINTR | Errno::EINVAL) => {}
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn tell(&self, pid: Pid, how: Gone) {
        if let Some(watcher) = self.watched().remove(&pid.as_raw()) {
            watcher.send_replace(Some(how));
        }
        self.reaped.notify_waiters();
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<Option<Gone>>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// Returns its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells how it ended, if it has.
    pub(crate) fn how_gone(&self) -> Option<Gone> {
        *self.gone.borrow()
    }

    /// Waits until it has ended. Can be cancelled.
    pub(crate) async fn gone(&mut self) -> Gone {
        let gone = self.gone.wait_for(Option::is_some).await.ok().and_then(|how| *how);
        gone.unwrap_or(Gone::Killed)
    }

    /// Sends it a signal, if it still exists.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.how_gone().is_none() {
            // Not reaped, so the number is still its own; at worst it is a zombie, which does not mind.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}
