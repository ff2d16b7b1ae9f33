// SPDX-License-Identifier: Apache-2.0
//! `msb server keygen`, `keys` and `revoke`: they work on the home alone, whether a server runs or not.

use serde::Serialize;
use server::{KeyInfo, KeyState, Keys, KeysError, Revoked, scope_text};

use crate::args::{HomeArgs, KeygenArgs, KeysArgs, RevokeArgs};
use crate::failure::{self, Failure};
use crate::output::{print, print_json, table, time};

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
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no keys yet: make one with: msb server keygen");
    }
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    print(&table(COLUMNS, &cells))
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let rows = [row("*", None), row("a-longer-space", Some(2))];
        assert_eq!(table(COLUMNS, &rows.each_ref().map(Row::cells)), expected);
    }
}
