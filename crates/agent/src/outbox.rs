// SPDX-License-Identifier: Apache-2.0
//! The two things a call knows of its connection: where its output goes, and whether anybody still waits for it.

use protocol::agent::Channel;
use protocol::limits::AGENT_OUTBOX_CHUNKS_MAX;
use tokio::sync::{mpsc, watch};

/// Some output and where it came from.
pub(crate) type Chunk = (Channel, Vec<u8>);

/// Where a call puts its output. It is small: a server that does not read soon slows the call down.
#[derive(Clone)]
pub(crate) struct Outbox {
    chunks: mpsc::Sender<Chunk>,
}

/// Becomes true when the server has left.
#[derive(Clone)]
pub(crate) struct Gone {
    left: watch::Receiver<bool>,
}

/// The connection's ends.
pub(crate) struct Ends {
    pub(crate) chunks: mpsc::Receiver<Chunk>,
    pub(crate) left: watch::Sender<bool>,
}

/// Makes the ends of a call and of its connection.
pub(crate) fn open() -> (Outbox, Gone, Ends) {
    let (sender, chunks) = mpsc::channel(AGENT_OUTBOX_CHUNKS_MAX);
    let (left, gone) = watch::channel(false);
    (Outbox { chunks: sender }, Gone { left: gone }, Ends { chunks, left })
}

impl Outbox {
    /// Waits for a place; `None` when nobody takes output any more. Can be cancelled without loss.
    pub(crate) async fn place(&self) -> Option<mpsc::Permit<'_, Chunk>> {
        self.chunks.reserve().await.ok()
    }
}

impl Gone {
    /// Waits until the server has left. Can be cancelled.
    pub(crate) async fn wait(&mut self) {
        // An error means that the connection itself is no more, which is the same.
        let _ = self.left.wait_for(|left| *left).await;
    }

    /// Tells whether the server has left.
    pub(crate) fn is_gone(&self) -> bool {
        *self.left.borrow() || self.left.has_changed().is_err()
    }
}
