// SPDX-License-Identifier: Apache-2.0
//! Finds and kills every descendant of a supervisor, through `/proc`.
//!
//! A scan of `/proc` is not one instant, so one clean scan proves nothing: the proof is that the supervisor ends, which
//! it does when nothing is left below it. Rounds of killing go on until then, or until their time is up.

use std::collections::{HashMap, HashSet};
use std::fs::{File, read_dir};
use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::limits::{KILL_ROUND_WAIT, KILL_WAIT};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::log;
use crate::reaper::{Gone, Reaper, Supervisor};

/// A process that no later one with the same number is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pid: i32,
    /// When it started, in clock ticks since the machine did.
    start: u64,
}

struct Entry {
    parent: i32,
    start: u64,
    dead: bool,
}

/// The processes as one scan saw them.
struct Snapshot {
    entries: HashMap<i32, Entry>,
}

/// Kills everything below a supervisor, however it forks meanwhile; the supervisor ends by that.
///
/// If somebody killed the supervisor, what was below it is below us now, together with what else was orphaned so; all
/// of that is killed.
pub(crate) async fn kill_all(supervisor: &mut Supervisor, reaper: &Reaper) {
    let until = Instant::now() + KILL_WAIT;
    let mut struck = HashSet::new();
    while supervisor.how_gone().is_none() && Instant::now() < until {
        if strike(Snapshot::take().below(supervisor.pid()), &mut struck) > 0 {
            yield_now().await;
            continue;
        }
        // Somebody may have stopped it; it must run to reap.
        supervisor.signal(Signal::SIGCONT);
        let _ = timeout(KILL_ROUND_WAIT, supervisor.gone()).await;
    }
    if supervisor.how_gone().is_none() {
        log::note("a process tree does not die; its supervisor is killed");
        supervisor.signal(Signal::SIGKILL);
        let _ = timeout(KILL_WAIT, supervisor.gone()).await;
    }
    if supervisor.how_gone() == Some(Gone::Killed) {
        kill_orphans(reaper).await;
    }
}

/// Kills every child of ours that is no supervisor, and all below it.
async fn kill_orphans(reaper: &Reaper) {
    let until = Instant::now() + KILL_WAIT;
    let mut struck = HashSet::new();
    while Instant::now() < until {
        let snapshot = Snapshot::take();
        let orphans = snapshot.orphans(reaper);
        if orphans.is_empty() {
            return;
        }
        strike(orphans, &mut struck);
        let _ = timeout(KILL_ROUND_WAIT, reaper.reaped()).await;
    }
    log::note("some orphaned processes do not die");
}

/// Kills all of them; returns how many of them were never struck before.
fn strike(targets: Vec<Identity>, struck: &mut HashSet<Identity>) -> usize {
    let mut fresh = 0;
    for target in targets {
        // It may be gone since the scan, and that is what we want.
        let _ = kill(Pid::from_raw(target.pid), Signal::SIGKILL);
        fresh += usize::from(struck.insert(target));
    }
    fresh
}

impl Identity {
    /// Finds out who has this number now; `None` when nobody has.
    pub(crate) fn of(pid: i32) -> Option<Identity> {
        read_entry(pid).map(|entry| Identity { pid, start: entry.start })
    }

    /// Sends a signal, if it still exists.
    pub(crate) fn signal(self, signal: Signal) {
        if Identity::of(self.pid) == Some(self) {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

impl Snapshot {
    fn take() -> Snapshot {
        let numbers = read_dir("/proc").into_iter().flatten().flatten();
        let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        Snapshot { entries: pids.filter_map(|pid| Some((pid, read_entry(pid)?))).collect() }
    }

    /// Returns the living descendants of a process, without itself.
    fn below(&self, root: i32) -> Vec<Identity> {
        self.living_in(self.children_of(&[root]))
    }

    /// Returns our living children that are no supervisors, and their descendants.
    fn orphans(&self, reaper: &Reaper) -> Vec<Identity> {
        let mut children = self.children_of(&[1]);
        children.retain(|pid| !reaper.watches(*pid));
        self.living_in(children)
    }

    fn living_in(&self, mut generation: Vec<i32>) -> Vec<Identity> {
        let mut living = Vec::new();
        // Parents form a tree, but a scan takes time and numbers come again: no one is visited twice.
        let mut seen: HashSet<i32> = generation.iter().copied().collect();
        while !generation.is_empty() {
            let entries = generation.iter().filter_map(|pid| Some((*pid, self.entries.get(pid)?)));
            living.extend(entries.filter(|(_, e)| !e.dead).map(|(pid, e)| Identity { pid, start: e.start }));
            generation = self.children_of(&generation);
            generation.retain(|pid| seen.insert(*pid));
        }
        living
    }

    fn children_of(&self, parents: &[i32]) -> Vec<i32> {
        let children = self.entries.iter().filter(|(_, entry)| parents.contains(&entry.parent));
        children.map(|(pid, _)| *pid).collect()
    }
}

fn read_entry(pid: i32) -> Option<Entry> {
    let mut text = Vec::with_capacity(512);
    File::open(format!("/proc/{pid}/stat")).ok()?.take(4096).read_to_end(&mut text).ok()?;
    parse_entry(&text)
}

/// Reads `pid (name) state ppid … starttime …`; the name is the program's choice and may hold anything.
fn parse_entry(text: &[u8]) -> Option<Entry> {
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(text.get(after_name..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 22nd field of all, the first after the name being the third.
    let start = fields.nth(17)?.parse().ok()?;
    Some(Entry { parent, start, dead: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(entries: &[(i32, i32, bool)]) -> Snapshot {
        let entry = |&(pid, parent, dead): &(i32, i32, bool)| (pid, Entry { parent, start: 7, dead });
        Snapshot { entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn a_name_full_of_parentheses_and_newlines_does_not_confuse() {
        let text = b"12 (a) Z 1 (\n) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 1\n";
        let entry = parse_entry(text).unwrap();
        assert_eq!((entry.parent, entry.start, entry.dead), (7, 4711, false));
        assert!(parse_entry(b"12 (a").is_none());
        assert!(parse_entry(b"12 (a) S 1").is_none());
    }

    #[test]
    fn descendants_are_found_below_the_dead_and_none_beside_them() {
        let snapshot = snapshot(&[(1, 0, false), (5, 1, false), (6, 5, true), (4, 6, false), (9, 1, false)]);
        let pids: HashSet<i32> = snapshot.below(5).iter().map(|identity| identity.pid).collect();
        assert_eq!(pids, HashSet::from([4]));
    }

    #[test]
    fn a_circle_of_reused_numbers_ends() {
        assert_eq!(snapshot(&[(5, 6, false), (6, 5, false)]).below(5).len(), 2);
    }

    #[test]
    fn this_process_is_found_under_its_own_identity() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Identity::of(pid).unwrap(), Identity::of(pid).unwrap());
        assert!(Snapshot::take().entries.contains_key(&pid));
    }
}
