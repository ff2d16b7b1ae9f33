// SPDX-License-Identifier: Apache-2.0
//! What a probe found out: one line of JSON each.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What came back for an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The kernel did it, and returned this number.
    Returned(i64),
    /// The kernel refused with this error number.
    Error(i32),
    /// The attempt was ended by this signal.
    Killed(i32),
    /// What the probe saw, in a word or two.
    Said(String),
    /// The probe could not try; the reason.
    Unable(String),
}

impl Answer {
    /// Makes an answer of what a call into the kernel gave.
    pub fn of<T>(result: &std::io::Result<T>, value: impl FnOnce(&T) -> i64) -> Answer {
        match result {
            Ok(done) => Answer::Returned(value(done)),
            Err(error) => match error.raw_os_error() {
                Some(number) => Answer::Error(number),
                None => Answer::Unable(error.to_string()),
            },
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Returned(value) => write!(out, "done ({value})"),
            Answer::Error(number) => write!(out, "{:?}", Errno::from_raw(*number)),
            Answer::Killed(signal) => write!(out, "killed by signal {signal}"),
            Answer::Said(text) => out.write_str(text),
            Answer::Unable(why) => write!(out, "not tried: {why}"),
        }
    }
}

/// The answer to one line of the list, as `msb-probe` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The line's id.
    pub id: String,
    /// What came back.
    pub answer: Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_of_json_and_comes_back() {
        let finding = Finding { id: "mount-tmpfs".into(), answer: Answer::Error(1) };
        let text = serde_json::to_string(&finding).unwrap();
        assert_eq!(text, r#"{"id":"mount-tmpfs","answer":{"error":1}}"#);
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding);
    }

    #[test]
    fn answers_read_like_the_manual_pages() {
        assert_eq!(Answer::Error(1).to_string(), "EPERM");
        assert_eq!(Answer::Returned(0).to_string(), "done (0)");
        assert_eq!(Answer::Killed(9).to_string(), "killed by signal 9");
    }
}
