// SPDX-License-Identifier: Apache-2.0
//! Writes down when keys were used, away from the requests that use them.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use protocol::limits::KEY_USES_WAITING_MAX;
use rusqlite::Connection;

use super::token::KeyId;
use super::{locked, store};

/// A thread that writes; dropping this waits until it has written what it was told.
#[derive(Debug)]
pub(super) struct Recorder {
    uses: Option<SyncSender<(KeyId, i64)>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(super) fn start(connection: Arc<Mutex<Connection>>) -> io::Result<Recorder> {
        let (uses, receiver) = sync_channel(KEY_USES_WAITING_MAX);
        let thread = std::thread::Builder::new().name("key uses".to_owned());
        let thread = thread.spawn(move || record(&connection, &receiver))?;
        Ok(Recorder { uses: Some(uses), thread: Some(thread) })
    }

    /// Tells that a key was used.
    pub(super) fn note(&self, id: KeyId, now: i64) {
        if let Some(uses) = &self.uses {
            // With a full queue, the next use of the key is noted instead.
            let _ = uses.try_send((id, now));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.uses.take();
        if let Some(thread) = self.thread.take() {
            // Its panic was told already, and nothing else depends on it.
            let _ = thread.join();
        }
    }
}

fn record(connection: &Mutex<Connection>, uses: &Receiver<(KeyId, i64)>) {
    for (key, now) in uses {
        if let Err(error) = store::note_use(&locked(connection), key, now) {
            tracing::warn!(%key, %error, "cannot note the use of a key");
        }
    }
}
