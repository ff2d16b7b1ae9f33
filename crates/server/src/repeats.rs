// SPDX-License-Identifier: Apache-2.0
//! Calls that are made once however often they are sent: the answers kept for idempotency keys.
//!
//! A client that did not see its answer cannot know whether its call was carried out. If it sent a key of its own choice
//! with it, it can send the same again: the call is carried out once, and everyone who sends it gets the one answer, also
//! while it is still under way. Such a call goes on when its client goes away, for somebody may come back for the answer.
//! (The header is that of the IETF draft "The Idempotency-Key HTTP Header Field".)
//!
//! Keys belong to their caller. Kept are, for each caller, at most [`IDEMPOTENCY_KEYS_MAX`] keys and
//! [`IDEMPOTENCY_BYTES_MAX`] bytes of answers, for [`IDEMPOTENCY_KEEP`], and of all callers together
//! [`IDEMPOTENCY_ALL_KEYS_MAX`] and [`IDEMPOTENCY_ALL_BYTES_MAX`]; they do not outlive the server.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::response::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{
    IDEMPOTENCY_ALL_BYTES_MAX, IDEMPOTENCY_ALL_KEYS_MAX, IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEEP,
    IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::rpc;

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
    shelves: Arc<Mutex<Shelves>>,
}

/// The answers of all callers.
#[derive(Debug, Default)]
struct Shelves {
    by_caller: HashMap<Caller, Shelf>,
    keys: usize,
    bytes: usize,
}

/// The answers of one caller.
#[derive(Debug, Default)]
struct Shelf {
    calls: HashMap<RepeatKey, Kept>,
    /// The keys whose calls have ended, in that order, with the size of what is kept of each.
    ended: VecDeque<(Instant, RepeatKey, usize)>,
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

    /// Returns what is kept of it: a copy, so that it gives back its room among the answers that wait for their
    /// clients. Of one that is too large to be kept there is left that it was given.
    fn kept(&self) -> Answer {
        if self.body.len() <= IDEMPOTENCY_BYTES_MAX {
            return Answer { body: Bytes::copy_from_slice(&self.body), ..self.clone() };
        }
        let text = "The call was carried out and answered once; its answer was too large to be kept";
        let rpc::Answer { body, .. } = rpc::flat(ApiError::new(ErrorCode::Failed, text));
        let status =
            StatusCode::from_u16(ErrorCode::Failed.http_status()).expect("the table has HTTP statuses only");
        Answer { status, body, ..self.clone() }
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
        let lost = || ApiError::new(ErrorCode::Failed, "The call ended without an answer");
        match self.find_or_begin(caller, &key, fingerprint)? {
            Begun::Before(mut answer) => {
                let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
                answer.ok_or_else(lost)
            }
            Begun::Now(sender) => {
                let (repeats, caller) = (self.clone(), caller.clone());
                let unfinished = Unfinished { repeats, caller, key: Some(key) };
                let call = call();
                let task = tokio::spawn(async move {
                    let answer = call.await;
                    let kept = answer.kept();
                    unfinished.end(&kept);
                    sender.send_replace(Some(kept));
                    answer
                });
                task.await.map_err(|_| lost())
            }
        }
    }

    fn find_or_begin(
        &self,
        caller: &Caller,
        key: &RepeatKey,
        fingerprint: [u8; 32],
    ) -> Result<Begun, ApiError> {
        let mut shelves = self.shelves();
        shelves.forget_old();
        let shelf = shelves.by_caller.entry(caller.clone()).or_default();
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
        if !shelves.make_room(caller) {
            let text = "As many calls with idempotency keys are under way as may be";
            return Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("wait for some of them"));
        }
        let (sender, answer) = watch::channel(None);
        let shelf = shelves.by_caller.entry(caller.clone()).or_default();
        shelf.calls.insert(key.clone(), Kept { fingerprint, answer });
        shelves.keys += 1;
        Ok(Begun::Now(sender))
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
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
    Now(watch::Sender<Option<Answer>>),
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
        let bytes = answer.body.len();
        let mut shelves = self.repeats.shelves();
        shelves.bytes += bytes;
        let shelf = shelves.by_caller.entry(self.caller.clone()).or_default();
        shelf.bytes += bytes;
        shelf.ended.push_back((Instant::now(), key, bytes));
        while shelves.is_too_large(&self.caller) {
            shelves.forget_oldest_of(&self.caller);
        }
        while shelves.bytes > IDEMPOTENCY_ALL_BYTES_MAX && shelves.forget_oldest() {}
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let mut shelves = self.repeats.shelves();
            let Some(shelf) = shelves.by_caller.get_mut(&self.caller) else { return };
            let was_there = shelf.calls.remove(&key).is_some();
            if shelf.calls.is_empty() {
                shelves.by_caller.remove(&self.caller);
            }
            shelves.keys -= usize::from(was_there);
        }
    }
}

