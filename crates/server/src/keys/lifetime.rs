// SPDX-License-Identifier: Apache-2.0
//! How long a key lives, as it is typed: `90m`, `7d`, `1y`; a bare number is hours.

use protocol::limits::{KEY_LIFETIME_DEFAULT, KEY_LIFETIME_MAX};

/// The units, each with its seconds.
const UNITS: [(&str, u64); 8] = [
    ("s", 1),
    ("m", 60),
    ("h", HOUR),
    ("", HOUR),
    ("d", 24 * HOUR),
    ("w", 7 * 24 * HOUR),
    ("mo", 30 * 24 * HOUR),
    ("y", 365 * 24 * HOUR),
];
const HOUR: u64 = 60 * 60;

/// How long a key lives, in whole seconds; at least one, and at most [`KEY_LIFETIME_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(u64);

/// Why a text is no lifetime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// It begins with something else than a digit.
    #[error("Invalid duration: {0}. No numeric value found.")]
    NoNumber(String),
    /// The number is followed by something else than a unit.
    #[error(
        "Invalid duration: {0}. The unit must be one of s, m, h, d, w, mo, y; without one, the number is hours."
    )]
    Unit(String),
    /// No time at all.
    #[error("Invalid duration: {0}. It must be longer than nothing.")]
    Zero(String),
    /// Longer than anybody means.
    #[error("Invalid duration: {0}. It can be at most 100y.")]
    TooLong(String),
}

impl Lifetime {
    /// Reads a lifetime.
    ///
    /// # Errors
    /// [`LifetimeError`] saying which part is wrong.
    pub fn parse(text: &str) -> Result<Lifetime, LifetimeError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        // A long text is not worth repeating in full.
        let shown = || text.chars().take(64).collect::<String>();
        if number.is_empty() {
            return Err(LifetimeError::NoNumber(shown()));
        }
        let found = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, unit_seconds) = found.ok_or_else(|| LifetimeError::Unit(shown()))?;
        // Digits that are no number of this size are too many.
        let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_seconds));
        match seconds {
            Some(0) => Err(LifetimeError::Zero(shown())),
            Some(seconds) if seconds <= KEY_LIFETIME_MAX.as_secs() => Ok(Lifetime(seconds)),
            Some(_) | None => Err(LifetimeError::TooLong(shown())),
        }
    }

    /// Returns it in seconds.
    pub fn seconds(self) -> i64 {
        i64::try_from(self.0).expect("a hundred years fit")
    }
}

impl Default for Lifetime {
    fn default() -> Lifetime {
        Lifetime(KEY_LIFETIME_DEFAULT.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_a_bare_number_is_hours() {
        let hour = 3600;
        let day = 24 * hour;
        for (text, seconds) in [
            ("1s", 1),
            ("90m", 5400),
            ("2h", 2 * hour),
            ("24", day),
            ("1d", day),
            ("2w", 14 * day),
            ("1mo", 30 * day),
            ("1y", 365 * day),
            ("100y", 36_500 * day),
            ("007d", 7 * day),
        ] {
            assert_eq!(Lifetime::parse(text).map(Lifetime::seconds), Ok(seconds), "{text}");
        }
        assert_eq!(Lifetime::default(), Lifetime::parse("24h").unwrap());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_part_that_is_wrong() {
        let error = |text: &str| Lifetime::parse(text).unwrap_err().to_string();
        assert_eq!(error("abc"), "Invalid duration: abc. No numeric value found.");
        for text in ["", "h", "-1h", "+1h", ".5h", " 1h", "∞"] {
            assert!(error(text).ends_with("No numeric value found."), "{text}");
        }
        for text in ["1x", "1H", "1 h", "1h30m", "1.5h", "1M", "1é"] {
            assert!(error(text).contains("The unit must be one of"), "{text}");
        }
        for text in ["0", "0s", "000y"] {
            assert!(error(text).contains("longer than nothing"), "{text}");
        }
        for text in ["101y", "36501d", "18446744073709551616", "99999999999999999999y", &"9".repeat(1000)] {
            assert!(error(text).contains("at most 100y"), "{text}");
            assert!(error(text).len() < 200);
        }
    }
}
