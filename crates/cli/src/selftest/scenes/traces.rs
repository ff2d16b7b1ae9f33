// SPDX-License-Identifier: Apache-2.0
//! What one sandbox leaves where another one looks.

use std::collections::BTreeMap;
use std::io;

use attack::line::Trace;
use attack::{Answer, Finding};

use super::{PROBE, Played, SECONDS, Stage};
use crate::selftest::client::CallError;
use crate::selftest::neighbour;

/// The sandbox that leaves things.
const LEAVER: &str = "leaver";

/// What was found, by trace: in the sandbox that left it, and in the one that looks.
type Found = BTreeMap<String, (Answer, Answer)>;

/// Looks that were done: each leaves and looks for all traces at once.
#[derive(Default)]
pub(super) struct Traces {
    of_neighbour: Option<Result<Found, String>>,
    of_predecessor: Option<Result<Found, String>>,
}

impl Stage<'_> {
    /// Says whether a neighbour's trace is found.
    pub(super) fn of_neighbour(&mut self, trace: Trace) -> Played {
        if self.traces.of_neighbour.is_none() {
            self.traces.of_neighbour = Some(self.beside().map_err(|error| error.to_string()));
        }
        answer(self.traces.of_neighbour.as_ref(), trace)
    }

    /// Says whether a trace of the sandbox of the same name before is found.
    pub(super) fn of_predecessor(&mut self, trace: Trace) -> Played {
        if self.traces.of_predecessor.is_none() {
            self.traces.of_predecessor = Some(self.one_after_the_other().map_err(|error| error.to_string()));
        }
        answer(self.traces.of_predecessor.as_ref(), trace)
    }

    fn beside(&self) -> Result<Found, CallError> {
        let left = self.leave();
        let own = self.find_all(LEAVER);
        let others = self.find_all(neighbour::NAME);
        self.client.stop(LEAVER)?;
        left?;
        Ok(joined(own?, others?))
    }

    fn one_after_the_other(&self) -> Result<Found, CallError> {
        let left = self.leave();
        let own = self.find_all(LEAVER);
        self.client.stop(LEAVER)?;
        left?;
        self.client.start(LEAVER, &self.ground.config())?;
        let others = self.find_all(LEAVER);
        self.client.stop(LEAVER)?;
        Ok(joined(own?, others?))
    }

    fn leave(&self) -> Result<(), CallError> {
        self.client.start(LEAVER, &self.ground.config())?;
        let ran = self.client.command(LEAVER, &[PROBE, "leave"], SECONDS)?;
        if ran.output == "left" { Ok(()) } else { Err(io::Error::other(ran.error).into()) }
    }

    fn find_all(&self, name: &str) -> Result<BTreeMap<String, Answer>, CallError> {
        let mut found = BTreeMap::new();
        for trace in Trace::ALL {
            let ran = self.client.command(name, &[PROBE, "find", &word(trace)], SECONDS)?;
            let finding: Finding = serde_json::from_str(&ran.output).map_err(io::Error::from)?;
            found.insert(finding.id, finding.answer);
        }
        Ok(found)
    }
}

fn word(trace: Trace) -> String {
    serde_json::to_value(trace).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn joined(own: BTreeMap<String, Answer>, mut others: BTreeMap<String, Answer>) -> Found {
    own.into_iter()
        .filter_map(|(name, answer)| Some((name.clone(), (answer, others.remove(&name)?))))
        .collect()
}

fn answer(found: Option<&Result<Found, String>>, trace: Trace) -> Played {
    let unable = |why: &str| Played::Answered(Answer::Unable(why.to_owned()), None);
    match found {
        Some(Ok(found)) => match found.get(&word(trace)) {
            Some((own, others)) => Played::Answered(others.clone(), Some(own.clone())),
            None => unable("nothing was found out"),
        },
        Some(Err(error)) => unable(error),
        None => unable("nobody looked"),
    }
}
