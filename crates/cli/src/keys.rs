// SPDX-License-Identifier: Apache-2.0
//! `msb server keygen`, `keys` and `revoke`: they work on the home alone, whether a server runs or not.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use server::{KeyInfo, KeyState, Keys, KeysError, Revoked, scope_text};

use crate::args::{HomeArgs, KeygenArgs, KeysArgs, RevokeArgs};
use crate::failure::{self, Failure};

/// Makes a key and prints it.
pub(crate) fn make(arguments: KeygenArgs) -> Result<(), Failure> {
    let key = open(arguments.home)?.make(arguments.namespace, arguments.expire).map_err(Failure::Keys)?;
    let (expires, namespace) = (time(key.info.expires), scope_text(&key.info.scope));
    let lines = [
        format!("Token: {}", key.text),
        format!("Token expires: {expires}"),
        format!("Namespace: {namespace}"),
        format!("Key id: {}", key.info.id),
    ];
    print(&lines.join("\n"))
}

/// Lists the keys.
pub(crate) fn list(arguments: KeysArgs) -> Result<(), Failure> {
    let json = arguments.json;
    let keys = open(arguments.home)?.list().map_err(Failure::Keys)?;
    let rows: Vec<Row> = keys.iter().map(Row::of).collect();
    if json {
        return print(&serde_json::to_string_pretty(&rows).expect("rows of texts are JSON"));
    }
    if rows.is_empty() {
        return print("no keys yet: make one with: msb server keygen");
    }
    print(&table(&rows))
}

/// Revokes a key.
pub(crate) fn revoke(arguments: RevokeArgs) -> Result<(), Failure> {
    let id = arguments.id.trim().parse().map_err(|_| Failure::NoSuchKey)?;
    let revoked = open(arguments.home)?.revoke(id).map_err(|error| match error {
        KeysError::Unknown(_) => Failure::NoSuchKey,
        other => Failure::Keys(other),
    })?;
    match revoked {
        Revoked::Now => print(&format!("revoked {id}: it no longer works")),
        Revoked::Before => print(&format!("{id} was revoked before")),
    }
}

fn open(home: HomeArgs) -> Result<Keys, Failure> {
    Keys::open(&failure::home(home)?).map_err(Failure::Keys)
}

/// One key as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    namespace: String,
    made: String,
    expires: String,
    last_used: Option<String>,
    revoked: Option<String>,
    state: &'static str,
}

impl Row {
    fn of(key: &KeyInfo) -> Row {
        Row {
            id: key.id.to_string(),
            namespace: scope_text(&key.scope).to_owned(),
            made: time(key.made),
            expires: time(key.expires),
            last_used: key.last_used.map(time),
            revoked: key.revoked.map(time),
            state: match key.state() {
                KeyState::Active => "active",
                KeyState::Expired => "expired",
                KeyState::Revoked => "revoked",
            },
        }
    }

    fn cells(&self) -> [&str; COLUMNS.len()] {
        let used = self.last_used.as_deref().unwrap_or("never");
        [&self.id, &self.namespace, &self.made, &self.expires, used, self.state]
    }
}

const COLUMNS: [&str; 6] = ["ID", "NAMESPACE", "MADE", "EXPIRES", "LAST USED", "STATE"];

/// Writes rows below each other, each column as wide as its widest cell.
fn table(rows: &[Row]) -> String {
    let lines: Vec<[&str; COLUMNS.len()]> =
        std::iter::once(COLUMNS).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let written = lines.iter().map(|line| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    written.collect::<Vec<String>>().join("\n")
}

/// Writes unix seconds as RFC 3339, in UTC.
fn time(seconds: i64) -> String {
    // Beyond the year 9999 only a store that somebody else wrote can be.
    Timestamp::from_second(seconds)
        .map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::system("write to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), "9223372036854775807 s after 1970");
    }

    #[test]
    fn a_table_has_aligned_columns() {
        let row = |namespace: &str, last_used: Option<i64>| Row {
            id: "00000000000000aa".to_owned(),
            namespace: namespace.to_owned(),
            made: time(0),
            expires: time(1),
            last_used: last_used.map(time),
            revoked: None,
            state: "active",
        };
        let expected = "\
ID                NAMESPACE       MADE                  EXPIRES               LAST USED             STATE
00000000000000aa  *               1970-01-01T00:00:00Z  1970-01-01T00:00:01Z  never                 active
00000000000000aa  a-longer-space  1970-01-01T00:00:00Z  1970-01-01T00:00:01Z  1970-01-01T00:00:02Z  active";
        assert_eq!(table(&[row("*", None), row("a-longer-space", Some(2))]), expected);
    }
}
