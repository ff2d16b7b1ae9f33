// SPDX-License-Identifier: Apache-2.0
//! The database of what outlives the server: `<home>/state.db`, SQLite with a write-ahead log, 0600.
//!
//! Several processes use it at once: a server, and commands beside it. The file appears whole: it is made under another
//! name, migrated, and then named. Each step of [`MIGRATIONS`] is one version (`PRAGMA user_version`), carried out in one
//! transaction by whoever opens the file first after an update.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::limits::STORE_BUSY_WAIT;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::home::make_once;

const NAME: &str = "state.db";

/// What each version of the tables adds to the one before. A step that was released is never changed.
const MIGRATIONS: [&str; 1] = [crate::keys::TABLE];

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be made.
    #[error("cannot make {NAME}")]
    Make(#[from] io::Error),
    /// Others could read or change it.
    #[error("{0} is open to other users (its mode is {1:o})")]
    NotPrivate(PathBuf, u32),
    /// It was written by a later version.
    #[error("{NAME} is of version {found}, and this program knows versions up to {}", MIGRATIONS.len())]
    Newer {
        /// The version it has.
        found: i64,
    },
    /// The database refuses.
    #[error("cannot use {NAME}")]
    Database(#[from] rusqlite::Error),
}

/// Opens the store of a private home; makes or updates it if needed.
pub(crate) fn open(home: &Path) -> Result<Connection, StoreError> {
    make_once(home, NAME, |path| connect(path).and_then(|mut made| migrate(&mut made)))?;
    let path = home.join(NAME);
    let mode = fs_err::symlink_metadata(&path)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::NotPrivate(path, mode));
    }
    let mut connection = connect(&path)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Sets how long a connection waits for another process that is writing.
pub(crate) fn wait_at_most(connection: &Connection, wait: Duration) -> Result<(), StoreError> {
    Ok(connection.busy_timeout(wait)?)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // The mutex of a connection is ours; a link in the place of the file is not followed.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    wait_at_most(&connection, STORE_BUSY_WAIT)?;
    // What a statement says is never taken from the tables.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Readers and a writer do not wait for each other; what was told as done survives a loss of power.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).expect("there are a few");
    if version(connection)? == known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited.
    let found = version(&transaction)?;
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
    let steps = &MIGRATIONS[done.ok_or(StoreError::Newer { found })?..];
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_private_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let first = open(home.path()).unwrap();
        assert_eq!(version(&first).unwrap(), 1);
        let mode: String = first.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        open(home.path()).unwrap().execute_batch("create table seen (x)").unwrap();
        first.execute("insert into seen values (1)", ()).unwrap();
        for entry in home.path().read_dir().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{entry:?}");
            assert!(entry.file_name().to_str().unwrap().starts_with(NAME), "{entry:?}");
        }
    }

    #[test]
    fn many_that_open_it_at_once_find_one() {
        let home = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (home, start) = (home.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    let connection = open(home).unwrap();
                    let add = "create table if not exists seen (x); insert into seen values (1)";
                    connection.execute_batch(add).unwrap_or_else(|error| panic!("{number}: {error}"));
                });
            }
        });
        let count: i64 =
            open(home.path()).unwrap().query_row("select count(*) from seen", (), |row| row.get(0)).unwrap();
        assert_eq!(count, 8);
        let leftovers = home.path().read_dir().unwrap().filter_map(Result::ok);
        let leftovers = leftovers.filter(|e| e.file_name().to_str().unwrap().starts_with('.'));
        assert_eq!(leftovers.count(), 0);
    }

    #[test]
    fn what_others_can_read_a_link_or_a_later_version_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        drop(open(home.path()).unwrap());
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(home.path()), Err(StoreError::NotPrivate(_, 0o644))));
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        open(home.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(open(home.path()), Err(StoreError::Newer { found: 99 })));
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, other.path().join(NAME)).unwrap();
        assert!(open(other.path()).is_err());
    }
}