impl Shelves {
    /// Makes room for one more key of a caller; says no when everything is under way.
    fn make_room(&mut self, caller: &Caller) -> bool {
        let own = self.by_caller.get(caller).map_or(0, |shelf| shelf.calls.len());
        if own >= IDEMPOTENCY_KEYS_MAX && !self.forget_oldest_of(caller) {
            return false;
        }
        self.keys < IDEMPOTENCY_ALL_KEYS_MAX || self.forget_oldest()
    }

    fn is_too_large(&self, caller: &Caller) -> bool {
        self.by_caller.get(caller).is_some_and(|shelf| shelf.bytes > IDEMPOTENCY_BYTES_MAX)
    }

    fn forget_old(&mut self) {
        while let Some((at, caller)) = self.oldest() {
            if at.elapsed() <= IDEMPOTENCY_KEEP {
                return;
            }
            self.forget_oldest_of(&caller);
        }
    }

    /// Forgets the call that ended first of all callers'; says no when none has ended.
    fn forget_oldest(&mut self) -> bool {
        self.oldest().is_some_and(|(_, caller)| self.forget_oldest_of(&caller))
    }

    /// Returns when the first call that is remembered ended, and whose it was. There are as many shelves as callers who
    /// use keys, and an empty one is removed.
    fn oldest(&self) -> Option<(Instant, Caller)> {
        let first =
            |(caller, shelf): (&Caller, &Shelf)| shelf.ended.front().map(|(at, _, _)| (*at, caller.clone()));
        self.by_caller.iter().filter_map(first).min_by_key(|(at, _)| *at)
    }

    /// Forgets the call of a caller that ended first; says no when none has ended.
    fn forget_oldest_of(&mut self, caller: &Caller) -> bool {
        let Some(shelf) = self.by_caller.get_mut(caller) else { return false };
        let Some((_, key, bytes)) = shelf.ended.pop_front() else { return false };
        shelf.calls.remove(&key);
        shelf.bytes -= bytes;
        self.keys -= 1;
        self.bytes -= bytes;
        if shelf.calls.is_empty() {
            self.by_caller.remove(caller);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use protocol::calls::Scope;

    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: vec![b'x'; bytes].into() }
    }

    async fn once(repeats: &Repeats, caller: &Caller, key: &str, bytes: usize) -> Answer {
        let key = RepeatKey::parse(key.as_bytes()).unwrap();
        repeats.once(caller, key, [0; 32], || async move { answer(bytes) }).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_for_one_caller_and_for_all() {
        let repeats = Repeats::default();
        for number in 0..12 {
            let caller = Caller::with_key(&number.to_string(), Scope::All);
            for key in ["a", "b", "c"] {
                once(&repeats, &caller, key, 20 << 20).await;
            }
            let shelves = repeats.shelves();
            assert_eq!(
                shelves.by_caller[&caller].ended.len(),
                1,
                "two of 20 MiB are too many for one caller"
            );
            assert!(shelves.bytes <= IDEMPOTENCY_ALL_BYTES_MAX);
            assert_eq!(shelves.bytes, shelves.by_caller.values().map(|shelf| shelf.bytes).sum::<usize>());
            assert_eq!(
                shelves.keys,
                shelves.by_caller.values().map(|shelf| shelf.calls.len()).sum::<usize>()
            );
        }
    }

    #[tokio::test]
    async fn an_answer_too_large_to_keep_is_given_once_and_told_of_then() {
        let (repeats, caller) = (Repeats::default(), Caller::open());
        let first = once(&repeats, &caller, "k", IDEMPOTENCY_BYTES_MAX + 1).await;
        assert_eq!((first.status, first.body.len()), (StatusCode::OK, IDEMPOTENCY_BYTES_MAX + 1));
        let again = once(&repeats, &caller, "k", 1).await;
        assert_eq!(again.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(String::from_utf8_lossy(&again.body).contains("carried out and answered once"));
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_forgotten_in_the_end() {
        let repeats = Repeats::default();
        once(&repeats, &Caller::with_key("gone", Scope::All), "k", 10).await;
        tokio::time::advance(IDEMPOTENCY_KEEP + std::time::Duration::from_secs(1)).await;
        once(&repeats, &Caller::open(), "k", 10).await;
        assert_eq!(repeats.shelves().by_caller.len(), 1);
    }
}
