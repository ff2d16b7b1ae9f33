// SPDX-License-Identifier: Apache-2.0
//! Requests under way that their client can take back by number.
//!
//! Numbers are the client's own, and most clients count from 0: a number means something only within a session. So a
//! handshake is answered with the name of one, which nobody can guess. It is a name and nothing more: nothing is kept of
//! a session but the requests of it that run right now, and any name of that form will do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use protocol::limits::MCP_REQUEST_ID_BYTES_MAX;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::caller::Caller;

/// The header with the name of a session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Digits of a session's name.
const SESSION_CHARS: usize = 32;

/// Whose session it is, its name, and the JSON text of a request's id in it.
type Key = (Caller, String, String);

/// The requests under way, of all sessions; never more than there are connections and idempotency keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    running: Arc<Mutex<HashMap<Key, oneshot::Sender<()>>>>,
}

/// One request under way; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    calls: Calls,
    entered: Option<(Key, oneshot::Receiver<()>)>,
}

impl Calls {
    /// Notes a request. One that nobody could name, or that is noted already, runs on until it is done.
    pub(super) fn enter(&self, caller: &Caller, head: &HeaderMap, id: &Value) -> Ticket {
        let entered = key(caller, head, id).and_then(|key| match self.lock().entry(key.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                let (sender, receiver) = oneshot::channel();
                place.insert(sender);
                Some((key, receiver))
            }
        });
        Ticket { calls: self.clone(), entered }
    }

    /// Takes back a request of the same session, if it is under way.
    pub(super) fn cancel(&self, caller: &Caller, head: &HeaderMap, id: &Value) {
        if let Some(sender) = key(caller, head, id).and_then(|key| self.lock().remove(&key)) {
            // It may be done at this very moment; then there is nothing to take back.
            let _ = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, oneshot::Sender<()>>> {
        self.running.lock().expect("nobody panics while holding this lock")
    }
}

impl Ticket {
    /// Waits until the request is taken back; for ever, if nobody can.
    pub(super) async fn cancelled(&mut self) {
        if let Some((_, receiver)) = &mut self.entered
            && receiver.await.is_ok()
        {
            self.entered = None;
            return;
        }
        std::future::pending().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((key, mut receiver)) = self.entered.take() {
            // What was taken back is forgotten already, and another request may have its place.
            receiver.close();
            if receiver.try_recv().is_err() {
                self.calls.lock().remove(&key);
            }
        }
    }
}

/// Returns the name of a new session.
pub(super) fn new_session() -> Option<HeaderValue> {
    let mut bytes = [0; SESSION_CHARS / 2];
    getrandom::fill(&mut bytes).ok()?;
    HeaderValue::from_str(&format!("{:032x}", u128::from_be_bytes(bytes))).ok()
}

fn key(caller: &Caller, head: &HeaderMap, id: &Value) -> Option<Key> {
    let session = head.get(SESSION)?.to_str().ok()?;
    let named = session.len() == SESSION_CHARS && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = Some(id).filter(|id| !id.is_null())?.to_string();
    (named && id.len() <= MCP_REQUEST_ID_BYTES_MAX).then(|| (caller.clone(), session.to_owned(), id))
}

#[cfg(test)]
mod tests {
    use protocol::calls::Scope;
    use serde_json::json;

    use super::*;

    fn head(session: &str) -> HeaderMap {
        HeaderMap::from_iter([(SESSION, HeaderValue::from_str(session).unwrap())])
    }

    #[tokio::test]
    async fn a_request_is_taken_back_by_its_own_session_only() {
        let calls = Calls::default();
        let (mine, other) = (head(&"a".repeat(32)), head(&"b".repeat(32)));
        let mut ticket = calls.enter(&Caller::open(), &mine, &json!(1));
        for (head, id) in
            [(&other, json!(1)), (&mine, json!(2)), (&mine, json!("1")), (&HeaderMap::new(), json!(1))]
        {
            calls.cancel(&Caller::open(), head, &id);
            assert!(ticket.entered.as_mut().unwrap().1.try_recv().is_err(), "{id}");
        }
        calls.cancel(&Caller::with_key("other", Scope::All), &mine, &json!(1));
        assert!(ticket.entered.as_mut().unwrap().1.try_recv().is_err(), "another caller's");
        calls.cancel(&Caller::open(), &mine, &json!(1));
        ticket.cancelled().await;
    }

    #[test]
    fn nothing_is_kept_of_what_is_done() {
        let calls = Calls::default();
        let mine = head(&"a".repeat(32));
        let ticket = calls.enter(&Caller::open(), &mine, &json!(1));
        assert!(calls.enter(&Caller::open(), &mine, &json!(1)).entered.is_none(), "a number is taken once");
        assert_eq!(calls.lock().len(), 1);
        drop(ticket);
        let taken_back = calls.enter(&Caller::open(), &mine, &json!(1));
        calls.cancel(&Caller::open(), &mine, &json!(1));
        let next = calls.enter(&Caller::open(), &mine, &json!(1));
        drop(taken_back);
        assert_eq!(calls.lock().len(), 1, "the one that came after is still there");
        drop(next);
        assert!(calls.lock().is_empty());
    }

    #[test]
    fn what_cannot_be_named_is_not_kept() {
        let calls = Calls::default();
        let long = json!("x".repeat(MCP_REQUEST_ID_BYTES_MAX));
        for (session, id) in [
            ("short", json!(1)),
            (&*"z".repeat(32), json!(1)),
            (&*"a".repeat(32), Value::Null),
            (&*"a".repeat(32), long),
        ] {
            assert!(calls.enter(&Caller::open(), &head(session), &id).entered.is_none(), "{session}");
        }
        assert!(calls.lock().is_empty());
        assert_eq!(new_session().unwrap().len(), SESSION_CHARS);
        assert_ne!(new_session(), new_session());
    }
}
