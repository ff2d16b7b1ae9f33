// SPDX-License-Identifier: Apache-2.0
//! Which connections are open, and which of them goes first when there are too many.
//!
//! A connection *waits* while it is the client's turn: to send a request, to send the rest of one, to take an answer. A
//! connection with a call under way is never cut. When all room is taken, one that waits is cut: first those that never
//! had a request served, so that a flood of them cuts itself; among equals the one that waits longest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The open connections of one server.
#[derive(Debug)]
pub(crate) struct Connections {
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    one_more: Notify,
}

/// Those that wait, in the order in which they are cut.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    cuts: BTreeMap<Place, Arc<Notify>>,
}

/// Whether a request was served before, and since when it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    known: bool,
    turn: u64,
}

/// One open connection, as its own task holds it.
#[derive(Debug)]
pub(crate) struct Connection {
    presence: Presence,
    _permit: OwnedSemaphorePermit,
}

/// One open connection, as its requests see it.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    shared: Arc<Shared>,
    cut: Arc<Notify>,
    turn: Arc<Mutex<Turn>>,
}

/// Whose turn it is on one connection.
#[derive(Debug, Default)]
enum Turn {
    /// Ours: a call is under way.
    #[default]
    Ours,
    /// The client's.
    Client(Place),
    /// Nobody's: it is closed.
    Over,
}

/// Says, as long as it is held, that a call is under way.
#[derive(Debug)]
pub(crate) struct Busy(Presence);

impl Connections {
    pub(crate) fn new(max: usize) -> Connections {
        Connections { room: Arc::new(Semaphore::new(max)), shared: Arc::default() }
    }

    /// Makes room for one more, by cutting another if there is no other way.
    pub(crate) async fn admit(&self) -> Connection {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.take_room().await,
        };
        let presence =
            Presence { shared: Arc::clone(&self.shared), cut: Arc::default(), turn: Arc::default() };
        presence.wait_again(false);
        Connection { presence, _permit: permit }
    }

    async fn take_room(&self) -> OwnedSemaphorePermit {
        let cut_one = async {
            while !self.shared.cut_first() {
                self.shared.one_more.notified().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            permit = Arc::clone(&self.room).acquire_owned() => permit.expect("this semaphore is never closed"),
            () = cut_one => unreachable!("it never ends"),
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut_first(&self) -> bool {
        let Some((_, cut)) = self.waiting().cuts.pop_first() else { return false };
        cut.notify_one();
        true
    }
}

impl Connection {
    pub(crate) fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// Is done when the connection has to go, for another needs its room.
    pub(crate) async fn cut(&self) {
        self.presence.cut.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.presence.leave(Turn::Over);
    }
}

impl Presence {
    /// Says that a request has arrived whole and is being served; `None` when the connection was just chosen to go.
    pub(crate) fn busy(&self) -> Option<Busy> {
        self.leave(Turn::Ours).then(|| Busy(self.clone()))
    }

    /// Leaves the line; says whether it still had its place there, if it waited.
    fn leave(&self, turn: Turn) -> bool {
        match std::mem::replace(&mut *self.turn(), turn) {
            Turn::Client(place) => self.shared.waiting().cuts.remove(&place).is_some(),
            Turn::Ours => true,
            Turn::Over => false,
        }
    }

    fn wait_again(&self, known: bool) {
        let mut turn = self.turn();
        if !matches!(*turn, Turn::Ours) {
            return;
        }
        let mut waiting = self.shared.waiting();
        let place = Place { known, turn: waiting.next };
        waiting.next += 1;
        waiting.cuts.insert(place, Arc::clone(&self.cut));
        *turn = Turn::Client(place);
        self.shared.one_more.notify_one();
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait_again(true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_cut(connection: &Connection) -> bool {
        tokio::time::timeout(Duration::from_millis(1), connection.cut()).await.is_ok()
    }

    async fn admit_in_place_of(connections: &Connections, all: &mut Vec<Connection>) -> Option<usize> {
        let mut admitted = Box::pin(connections.admit());
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut admitted).await.is_err());
        let mut found = None;
        for (index, connection) in all.iter().enumerate() {
            if is_cut(connection).await {
                found = Some(index);
            }
        }
        all.remove(found?);
        all.push(admitted.await);
        found
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_go_before_those_that_were_served_and_busy_ones_stay() {
        let connections = Connections::new(4);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(connections.admit().await);
        }
        drop(all[0].presence().busy().unwrap());
        let busy = all[1].presence().busy().unwrap();
        assert_eq!(admit_in_place_of(&connections, &mut all).await, Some(2), "the older of two strangers");
        assert_eq!(admit_in_place_of(&connections, &mut all).await, Some(2), "the other one");
        for connection in &all[2..] {
            drop(connection.presence().busy().unwrap());
        }
        assert_eq!(admit_in_place_of(&connections, &mut all).await, Some(0), "the one that waits longest");
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_busy_the_first_that_waits_again_goes() {
        let connections = Connections::new(2);
        let all = [connections.admit().await, connections.admit().await];
        let busy = [all[0].presence().busy().unwrap(), all[1].presence().busy().unwrap()];
        let mut admitted = Box::pin(connections.admit());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut admitted).await.is_err());
        let [first, second] = busy;
        drop(second);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut admitted).await.is_err());
        assert!(is_cut(&all[1]).await && !is_cut(&all[0]).await);
        drop((all, first));
        admitted.await;
    }

    #[tokio::test]
    async fn one_that_is_gone_is_forgotten() {
        let connections = Connections::new(1);
        for _ in 0..3 {
            let connection = connections.admit().await;
            let outlives_it = connection.presence().busy().unwrap();
            drop(connection);
            drop(outlives_it);
        }
        assert!(connections.shared.waiting().cuts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_chosen_to_go_begins_nothing() {
        let connections = Connections::new(1);
        let chosen = connections.admit().await;
        let mut admitted = Box::pin(connections.admit());
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut admitted).await.is_err());
        assert!(chosen.presence().busy().is_none());
        drop(chosen);
        admitted.await;
    }
}
