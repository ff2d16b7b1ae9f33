// SPDX-License-Identifier: Apache-2.0
//! Pressure: one sandbox takes what it can, and a neighbour must hardly notice.

use attack::line::{Kind, Thing};
use attack::list::scenes::HELD;
use attack::{Answer, Finding};

use super::{Played, Stage, said};
use crate::selftest::ATTACKER;
use crate::selftest::client::CallError;
use crate::selftest::neighbour;

/// How long an attack goes on until its time is up, in seconds.
const ATTACK_SECONDS: u64 = 4;
/// The disk of the sandbox that fills it, in MiB.
const DISK_MIB: u32 = 64;
/// How much is tried to write, in MiB.
const WRITTEN_MIB: u32 = 128;
/// How many files are tried to make.
const FILES: u32 = 400_000;
/// How much file cache is made, in MiB.
const CACHE_MIB: u32 = 768;

/// The words for a bomb.
pub(super) fn bomb(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Forks => ["bomb", "forks"],
        Kind::Threads => ["bomb", "threads"],
        Kind::Daemons => ["bomb", "daemons"],
    }
}

impl Stage<'_> {
    /// Lets the attacker do something for ever, until its time is up, and asks the neighbour meanwhile. Afterwards
    /// nothing of it may run, and the attacker's own sandbox must answer.
    pub(super) fn pressed(&mut self, part: &[&str]) -> Result<String, CallError> {
        let before = self.told(ATTACKER, &["count"])?;
        let (ended, complaint) = std::thread::scope(|scope| {
            let attack = scope.spawn(|| self.perform(ATTACKER, part, ATTACK_SECONDS));
            let complaint = self.neighbour.complaint();
            let ended = attack.join();
            (ended.unwrap_or_else(|_| Err(std::io::Error::other("the thread ended").into())), complaint)
        });
        match ended {
            Err(CallError::Refused(refusal)) if refusal.timed_out => {}
            // The kernel may have killed what held the bomb together.
            Ok(ran) if ran.signal.is_some() => {}
            Ok(ran) => return Ok(format!("the attack ended by itself: {} {}", ran.output, ran.error)),
            Err(error) => return Err(error),
        }
        if let Some(complaint) = complaint {
            return Ok(complaint);
        }
        let after = self.told(ATTACKER, &["count"])?;
        Ok(if after == before {
            HELD.to_owned()
        } else {
            format!("{before} processes ran in it before, and {after} afterwards")
        })
    }

    /// Lets a sandbox hold all it can get of something; the neighbour must get some still.
    pub(super) fn exhaust(&mut self, thing: Thing) -> Played {
        let word = match thing {
            Thing::Files => "files",
            Thing::Watchers => "watchers",
            Thing::Timers => "timers",
            Thing::Queues => "queues",
        };
        match self.told(neighbour::NAME, &["need", word]) {
            Ok(before) if before == HELD => {}
            Ok(before) if before.starts_with("it got 0 ") => {
                return Played::NotApplicable(format!("this server gives sandboxes no {word} at all"));
            }
            Ok(before) => return said(Ok(format!("nobody held any {word}, and {before}"))),
            Err(error) => return said(Err(error)),
        }
        let config = self.ground.config();
        let exhausted = self.with_another(&config, |stage, name| {
            let held = stage.told(name, &["hold", word])?;
            if held != HELD {
                return Ok(held);
            }
            let found = stage.told(neighbour::NAME, &["need", word])?;
            Ok(match (found == HELD, host_has_none(thing)) {
                (true, false) => found,
                (true, true) => format!("one sandbox holds all {word}, and the host gets none"),
                (false, false) => format!("one sandbox holds all {word}; of its neighbour: {found}"),
                (false, true) => {
                    format!("one sandbox holds all {word}, and the host gets none; of its neighbour: {found}")
                }
            })
        });
        said(exhausted)
    }

    pub(super) fn page_cache(&mut self) -> Result<String, CallError> {
        let amount = CACHE_MIB.to_string();
        let (told, complaint) = std::thread::scope(|scope| {
            let attack = scope.spawn(|| self.told(ATTACKER, &["page-cache", &amount]));
            let complaint = self.neighbour.complaint();
            let ended = attack.join();
            (ended.unwrap_or_else(|_| Err(std::io::Error::other("the thread ended").into())), complaint)
        });
        Ok(complaint.unwrap_or(told?))
    }

    /// Lets a sandbox fill its disk, where the server says that there is a limit.
    pub(super) fn fill(&mut self, protection: &str, part: &str) -> Played {
        match self.client.protection(ATTACKER, protection) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Played::NotApplicable(why),
            Err(error) => return Played::NotApplicable(error.to_string()),
        }
        let mut config = self.ground.config();
        config["disk"] = DISK_MIB.into();
        let amount = if protection == "disk_limit" { WRITTEN_MIB } else { FILES }.to_string();
        let filled = self.with_another(&config, |stage, name| {
            let text = stage.told(name, &[part, &amount])?;
            let complaint = stage.neighbour.complaint();
            Ok(complaint.unwrap_or_else(|| refused_at_limit(&text)))
        });
        said(filled)
    }
}

/// Says whether this process, which is root of the host, gets none of something.
fn host_has_none(thing: Thing) -> bool {
    use rustix::fs::inotify::{CreateFlags, init};
    match thing {
        Thing::Files => std::fs::File::open("/dev/null").is_err(),
        Thing::Watchers => init(CreateFlags::CLOEXEC).is_err(),
        // What counts for these, counts for the others.
        Thing::Timers | Thing::Queues => false,
    }
}

/// Says whether a disk was full.
fn refused_at_limit(text: &str) -> String {
    use rustix::io::Errno;
    let full = [Errno::DQUOT, Errno::NOSPC].map(|errno| Answer::Error(errno.raw_os_error()));
    match serde_json::from_str::<Finding>(text) {
        Ok(finding) if full.contains(&finding.answer) => HELD.to_owned(),
        Ok(finding) => format!("the limit is not there: {}", finding.answer),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_is_a_limit_that_held() {
        let text = |answer: Answer| serde_json::to_string(&Finding { id: "play".into(), answer }).unwrap();
        assert_eq!(refused_at_limit(&text(Answer::Error(122))), HELD);
        assert_eq!(refused_at_limit(&text(Answer::Error(28))), HELD);
        assert!(refused_at_limit(&text(Answer::Returned(384))).contains("not there"));
        assert_eq!(refused_at_limit("it failed: x"), "it failed: x");
    }
}
