// SPDX-License-Identifier: Apache-2.0
//! What is known of keys: the statements of their table.
//!
//! Times are unix seconds. The key itself is not kept: it can be made of what is here and the secret, and only so.

use protocol::calls::Scope;
use protocol::limits::KEY_USE_RESOLUTION;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use super::KeyInfo;
use super::token::{Claims, KeyId, scope, scope_text};

/// The table, as its first version has it.
pub(crate) const TABLE: &str = "
    create table keys (
        id        text primary key not null,
        namespace text not null,
        made      integer not null,
        expires   integer not null,
        revoked   integer,
        last_used integer
    ) strict, without rowid;
";

const COLUMNS: &str = "select id, namespace, made, expires, revoked, last_used from keys";

/// Adds a key.
pub(super) fn insert(connection: &Connection, claims: &Claims) -> rusqlite::Result<()> {
    let add = "insert into keys (id, namespace, made, expires) values (?1, ?2, ?3, ?4)";
    let (id, namespace) = (claims.id.to_string(), scope_text(&claims.scope));
    connection.execute(add, (id, namespace, claims.made, claims.expires)).map(drop)
}

/// Finds a key.
pub(super) fn find(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<KeyInfo>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} where id = ?1"))?;
    statement.query_row((id.to_string(),), info).optional()
}

/// Returns every key, the oldest first.
pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<KeyInfo>> {
    connection.prepare(&format!("{COLUMNS} order by made, id"))?.query_map((), info)?.collect()
}

/// Notes that a key is revoked; says whether there is such a key that was not before.
pub(super) fn revoke(connection: &Connection, id: KeyId, now: i64) -> rusqlite::Result<bool> {
    let revoke = "update keys set revoked = ?2 where id = ?1 and revoked is null";
    connection.execute(revoke, (id.to_string(), now)).map(|changed| changed == 1)
}

/// Notes that a key was used, unless that is noted well enough.
pub(super) fn note_use(connection: &Connection, id: KeyId, now: i64) -> rusqlite::Result<()> {
    let note = "update keys set last_used = ?2 where id = ?1 and (last_used is null or last_used <= ?3)";
    let mut statement = connection.prepare_cached(note)?;
    statement.execute((id.to_string(), now, now.saturating_sub(RESOLUTION_SECONDS))).map(drop)
}

/// Says whether a use is worth to be noted.
pub(super) fn is_news(last_used: Option<i64>, now: i64) -> bool {
    last_used.is_none_or(|last| last <= now.saturating_sub(RESOLUTION_SECONDS))
}

#[expect(clippy::cast_possible_wrap, reason = "a minute fits")]
const RESOLUTION_SECONDS: i64 = KEY_USE_RESOLUTION.as_secs() as i64;

fn info(row: &Row<'_>) -> rusqlite::Result<KeyInfo> {
    let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    };
    let id: String = row.get(0)?;
    let namespace: String = row.get(1)?;
    let scope: Scope = scope(&namespace).map_err(|error| unreadable(1, error.into()))?;
    Ok(KeyInfo {
        id: id.parse().map_err(|error: super::NoKeyId| unreadable(0, error.into()))?,
        scope,
        made: row.get(2)?,
        expires: row.get(3)?,
        revoked: row.get(4)?,
        last_used: row.get(5)?,
    })
}
