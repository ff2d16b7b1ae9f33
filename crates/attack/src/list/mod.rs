// SPDX-License-Identifier: Apache-2.0
//! The lines, a file for each part.

mod agent;
mod devices;
#[cfg(test)]
mod document;
mod entries;
mod kernel;
mod mounts;
mod namespaces;
mod proc_and_sys;
pub mod resources;
pub mod scenes;
mod sockets;

use nix::libc;
use sys::attempt::Call;

use crate::answer::Answer;
use crate::line::{Control, Group, Line, Probe, Wanted};

/// Returns the whole list, in the order in which it is tried.
pub fn list() -> Vec<Line> {
    let mut lines = Vec::new();
    lines.extend(mounts::lines());
    lines.extend(namespaces::lines());
    lines.extend(agent::lines());
    lines.extend(kernel::lines());
    lines.extend(sockets::lines());
    lines.extend(devices::lines());
    lines.extend(proc_and_sys::lines());
    lines.extend(resources::lines());
    lines.extend(scenes::lines());
    let others = entries::lines(&lines);
    lines.extend(others);
    // Lines of one group stay in their order.
    lines.sort_by_key(|line| line.group);
    lines
}

/// A line of calls that the wall refuses with `EPERM` at the first of them that it does not know, and that are done
/// outside.
fn refused(group: Group, id: &str, tries: &str, calls: impl Into<Vec<Call>>) -> Line {
    Line {
        id: id.to_owned(),
        group,
        tries: tries.to_owned(),
        probe: Probe::Calls(calls.into()),
        wall: Wanted::Is(Answer::Error(libc::EPERM)),
        control: Control::Same(Wanted::Done),
        needs: None,
    }
}

/// Changes to a line.
trait But: Sized {
    /// The wall answers this.
    fn wall(self, wall: Wanted) -> Self;
    /// The control must find this.
    fn outside(self, outside: Wanted) -> Self;
    /// The control makes these calls, and must find that.
    fn outside_by(self, calls: impl Into<Vec<Call>>, outside: Wanted) -> Self;
    /// There must be this path for the control.
    fn needs(self, path: &'static str) -> Self;

    /// The wall answers with this error.
    fn errno(self, number: i32) -> Self {
        self.wall(Wanted::Is(Answer::Error(number)))
    }

    /// The control gets past the look at rights, no further: it is a form that does no harm.
    fn harmless(self) -> Self {
        self.outside(Wanted::Reached)
    }
}

impl But for Line {
    fn wall(self, wall: Wanted) -> Line {
        Line { wall, ..self }
    }

    fn outside(self, outside: Wanted) -> Line {
        Line { control: Control::Same(outside), ..self }
    }

    fn outside_by(self, calls: impl Into<Vec<Call>>, outside: Wanted) -> Line {
        Line { control: Control::Calls(calls.into(), outside), ..self }
    }

    fn needs(self, path: &'static str) -> Line {
        Line { needs: Some(path), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sys::attempt::{ARGUMENTS_MAX, CALLS_MAX};

    use super::*;

    #[test]
    fn ids_are_names_and_none_is_there_twice() {
        let mut seen = BTreeSet::new();
        for line in list() {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(line.id.chars().all(fine) && line.id.len() < 64, "{}", line.id);
            assert!(!line.tries.is_empty() && line.tries.len() < 90, "{}: {}", line.id, line.tries);
            assert!(seen.insert(line.id.clone()), "{} is there twice", line.id);
        }
        assert!(seen.len() > 200, "{}", seen.len());
    }

    #[test]
    fn calls_fit_into_an_attempt() {
        for line in list() {
            let mut all = vec![];
            if let Probe::Calls(calls) = &line.probe {
                assert!(!calls.is_empty(), "{}", line.id);
                all.push(calls);
            }
            if let Control::Calls(calls, _) = &line.control {
                all.push(calls);
            }
            for calls in all {
                // One is added by a control, which gives each line a mount namespace of its own.
                assert!(calls.len() < CALLS_MAX, "{}", line.id);
                assert!(calls.iter().all(|call| call.arguments.len() <= ARGUMENTS_MAX), "{}", line.id);
            }
        }
    }

    #[test]
    fn no_line_passes_when_there_is_no_wall() {
        // What a call answers where nothing stands in its way must never be what a wall of refusals answers.
        for line in list() {
            if matches!(line.wall, Wanted::Is(Answer::Error(libc::EPERM))) {
                assert!(!line.wall.holds(&Answer::Returned(0)), "{}", line.id);
                match &line.control {
                    Control::Same(wanted) | Control::Calls(_, wanted) => {
                        assert!(!wanted.holds(&Answer::Error(libc::EPERM)), "{}", line.id);
                    }
                    Control::Within | Control::Needless(_) => {}
                }
            }
        }
    }
}
