// SPDX-License-Identifier: Apache-2.0
//! `msb selftest`: the attack list, tried on this host against a server of its own.

mod client;
mod error;
mod ground;
mod lines;
mod neighbour;
mod report;
mod scenes;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use attack::{Answer, Group, Line, Probe, list};

pub(crate) use self::error::SelftestError;
use self::ground::Ground;
use self::neighbour::Neighbour;
use self::report::{Entry, Report, row};
use self::scenes::{Played, Stage};
use self::watch::Watch;
use crate::args::SelftestArgs;
use crate::failure::{self, Failure};
use crate::{interrupt, output, programs};

/// The sandbox that attacks.
const ATTACKER: &str = "attacker";

/// Tries the list and tells what came of it.
pub(crate) fn run(arguments: SelftestArgs) -> Result<(), Failure> {
    let programs = programs::find()?;
    let probe = programs::find_probe()?;
    let home = failure::made_home(arguments.home)?;
    // Before there are threads: they have the table of who starts them.
    attack::keep_mounts_apart().map_err(Failure::system("make a mount namespace"))?;
    let own = std::env::current_exe().map_err(Failure::system("find the program file of msb"))?;
    let watched = vec![own, programs.jail, programs.agent, probe.clone()];
    let ground = Arc::new(Ground::make(&home, probe)?);
    let wanted = Wanted { groups: arguments.group, quick: arguments.quick, json: arguments.json };
    let worked = {
        let ground = Arc::clone(&ground);
        let work = move || Ok(work(&ground, &watched, &wanted)?);
        interrupt::blocking_unless_interrupted(work, "nothing of the test is left")
    };
    watch::remove_canaries();
    let cleared = ground.clear();
    let report = worked?;
    cleared?;
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.summary())?;
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(SelftestError::Failed(failed).into()),
    }
}

/// What of the list is tried.
struct Wanted {
    groups: Vec<Group>,
    quick: bool,
    json: bool,
}

fn work(ground: &Ground, programs: &[PathBuf], wanted: &Wanted) -> Result<Report, SelftestError> {
    let began = Instant::now();
    for name in [ATTACKER, neighbour::NAME] {
        let started = ground.client.start(name, &ground.config());
        started.map_err(|error| SelftestError::Sandbox(error.to_string()))?;
    }
    let neighbour = Neighbour::measure(ground.client)?;
    let watch = Watch::begin(ground, programs)?;
    let mut stage = Stage::new(ground, neighbour);
    let all = list();
    let mut entries = Vec::new();
    for group in Group::ALL {
        let chosen = wanted.groups.is_empty() || wanted.groups.contains(&group);
        if !chosen || (wanted.quick && group == Group::Resources) {
            continue;
        }
        let lines: Vec<&Line> = all.iter().filter(|line| line.group == group).collect();
        if lines.is_empty() {
            continue;
        }
        let mut found = tried(ground, &mut stage, &lines)?;
        found.extend(looks(group, ground, &watch, &neighbour, &stage));
        if !wanted.json {
            show(group, &found);
        }
        entries.extend(found);
    }
    let idle_ms = neighbour.idle().as_secs_f64() * 1000.0;
    Ok(Report::new(entries, began.elapsed().as_secs(), idle_ms))
}

/// Tries the lines of a group.
fn tried(ground: &Ground, stage: &mut Stage<'_>, lines: &[&Line]) -> Result<Vec<Entry>, SelftestError> {
    stage.revive(ATTACKER)?;
    let probed: Vec<&Line> =
        lines.iter().copied().filter(|line| !matches!(line.probe, Probe::Scene(_))).collect();
    let inside = lines::inside(&ground.client, ATTACKER, &probed)?;
    let outside = lines::outside(ground, &probed)?;
    let mut entries = BTreeMap::new();
    for line in &probed {
        let answer = inside.get(&line.id).cloned();
        let answer = answer.unwrap_or_else(|| Answer::Unable("the probe says nothing".to_owned()));
        entries.insert(line.id.as_str(), Entry::judged(line, &answer, outside.get(&line.id)));
    }
    for line in lines {
        if let Probe::Scene(scene) = line.probe {
            let entry = match stage.play(scene) {
                Played::Answered(answer, control) => Entry::judged(line, &answer, control.as_ref()),
                Played::NotApplicable(why) => Entry::not_applicable(line, why),
            };
            entries.insert(line.id.as_str(), entry);
        }
    }
    Ok(lines.iter().filter_map(|line| entries.remove(line.id.as_str())).collect())
}

/// Looks at the server, the neighbour and the host after a group.
fn looks(
    group: Group,
    ground: &Ground,
    watch: &Watch,
    neighbour: &Neighbour,
    stage: &Stage<'_>,
) -> Vec<Entry> {
    let mut server = Vec::new();
    if !ground.server_is_there() {
        server.push("the server is gone".to_owned());
    }
    match ground.client.metrics() {
        Ok(running) if running == stage.running() => {}
        Ok(running) => server.push(format!("{running} sandboxes run instead of {}", stage.running())),
        Err(error) => server.push(error.to_string()),
    }
    let slow: Vec<String> = neighbour.complaint().into_iter().collect();
    let host = watch.changes(stage.running());
    vec![
        Entry::look(group, "server", "the server is alive and its sandboxes run", &server),
        Entry::look(group, "neighbour", "a neighbour answers as fast as before", &slow),
        Entry::look(group, "host", "processes, mounts, groups, files of the host are as before", &host),
    ]
}

fn show(group: Group, entries: &[Entry]) {
    use std::io::Write;
    let rows: Vec<String> = entries.iter().map(row).collect();
    // What cannot be shown is in the report at the end, or nobody is there to read.
    let _ = writeln!(std::io::stdout(), "{}\n{}\n", group.title(), rows.join("\n"));
}
