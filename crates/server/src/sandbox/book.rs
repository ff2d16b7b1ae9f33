// SPDX-License-Identifier: Apache-2.0
//! What the registry has written down: for each name, the life it has now or had last.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use protocol::calls::Target;
use protocol::limits::ENDED_NAMES_MAX;
use tokio::sync::{mpsc, watch};

use super::admission::Phase;
use super::live::Live;
use super::registry::Wanted;
use super::state::{Ending, State};

#[derive(Default)]
pub(super) struct Book {
    pub(super) entries: HashMap<Target, Entry>,
    /// Names that only remember how they ended, by the number of their life: the oldest go first.
    pub(super) ended: BTreeMap<u64, Target>,
    pub(super) lives: u64,
    pub(super) closed: bool,
}

/// The life that a name has now, or had last.
pub(super) struct Entry {
    pub(super) life: u64,
    pub(super) states: watch::Receiver<State>,
    /// The ways to its driver, while there is one.
    pub(super) driver: Option<ToDriver>,
    pub(super) wanted: Arc<Wanted>,
    /// How the life before ended, if there was one.
    pub(super) before: Option<Ending>,
}

/// The ways to a driver.
pub(super) struct ToDriver {
    /// Somebody wants the sandbox stopped.
    pub(super) stop: mpsc::Sender<()>,
    /// Held by everybody who waits for the start.
    pub(super) tickets: mpsc::WeakSender<Infallible>,
}

impl Book {
    /// Returns the phase of a name, and its entry if it has one.
    pub(super) fn look(&self, target: &Target) -> (Phase, Option<&Entry>) {
        let Some(entry) = self.entries.get(target) else { return (Phase::Unknown, None) };
        let phase = match &*entry.states.borrow() {
            State::Starting => Phase::Starting,
            State::Running(_) => Phase::Running,
            State::Stopping => Phase::Stopping,
            State::Ended(ending) if ending.had_run() || entry.before.is_some() => Phase::Ended,
            State::Ended(_) => Phase::Unknown,
        };
        (phase, Some(entry))
    }

    /// Gives a name its next life.
    pub(super) fn insert(&mut self, target: &Target, make: impl FnOnce(u64, Option<Ending>) -> Entry) -> u64 {
        self.lives += 1;
        let life = self.lives;
        let before = self.entries.remove(target).and_then(|entry| {
            self.ended.remove(&entry.life);
            entry.known_ending()
        });
        self.entries.insert(target.clone(), make(life, before));
        life
    }

    /// Remembers how a life ended, or forgets the name if it never ran.
    pub(super) fn settle(&mut self, target: &Target, life: u64) {
        let Some(entry) = self.entries.get_mut(target).filter(|entry| entry.life == life) else { return };
        if entry.known_ending().is_none() {
            self.entries.remove(target);
            return;
        }
        entry.keep_memory_alone();
        self.ended.insert(life, target.clone());
        if self.ended.len() > ENDED_NAMES_MAX
            && let Some((_, oldest)) = self.ended.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl Entry {
    /// Tells the driver to stop the sandbox; one that was told already, or is gone, need not hear it.
    pub(super) fn tell_to_stop(&self) {
        if let Some(driver) = &self.driver {
            let _ = driver.stop.try_send(());
        }
    }

    /// Joins those who wait for the start; `None` when it is being given up.
    pub(super) fn ticket(&self) -> Option<mpsc::Sender<Infallible>> {
        self.driver.as_ref()?.tickets.upgrade()
    }

    /// Lets go of all that an ended sandbox does not need, its hold on the image above all.
    fn keep_memory_alone(&mut self) {
        self.driver = None;
        self.wanted = Arc::new(self.wanted.remembered());
    }

    pub(super) fn live(&self) -> Option<Arc<Live>> {
        match &*self.states.borrow() {
            State::Running(live) => Some(Arc::clone(live)),
            State::Starting | State::Stopping | State::Ended(_) => None,
        }
    }

    /// Returns how the last life that had run ended; `None` when none did, or one goes on.
    pub(super) fn known_ending(&self) -> Option<Ending> {
        match &*self.states.borrow() {
            State::Ended(ending) => Some(self.told_ending(ending)).filter(|ending| ending.had_run()),
            State::Starting | State::Running(_) | State::Stopping => None,
        }
    }

    pub(super) fn told_ending(&self, ending: &Ending) -> Ending {
        if ending.had_run() { ending.clone() } else { self.before.clone().unwrap_or_else(|| ending.clone()) }
    }
}
