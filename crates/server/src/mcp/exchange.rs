// SPDX-License-Identifier: Apache-2.0
//! What belongs to one request and its answer, but is no part of the message: it travels beside it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;

use crate::caller::Caller;
use crate::memory::Held;

/// One request and its answer: a cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    caller: Caller,
    /// The body; as long as it is held, its share of the memory is too.
    asked: Bytes,
    room: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Exchange {
    pub(super) fn new(caller: Caller, asked: Bytes) -> Exchange {
        Exchange { caller, asked, room: Arc::default() }
    }

    /// Returns how large the request is.
    pub(super) fn asked_bytes(&self) -> usize {
        self.asked.len()
    }

    /// Returns who asks.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Keeps the room that was made for the answer.
    pub(super) fn keep(&self, room: Option<OwnedSemaphorePermit>) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }

    /// Ties the room to the answer, so that it is given back when the client has taken that.
    pub(super) async fn tie(&self, response: Response) -> Response {
        let Some(room) = self.room.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return response;
        };
        let (parts, body) = response.into_parts();
        // It is all there already, in one piece, and as long as the room allows.
        let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Response::from_parts(parts, Body::from(Bytes::from_owner(Held::new(bytes.into(), Some(room)))))
    }
}
