// SPDX-License-Identifier: Apache-2.0
//! Keys: who may use a server that is not open to everybody.
//!
//! ```text
//! secret    server.key, what keys are signed with       token     the text of a key, and what it says
//! store     what is known of each key                   recorder  when it was last used
//! ```
//!
//! A key is good when its signature is ours, its time is not up, and the store knows it and says nothing of a revocation.
//! The store is asked for every request: so a key works from the moment it is printed and stops with its revocation,
//! whichever process did that. Two processes need nothing from each other but the home.

mod lifetime;
mod recorder;
mod secret;
mod store;
mod token;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::calls::Scope;
use protocol::limits::{KEY_EXPIRY_LEEWAY, STORE_READ_WAIT};
use rusqlite::Connection;

pub use self::lifetime::{Lifetime, LifetimeError};
pub use self::secret::SecretError;
pub use self::token::{KeyId, NoKeyId, scope, scope_text};

use self::recorder::Recorder;
use self::secret::Secret;
pub(crate) use self::store::TABLE;
use self::token::{Claims, NoToken};
use crate::caller::Caller;
use crate::home::{HomeError, private_home};
use crate::store::{self as database, StoreError};

/// The keys of one home.
pub struct Keys {
    secret: Secret,
    /// For the checks of requests, which wait for nobody.
    reader: Mutex<Connection>,
    /// For everything else.
    writer: Arc<Mutex<Connection>>,
    recorder: Recorder,
}

/// A key that was just made.
pub struct NewKey {
    /// The key itself; it is told once, and kept nowhere.
    pub text: String,
    /// What is known of it from now on.
    pub info: KeyInfo,
}

/// What is known of a key; times are unix seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// What it is called.
    pub id: KeyId,
    /// The namespaces that it is for.
    pub scope: Scope,
    /// When it was made.
    pub made: i64,
    /// When it expires.
    pub expires: i64,
    /// When it was revoked, if it was.
    pub revoked: Option<i64>,
    /// When it was last used, to the minute; none if it never was.
    pub last_used: Option<i64>,
}

/// Whether a key is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is.
    Active,
    /// Its time is up.
    Expired,
    /// Somebody revoked it.
    Revoked,
}

/// What a revocation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The key was good until now, or expired.
    Now,
    /// It was revoked before.
    Before,
}

/// Why keys cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The home cannot be used for them.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// There is no secret to sign with.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What is known of keys cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no random numbers, or no thread.
    #[error("cannot get what keys need from the system")]
    System(#[from] io::Error),
    /// No such key was ever made here.
    #[error("no key has the id {0}")]
    Unknown(KeyId),
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What they showed does not look like a key.
    #[error("not a key")]
    NoKey,
    /// It looks like a key, and is not good; why is for the log alone, for callers must not learn which keys there are.
    #[error("a key that is {0}")]
    Invalid(&'static str),
    /// It cannot be said.
    #[error("keys cannot be checked")]
    Store(#[from] rusqlite::Error),
}

impl Keys {
    /// Opens the keys of a home. Makes what is missing: the home, the secret, the store. Blocks.
    ///
    /// # Errors
    /// [`KeysError`], when something is in the way or is not private.
    pub fn open(home: &Path) -> Result<Keys, KeysError> {
        let home = private_home(home)?;
        let secret = Secret::open(&home)?;
        let writer = Arc::new(Mutex::new(database::open(&home)?));
        let reader = database::open(&home)?;
        database::wait_at_most(&reader, STORE_READ_WAIT)?;
        let recorder = Recorder::start(Arc::clone(&writer))?;
        Ok(Keys { secret, reader: Mutex::new(reader), writer, recorder })
    }

    /// Makes a key; it works when this returns.
    ///
    /// # Errors
    /// [`KeysError`], when it cannot be written down.
    pub fn make(&self, scope: Scope, lifetime: Lifetime) -> Result<NewKey, KeysError> {
        let made = now();
        let id = KeyId(getrandom::u64().map_err(io::Error::from)?);
        let expires = made.saturating_add(lifetime.seconds());
        let claims = Claims { id, scope, made, expires };
        store::insert(&locked(&self.writer), &claims).map_err(StoreError::from)?;
        let text = token::write(&claims, &self.secret);
        let info = KeyInfo { id, scope: claims.scope, made, expires, revoked: None, last_used: None };
        Ok(NewKey { text, info })
    }

    /// Returns what is known of every key, the oldest first.
    ///
    /// # Errors
    /// [`KeysError`], when it cannot be read.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        Ok(store::list(&locked(&self.writer)).map_err(StoreError::from)?)
    }

    /// Revokes a key; it is of no more use when this returns.
    ///
    /// # Errors
    /// [`KeysError::Unknown`] for an id that no key has; others when it cannot be written down.
    pub fn revoke(&self, id: KeyId) -> Result<Revoked, KeysError> {
        let connection = locked(&self.writer);
        if store::revoke(&connection, id, now()).map_err(StoreError::from)? {
            return Ok(Revoked::Now);
        }
        match store::find(&connection, id).map_err(StoreError::from)? {
            Some(_) => Ok(Revoked::Before),
            None => Err(KeysError::Unknown(id)),
        }
    }

    /// Says who shows this key. Reads one row of the store, so it may be called where blocking is not wanted.
    ///
    /// # Errors
    /// [`Refusal`], when it is no good key.
    pub fn check(&self, text: &str) -> Result<Caller, Refusal> {
        self.check_at(text, now())
    }

    fn check_at(&self, text: &str, now: i64) -> Result<Caller, Refusal> {
        let claims = token::read(text, &self.secret).map_err(|no_token| match no_token {
            NoToken::Unlike => Refusal::NoKey,
            NoToken::Broken => Refusal::Invalid("broken or not signed here"),
        })?;
        let known = store::find(&locked(&self.reader), claims.id)?;
        let known = known.ok_or(Refusal::Invalid("unknown"))?;
        match known.state_at(now) {
            KeyState::Revoked => return Err(Refusal::Invalid("revoked")),
            KeyState::Expired => return Err(Refusal::Invalid("expired")),
            KeyState::Active => {}
        }
        if known.claims() != claims {
            return Err(Refusal::Invalid("not the one that was made"));
        }
        if store::is_news(known.last_used, now) {
            self.recorder.note(claims.id, now);
        }
        Ok(Caller::with_key(&claims.id.to_string(), claims.scope))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("info", &self.info).finish_non_exhaustive()
    }
}

impl KeyInfo {
    /// Says whether the key is good now.
    pub fn state(&self) -> KeyState {
        self.state_at(now())
    }

    fn state_at(&self, now: i64) -> KeyState {
        if self.revoked.is_some() {
            KeyState::Revoked
        } else if self.expires.saturating_add(LEEWAY_SECONDS) < now {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    fn claims(&self) -> Claims {
        Claims { id: self.id, scope: self.scope.clone(), made: self.made, expires: self.expires }
    }
}

#[expect(clippy::cast_possible_wrap, reason = "a minute fits")]
const LEEWAY_SECONDS: i64 = KEY_EXPIRY_LEEWAY.as_secs() as i64;

/// Returns the time in unix seconds.
fn now() -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic in between leaves a connection as good as it was: its transactions end with their scope.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the fuzz target of keys needs.
#[cfg(test)]
pub(crate) mod fuzzed {
    pub(crate) use super::secret::Secret;
    pub(crate) use super::token::{read, write};
}

#[cfg(test)]
mod tests;
