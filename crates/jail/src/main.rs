// SPDX-License-Identifier: Apache-2.0
//! `msb-jail`: reads a [`Plan`] on standard input, builds the walls and becomes the agent inside them.
//!
//! Two processes take part. The *outer* one is real root and stays in the host's kernel namespaces: it opens what only
//! the host can open, forks the *inner* one into new kernel namespaces, maps its ids and hands it the finished overlay
//! mounts. The inner one arranges them, gives up everything it does not need and executes the agent by descriptor.
//!
//! ```text
//! outer (host, root)                 inner (new user, mount, pid, net, ipc, uts)
//!   takes its rights
//!   open socket, agent, cgroups
//!   clone3 ─────────────────────────▶ waits
//!   write its id maps
//!   overlay mounts, idmapped layers
//!   send their descriptors ─────────▶ enters the cgroups, becomes root inside
//!   exits                             mounts, masks, pivot_root
//!                                     limits, capabilities, no_new_privs, landlock, seccomp
//!                                     execveat(agent)
//! ```
//!
//! Where there is no real root, the outer process first makes a user namespace of its own and is root of that
//! ([`own_root`]); the sandbox's is then below it.
//!
//! `msb-jail --probe DIRECTORY` builds nothing and says what of this works on this host; `msb-jail --remove DIRECTORY`
//! removes what a sandbox wrote. Both read on standard input with whose rights they shall.

mod confine;
mod error;
mod handoff;
mod inner;
mod layers;
mod outer;
mod own_root;
mod probe;
mod volume;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use jail::plan::{PLAN_BYTES_MAX, Plan};
use jail::report::Report;
use jail::rights::Rights;

use crate::error::{Act, JailError};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(option), None) if option == "--version" => {
            return say(concat!("msb-jail ", env!("CARGO_PKG_VERSION")));
        }
        (Some(option), Some(directory)) if option == "--probe" => {
            let facts = read_rights().map(|rights| probe::facts(Path::new(&directory), &rights));
            let text = facts.map(|facts| serde_json::to_string(&facts).unwrap_or_default());
            return text.map_or_else(|error| end(Err(error)), |text| say(&text));
        }
        (Some(option), Some(directory)) if option == "--remove" => return end(remove(Path::new(&directory))),
        _ => {}
    }
    end(read_plan().and_then(|plan| outer::run(&plan)))
}

/// Removes a directory and all below it, whoever's it is.
fn remove(directory: &Path) -> Result<(), JailError> {
    own_root::take(&read_rights()?)?;
    jail::remove::remove_tree(directory).act(|| format!("remove {}", directory.display()))
}

fn end(done: Result<(), JailError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(JailError::Abandoned) => ExitCode::FAILURE,
        Err(error) => {
            report(&Report::Failed { step: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_rights() -> Result<Rights, JailError> {
    serde_json::from_slice(&read_input()?).map_err(|error| JailError::Plan(error.to_string()))
}

fn read_plan() -> Result<Plan, JailError> {
    let text = read_input()?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|error| JailError::Plan(error.to_string()))?;
    if plan.overlays.first().is_none_or(|overlay| overlay.at != "/") {
        return Err(JailError::Plan("its first overlay is not /".to_owned()));
    }
    Ok(plan)
}

fn read_input() -> Result<Vec<u8>, JailError> {
    let mut text = Vec::new();
    let limit = PLAN_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|error| JailError::Plan(error.to_string()))?;
    if text.len() > PLAN_BYTES_MAX {
        return Err(JailError::Plan(format!("it is longer than {PLAN_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Says something to the server. A server that is gone hears nothing, and then nobody needs the report.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
