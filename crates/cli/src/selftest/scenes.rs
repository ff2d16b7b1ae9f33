// SPDX-License-Identifier: Apache-2.0
//! Scenes: lines that take more than one command, or more than one sandbox.

mod files;
mod pressure;
mod traces;

use std::collections::BTreeSet;

use attack::list::scenes::HELD;
use attack::{Answer, Scene};
use serde_json::Value;

use super::ATTACKER;
use super::client::{CallError, Client, Ran};
use super::error::SelftestError;
use super::ground::Ground;
use super::neighbour::{self, Neighbour};

/// How long a command of a scene may take that ends by itself, in seconds.
const SECONDS: u64 = 120;
/// The program inside.
const PROBE: &str = "/msb-probe";

/// What a scene came to.
pub(crate) enum Played {
    /// It was played: the answer, and the control's if it has one.
    Answered(Answer, Option<Answer>),
    /// This server or host has nothing for it; the reason.
    NotApplicable(String),
}

/// Where scenes are played.
pub(crate) struct Stage<'a> {
    ground: &'a Ground,
    client: Client,
    neighbour: Neighbour,
    running: BTreeSet<String>,
    traces: traces::Traces,
}

/// Makes an answer of what a scene said.
fn said(played: Result<String, CallError>) -> Played {
    let answer = match played {
        Ok(text) => Answer::Said(text),
        Err(error) => Answer::Unable(error.to_string()),
    };
    Played::Answered(answer, None)
}

impl<'a> Stage<'a> {
    /// Takes over the attacker and the neighbour, which run.
    pub(crate) fn new(ground: &'a Ground, neighbour: Neighbour) -> Stage<'a> {
        let running = [ATTACKER, neighbour::NAME].map(str::to_owned).into();
        Stage { ground, client: ground.client, neighbour, running, traces: traces::Traces::default() }
    }

    /// How many sandboxes run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Starts a sandbox again if it does not answer.
    pub(crate) fn revive(&mut self, name: &str) -> Result<(), SelftestError> {
        if self.client.command(name, &[PROBE, "hello"], SECONDS).is_ok_and(|ran| ran.success) {
            return Ok(());
        }
        let broken = |error: CallError| SelftestError::Sandbox(error.to_string());
        let _ = self.client.stop(name);
        self.client.start(name, &self.ground.config()).map_err(broken)
    }

    /// Plays a scene.
    pub(crate) fn play(&mut self, scene: Scene) -> Played {
        let played = match scene {
            Scene::OfNeighbour(trace) => return self.of_neighbour(trace),
            Scene::Exhaust(thing) => return self.exhaust(thing),
            Scene::OfPredecessor(trace) => return self.of_predecessor(trace),
            Scene::FillDisk => return self.fill("disk_limit", "fill-disk"),
            Scene::FillInodes => return self.fill("inode_limit", "fill-inodes"),
            Scene::LinkedImage(path, to) => self.linked_image(path, to),
            Scene::Workdir(path) => self.workdir(path),
            Scene::OwnProgram => self.own_program(),
            Scene::Swap => self.removed("swap", 10_000),
            Scene::OddFiles => self.removed("odd-files", 0),
            Scene::DeepTree => self.removed("deep-tree", 3000),
            Scene::HugeDirectory => self.removed("huge-directory", 20_000),
            Scene::Bomb(kind) => self.pressed(&pressure::bomb(kind)),
            Scene::BusyLoops => self.pressed(&["busy", "8"]),
            Scene::SyncStorm => self.pressed(&["sync"]),
            Scene::PageCache => self.page_cache(),
            Scene::Stubborn => self.pressed(&["stubborn"]),
            Scene::Outlive => self.pressed(&["outlive"]),
        };
        said(played)
    }

    /// Runs the inside part of a scene.
    fn perform(&self, name: &str, part: &[&str], seconds: u64) -> Result<Ran, CallError> {
        let words: Vec<&str> = [PROBE, "play"].into_iter().chain(part.iter().copied()).collect();
        self.client.command(name, &words, seconds)
    }

    /// Runs the inside part of a scene that says one thing.
    fn told(&self, name: &str, part: &[&str]) -> Result<String, CallError> {
        let ran = self.perform(name, part, SECONDS)?;
        Ok(if ran.success { ran.output } else { format!("it failed: {} {}", ran.output, ran.error) })
    }

    /// Starts another sandbox for a moment, if the server does; a refusal is as good as a wall that held. It is one only
    /// where the plain sandbox is not refused.
    fn unless_refused(
        &mut self,
        config: &Value,
        act: impl FnOnce(&Stage<'_>, &str) -> Result<String, CallError>,
    ) -> Result<String, CallError> {
        match self.with_another(config, act) {
            Err(CallError::Refused(_)) => {
                let plain = self.ground.config();
                self.with_another(&plain, |stage, name| stage.told(name, &["layout"]))
            }
            ended => ended,
        }
    }

    /// Starts another sandbox for a moment; afterwards nothing of it may be left.
    fn with_another(
        &mut self,
        config: &Value,
        act: impl FnOnce(&Stage<'_>, &str) -> Result<String, CallError>,
    ) -> Result<String, CallError> {
        let name = "another";
        self.client.start(name, config)?;
        let acted = act(self, name);
        let stopped = self.client.stop(name);
        let acted = acted?;
        stopped?;
        Ok(self.left_on_disk().unwrap_or(acted))
    }

    /// Says what is left of sandboxes that were stopped.
    fn left_on_disk(&self) -> Option<String> {
        let folder = self.ground.home().join("sandboxes");
        let count = fs_err::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        (count > self.running.len())
            .then(|| format!("{count} sandboxes have files, and {} run", self.running.len()))
    }

    fn linked_image(&mut self, path: &str, to: &str) -> Result<String, CallError> {
        let image = self.ground.linked_image(path, to)?;
        let config = self.ground.config_of(&image);
        self.unless_refused(&config, |stage, name| stage.told(name, &["layout"]))
    }

    fn workdir(&mut self, path: &str) -> Result<String, CallError> {
        let mut config = self.ground.config();
        config["workdir"] = Value::from(path);
        // A command that is not started there is a wall too.
        self.unless_refused(&config, |stage, name| stage.told(name, &["cwd"]))
    }

    /// A command that is, at that moment, whoever starts commands: it must neither work nor harm.
    fn own_program(&mut self) -> Result<String, CallError> {
        for path in ["/proc/self/exe", "/proc/1/exe"] {
            match self.client.command(ATTACKER, &[path, "hello"], 10) {
                Ok(_) | Err(CallError::Refused(_)) => {}
                Err(broken) => return Err(broken),
            }
        }
        let said = self.client.command(ATTACKER, &[PROBE, "hello"], SECONDS)?.output;
        Ok(if said == "hello" { HELD.to_owned() } else { format!("then it says {said:?}") })
    }
}
