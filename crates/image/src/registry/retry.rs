// SPDX-License-Identifier: Apache-2.0
//! When to try again: after a pause that doubles, or after the one that the registry asks for, within bounds.

use std::time::Duration;

use protocol::limits::{REGISTRY_ATTEMPTS_MAX, REGISTRY_BACKOFF_MAX};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::config::World;
use super::error::{Again, Failure, RegistryError};

/// The attempts at one thing.
pub(super) struct Attempts<'a> {
    world: &'a World,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(world: &'a World) -> Attempts<'a> {
        Attempts { world, made: 0 }
    }

    /// Waits until the next attempt is due; gives the error back when there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), RegistryError> {
        self.made += 1;
        let wait = match failure.again {
            Again::No => return Err(failure.error),
            _ if self.made >= REGISTRY_ATTEMPTS_MAX => return Err(failure.error),
            Again::After(asked) if asked > self.world.retry_after_max => return Err(failure.error),
            Again::After(asked) => asked + jitter(self.world.backoff),
            Again::Soon => self.backoff(),
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Counts anew, because there was progress.
    pub(super) fn forget(&mut self) {
        self.made = 0;
    }

    /// Half of the pause is certain and half by chance, so that clients that failed together do not return together.
    fn backoff(&self) -> Duration {
        let doubled = self.world.backoff.saturating_mul(1 << (self.made - 1).min(16));
        let half = doubled.min(REGISTRY_BACKOFF_MAX) / 2;
        half + jitter(half)
    }
}

fn jitter(most: Duration) -> Duration {
    // Without a source of chance there is none, which is no reason to give up.
    let share = getrandom::u32().unwrap_or(u32::MAX / 2);
    most.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = date.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]))
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it is over");
        let far = asked("Fri, 31 Dec 2100 23:59:59 GMT").unwrap();
        assert!(far > Duration::from_secs(3600));
        for text in ["soon", "-1", "1.5", ""] {
            assert_eq!(asked(text), None, "{text}");
        }
    }

    #[test]
    fn pauses_grow_and_differ_within_bounds() {
        let world = World::default();
        for made in 1..40 {
            let attempts = Attempts { world: &world, made };
            let most = world.backoff.saturating_mul(1 << (made - 1).min(16)).min(REGISTRY_BACKOFF_MAX);
            for _ in 0..20 {
                let pause = attempts.backoff();
                assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            }
        }
    }
}
