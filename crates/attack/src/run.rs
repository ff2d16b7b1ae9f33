// SPDX-License-Identifier: Apache-2.0
//! Tries lines one after the other, each in a process of its own.

use std::io::{self, Read, Write};
use std::path::Path;

use attack::line::{Control, Line, Probe};
use attack::{Answer, Finding, list};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::attempt::{Argument, Call, Outcome, attempt, exit_copy, fork};
use sys::namespace::Fork;

use crate::{acts, say};

/// How long a line of calls may take, in seconds.
const CALLS_SECONDS: u32 = 5;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// On which side of the wall this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// In a sandbox.
    Inside,
    /// In the control's own kernel namespaces, without a wall.
    Outside,
}

/// Tries the lines with these ids, in the list's order, and prints a finding for each.
pub(crate) fn run(ids: &[&str], place: Where) -> io::Result<()> {
    for line in list().iter().filter(|line| ids.contains(&line.id.as_str())) {
        let answer = match place {
            Where::Inside => inside(line),
            Where::Outside => outside(line),
        };
        if let Some(answer) = answer {
            let finding = Finding { id: line.id.clone(), answer };
            say(&serde_json::to_string(&finding).map_err(io::Error::from)?)?;
        }
    }
    Ok(())
}

fn inside(line: &Line) -> Option<Answer> {
    match &line.probe {
        Probe::Calls(calls) => Some(answer(attempt(calls, CALLS_SECONDS), 0)),
        Probe::Act(act) => Some(alone(|| acts::act(*act))),
        Probe::Scene(_) => None,
    }
}

fn outside(line: &Line) -> Option<Answer> {
    if let Some(path) = line.needs.filter(|path| !Path::new(path).exists()) {
        return Some(Answer::Unable(format!("this host has no {path}")));
    }
    match (&line.control, &line.probe) {
        (Control::Calls(calls, _), _) | (Control::Same(_), Probe::Calls(calls)) => {
            let own = in_own_mounts(calls);
            Some(answer(attempt(&own, CALLS_SECONDS), 1))
        }
        (Control::Same(_), Probe::Act(act)) => Some(alone(|| acts::act(*act))),
        (Control::Same(_) | Control::Within | Control::Needless(_), _) => None,
    }
}

/// Puts a call before others that gives them a mount namespace, so that no line changes what the next one finds.
fn in_own_mounts(calls: &[Call]) -> Vec<Call> {
    let number = libc::CLONE_NEWNS.cast_unsigned();
    let unshare = attack::abi::call(libc::SYS_unshare, [Argument::Word(number.into())]);
    let later = calls
        .iter()
        .map(|call| Call { arguments: call.arguments.iter().map(one_later).collect(), ..call.clone() });
    std::iter::once(unshare).chain(later).collect()
}

fn one_later(argument: &Argument) -> Argument {
    match argument {
        Argument::Result(of) => Argument::Result(of + 1),
        Argument::List(members) => Argument::List(members.iter().map(one_later).collect()),
        Argument::Word(_) | Argument::Bytes(_) => argument.clone(),
    }
}

/// Returns the answer of an attempt whose first `own` calls were ours.
pub(crate) fn answer(outcome: io::Result<Outcome>, own: usize) -> Answer {
    match outcome {
        Ok(Outcome::Killed(signal)) => Answer::Killed(signal),
        Ok(Outcome::Returned(results)) => match results.last() {
            Some(last) if results.len() > own => match i32::try_from(-last) {
                Ok(number @ 1..=4095) => Answer::Error(number),
                _ => Answer::Returned(*last),
            },
            _ => Answer::Unable("its own mount namespace could not be made".to_owned()),
        },
        Err(error) => Answer::Unable(error.to_string()),
    }
}

/// Does something in a process of its own: it may be killed for it.
fn alone(act: impl FnOnce() -> Answer) -> Answer {
    let tried = || -> io::Result<Answer> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = match fork()? {
            Fork::Child => {
                drop(reader);
                let text = serde_json::to_vec(&act()).unwrap_or_default();
                let code = i32::from(std::fs::File::from(writer).write_all(&text).is_err());
                exit_copy(code)
            }
            Fork::Parent(child) => child,
        };
        drop(writer);
        let mut text = Vec::new();
        std::fs::File::from(reader).take(ANSWER_BYTES_MAX).read_to_end(&mut text)?;
        let status = waitpid(Pid::from_raw(child), None)?;
        if let WaitStatus::Signaled(_, signal, _) = status {
            return Ok(Answer::Killed(signal as i32));
        }
        serde_json::from_slice(&text).map_err(io::Error::from)
    };
    tried().unwrap_or_else(|error| Answer::Unable(error.to_string()))
}
