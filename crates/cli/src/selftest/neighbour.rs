// SPDX-License-Identifier: Apache-2.0
//! Another sandbox, which must go on answering whatever happens beside it.

use std::time::{Duration, Instant};

use super::client::{CallError, Client};
use super::error::SelftestError;

/// Its name.
pub(crate) const NAME: &str = "neighbour";
/// How many answers say how long one takes when nothing else happens.
const IDLE_ASKS: usize = 25;
/// How many answers are waited for after a group.
const ASKS: usize = 9;
/// How much longer than that an answer may take.
pub(crate) const SLOWER_MAX: u32 = 10;
/// How long a command of the neighbour may take, in seconds.
const SECONDS: u64 = 20;

/// The neighbour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    client: Client,
    idle: Duration,
}

impl Neighbour {
    /// Measures how long its answer takes while nothing else happens; it must have been started.
    pub(crate) fn measure(client: Client) -> Result<Neighbour, SelftestError> {
        let sandbox = |error: CallError| SelftestError::Sandbox(error.to_string());
        let fresh = Neighbour { client, idle: Duration::ZERO };
        // The first ones find cold caches.
        fresh.middle_of(3).map_err(sandbox)?;
        let idle = fresh.middle_of(IDLE_ASKS).map_err(sandbox)?;
        Ok(Neighbour { idle, ..fresh })
    }

    /// The middle of the times that an answer takes when nothing else happens.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Says what is wrong with its answers, if something is.
    pub(crate) fn complaint(&self) -> Option<String> {
        match self.middle_of(ASKS) {
            Ok(now) if now <= self.idle * SLOWER_MAX => None,
            Ok(now) => {
                let (now, idle) = (now.as_secs_f64() * 1000.0, self.idle.as_secs_f64() * 1000.0);
                Some(format!("the neighbour answers in {now:.1} ms, and in {idle:.1} ms when idle"))
            }
            Err(error) => Some(format!("the neighbour does not answer: {error}")),
        }
    }

    /// Asks several times and returns the middle one of the times.
    fn middle_of(&self, asks: usize) -> Result<Duration, CallError> {
        let mut times = Vec::with_capacity(asks);
        for _ in 0..asks {
            let began = Instant::now();
            let ran = self.client.command(NAME, &["/msb-probe", "hello"], SECONDS)?;
            if ran.output != "hello" {
                return Err(std::io::Error::other(format!("it says {:?}", ran.output)).into());
            }
            times.push(began.elapsed());
        }
        times.sort_unstable();
        Ok(times[asks / 2])
    }
}
