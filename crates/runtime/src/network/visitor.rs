// SPDX-License-Identifier: Apache-2.0
//! A thread that works inside network namespaces, so that no other thread of the server ever does.
//!
//! A socket belongs for good to the namespace in which it was made: whoever needs one has it made here. The thread
//! enters a namespace for each job anew and never counts on the one it is in. After the job it leaves: a namespace, with
//! its interfaces, lives as long as a thread is in it, and nobody would need that of the sandbox that ended last.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use protocol::limits::NETWORK_VISITS_MAX;
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use tokio::sync::oneshot;

/// Where a job is done.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The namespace behind this descriptor.
    Namespace(Arc<OwnedFd>),
    /// That of the process behind this pidfd.
    Process(Arc<OwnedFd>),
}

/// The way to the thread: a cheap handle. The thread ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    jobs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Visitor {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Visitor> {
        let (jobs, receiver) = sync_channel(NETWORK_VISITS_MAX);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let home = Place::Namespace(Arc::new(open("/proc/thread-self/ns/net", flags, Mode::empty())?));
        thread::Builder::new().name("netns".to_owned()).spawn(move || work(&receiver, &home))?;
        Ok(Visitor { jobs })
    }

    /// Has a job done and waits for it.
    pub(crate) async fn visit<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.give(move || drop(sender.send(enter(&place).and_then(|()| job()))))?;
        receiver.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Has a job done and blocks until then.
    pub(crate) fn visit_blocking<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.wait(move || enter(&place).and_then(|()| job()))
    }

    /// Makes a network namespace, which lives as long as the descriptor or something in it. Blocks.
    pub(crate) fn make_namespace(&self) -> io::Result<Arc<OwnedFd>> {
        self.wait(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(Arc::new(open("/proc/thread-self/ns/net", flags, Mode::empty())?))
        })
    }

    fn wait<T: Send + 'static>(&self, job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = sync_channel(1);
        self.give(move || drop(sender.send(job())))?;
        receiver.recv().unwrap_or_else(|_| Err(lost()))
    }

    fn give(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => {
                io::Error::new(io::ErrorKind::ResourceBusy, "too much waits for the thread of networks")
            }
            TrySendError::Disconnected(_) => lost(),
        })
    }
}

fn work(jobs: &Receiver<Job>, home: &Place) {
    while let Ok(job) = jobs.recv() {
        job();
        if let Err(error) = enter(home) {
            tracing::warn!(%error, "the thread of networks stays in the network namespace of its last job");
        }
    }
}

fn enter(place: &Place) -> io::Result<()> {
    match place {
        Place::Namespace(namespace) => {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Place::Process(process) => {
            move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::NETWORK)?;
        }
    }
    Ok(())
}

fn lost() -> io::Error {
    io::Error::other("the thread of networks is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_panics_is_an_error_for_its_caller_and_for_those_after_it() {
        let visitor = Visitor::start().unwrap();
        let here =
            || Place::Namespace(Arc::new(OwnedFd::from(std::fs::File::open("/proc/self/ns/net").unwrap())));
        let wait = |job: fn() -> io::Result<u8>| visitor.wait(job);
        assert_eq!(wait(|| Ok(1)).unwrap(), 1);
        assert!(wait(|| panic!("on purpose")).is_err());
        assert!(visitor.visit_blocking(here(), || Ok(())).is_err());
    }

    #[test]
    fn the_thread_stays_in_no_namespace_that_it_visits() {
        let visitor = Visitor::start().unwrap();
        let network = || fs_err::read_link("/proc/thread-self/ns/net");
        // Only root can make one; anybody can stay at home.
        let _ = visitor.make_namespace();
        assert_eq!(visitor.wait(network).unwrap(), network().unwrap());
    }
}
