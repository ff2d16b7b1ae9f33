// SPDX-License-Identifier: Apache-2.0
//! What the agent has to say goes to its standard error, one line each; nobody inside can read it.

use std::error::Error;
use std::io::Write;

/// Writes what failed, with all its causes.
pub(crate) fn error(what: &str, error: &dyn Error) {
    let mut text = format!("msb-agent: {what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    line(&text);
}

/// Writes a line about something that is no error of ours.
pub(crate) fn note(what: &str) {
    line(&format!("msb-agent: {what}"));
}

fn line(text: &str) {
    // Without anybody to read it there is nothing left to do about it.
    let _ = writeln!(std::io::stderr(), "{text}");
}
