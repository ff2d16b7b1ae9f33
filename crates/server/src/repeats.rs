// SPDX-License-Identifier: Apache-2.0
//! Calls that are made once however often they are sent: the answers kept for idempotency keys.
//!
//! A client that did not see its answer cannot know whether its call was carried out. If it sent a key of its own choice
//! with it, it can send the same again: the call is carried out once, and everyone who sends it gets the one answer, also
//! while it is still under way. Such a call goes on when its client goes away, for somebody may come back for the answer.
//! (The header is that of the IETF draft "The Idempotency-Key HTTP Header Field".)
//!
//! Keys belong to their caller. Kept are, for each caller, at most [`IDEMPOTENCY_KEYS_MAX`] keys and
//! [`IDEMPOTENCY_BYTES_MAX`] bytes of answers, for [`IDEMPOTENCY_KEEP`]; they do not outlive the server.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::response::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{
    IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEEP, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caller::Caller;

/// A checked idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RepeatKey(String);

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The answers of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    shelves: Arc<Mutex<HashMap<Caller, Shelf>>>,
}

/// The answers of one caller.
#[derive(Debug, Default)]
struct Shelf {
    calls: HashMap<RepeatKey, Kept>,
    /// The keys whose calls have ended, in that order.
    ended: VecDeque<(Instant, RepeatKey)>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    fingerprint: [u8; 32],
    answer: watch::Receiver<Option<Answer>>,
}

impl RepeatKey {
    /// Checks a key: 1 to 255 visible ASCII characters.
    pub(crate) fn parse(text: &[u8]) -> Result<RepeatKey, ApiError> {
        let allowed = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
        if !allowed || !text.iter().all(u8::is_ascii_graphic) {
            let text = format!(
                "Invalid 'Idempotency-Key' header: it must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
            );
            return Err(ApiError::new(ErrorCode::BadParameters, text).remedy("send a new UUID for each call"));
        }
        Ok(RepeatKey(String::from_utf8_lossy(text).into_owned()))
    }
}

impl Answer {
    /// Takes an answer that is there in one piece.
    pub(crate) async fn of(response: Response) -> Answer {
        let (Parts { status, headers, .. }, body) = response.into_parts();
        // Our own bodies are in memory, so they neither fail nor are they larger than we made them.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Answer { status, headers, body }
    }

    pub(crate) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl Repeats {
    /// Carries out a call unless it was already, and returns its answer in any case.
    pub(crate) async fn once<F>(
        &self,
        caller: &Caller,
        key: RepeatKey,
        fingerprint: [u8; 32],
        call: impl FnOnce() -> F,
    ) -> Result<Answer, ApiError>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut answer = match self.find_or_begin(caller, &key, fingerprint)? {
            Begun::Before(answer) => answer,
            Begun::Now(sender, answer) => {
                let (repeats, caller) = (self.clone(), caller.clone());
                let unfinished = Unfinished { repeats, caller, key: Some(key) };
                let call = call();
                tokio::spawn(async move {
                    let answer = call.await;
                    unfinished.end(&answer);
                    sender.send_replace(Some(answer));
                });
                answer
            }
        };
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.ok_or_else(|| ApiError::new(ErrorCode::Failed, "The call ended without an answer"))
    }

    fn find_or_begin(
        &self,
        caller: &Caller,
        key: &RepeatKey,
        fingerprint: [u8; 32],
    ) -> Result<Begun, ApiError> {
        let mut shelves = self.shelves();
        let shelf = shelves.entry(caller.clone()).or_default();
        shelf.forget_old();
        if let Some(kept) = shelf.calls.get(key) {
            if kept.fingerprint != fingerprint {
                let text = "The idempotency key was used with another call before";
                let error = ApiError::new(ErrorCode::KeyReused, text);
                return Err(
                    error.remedy("send a new key with each new call, and the old one only to repeat it")
                );
            }
            return Ok(Begun::Before(kept.answer.clone()));
        }
        if shelf.calls.len() >= IDEMPOTENCY_KEYS_MAX && !shelf.forget_oldest() {
            let text = format!("{IDEMPOTENCY_KEYS_MAX} calls with idempotency keys are under way already");
            return Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("wait for some of them"));
        }
        let (sender, receiver) = watch::channel(None);
        shelf.calls.insert(key.clone(), Kept { fingerprint, answer: receiver.clone() });
        Ok(Begun::Now(sender, receiver))
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<Caller, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what tells one request from another.
pub(crate) fn fingerprint(path: &str, body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(path).chain_update([0]).chain_update(body).finalize().into()
}

/// Whether a call is carried out now, or was begun before.
enum Begun {
    Before(watch::Receiver<Option<Answer>>),
    Now(watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>),
}

/// A call under way; when it does not come to an end (a panic), its key is free again.
struct Unfinished {
    repeats: Repeats,
    caller: Caller,
    key: Option<RepeatKey>,
}

impl Unfinished {
    /// Keeps the answer. One that only says to come back later is not kept: nothing was done.
    fn end(mut self, answer: &Answer) {
        if answer.status.as_u16() == ErrorCode::NoCapacity.http_status() {
            return;
        }
        let Some(key) = self.key.take() else { return };
        let mut shelves = self.repeats.shelves();
        let shelf = shelves.entry(self.caller.clone()).or_default();
        shelf.bytes += answer.body.len();
        shelf.ended.push_back((Instant::now(), key));
        while shelf.bytes > IDEMPOTENCY_BYTES_MAX && shelf.ended.len() > 1 && shelf.forget_oldest() {}
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let mut shelves = self.repeats.shelves();
            if let Some(shelf) = shelves.get_mut(&self.caller) {
                shelf.calls.remove(&key);
            }
        }
    }
}

impl Shelf {
    fn forget_old(&mut self) {
        while self.ended.front().is_some_and(|(at, _)| at.elapsed() > IDEMPOTENCY_KEEP) {
            self.forget_oldest();
        }
    }

    /// Forgets the call that ended first; says no when none has ended.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.ended.pop_front() else { return false };
        if let Some(kept) = self.calls.remove(&key) {
            let bytes = kept.answer.borrow().as_ref().map_or(0, |answer| answer.body.len());
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        true
    }
}
