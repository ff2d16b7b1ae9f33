// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: measures against what others need for the same, in the same run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::{Map, Value};

use crate::build::{self, Profile, Scope};
use crate::server::Server;
use crate::workspace::{Workspace, require_root};
use crate::{process, setup};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bench {
    /// Sandboxes through the SDK, against the bare interpreter.
    Start,
    /// An image from a registry, against skopeo and umoci.
    Pull,
    /// An empty sandbox, against a minimal C program that builds the same walls.
    Walls,
    /// A run beside a busy sandbox, against one beside an idle sandbox.
    Neighbour,
    /// What is left after many starts and stops.
    Cycles,
}

const BENCHES: [Bench; 5] = [Bench::Start, Bench::Pull, Bench::Walls, Bench::Neighbour, Bench::Cycles];

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Bench::Start => "start",
            Bench::Pull => "pull",
            Bench::Walls => "walls",
            Bench::Neighbour => "neighbour",
            Bench::Cycles => "cycles",
        }
    }

    fn parse(name: &str) -> Result<Bench> {
        let names = BENCHES.map(Bench::name).join(", ");
        let found = BENCHES.into_iter().find(|bench| bench.name() == name);
        found.with_context(|| format!("no benchmark is called {name:?}; there are {names}"))
    }
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options<'a> {
    profile: Profile,
    only: Option<Bench>,
    count: Option<&'a str>,
    json: Option<&'a str>,
}

/// Builds, and runs the benchmarks.
pub(crate) fn run(workspace: &Workspace, options: &[String]) -> Result<()> {
    let options = read(options)?;
    require_root("bench")?;
    setup::run(workspace)?;
    if options.only.is_none_or(|only| only == Bench::Pull) {
        setup::for_pull_bench()?;
    }
    build::programs(workspace, options.profile, Scope::Programs)?;
    let mut found = Map::new();
    for bench in BENCHES.into_iter().filter(|bench| options.only.is_none_or(|only| only == *bench)) {
        println!("\n== {} ==", bench.name());
        let json = match bench {
            Bench::Start => start(workspace, options.profile)?,
            Bench::Pull | Bench::Walls | Bench::Neighbour => own_servers(workspace, &options, bench, &[])?,
            Bench::Cycles => {
                let count = options.count.map(|count| ["--count", count]);
                own_servers(workspace, &options, bench, count.as_ref().map_or(&[], |words| words))?
            }
        };
        let text = fs::read_to_string(json)?;
        found
            .insert(bench.name().to_owned(), serde_json::from_str(&text).context("cannot read the numbers")?);
    }
    match options.json {
        Some(file) => Ok(fs::write(Path::new(file), format!("{:#}\n", Value::Object(found)))?),
        None => Ok(()),
    }
}

/// Returns the file with the numbers.
fn start(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let server = Server::start(workspace, profile, "bench")?;
    let json = workspace.target.join("bench-start.json");
    let mut command = workspace.python_program("python");
    command.arg("e2e/bench.py").env("MSB_SERVER_URL", &server.url).env_remove("MSB_API_KEY");
    process::run(command.arg("--json").arg(&json))?;
    server.end()?;
    Ok(json)
}

/// Runs a benchmark that starts what it measures; returns the file with the numbers.
fn own_servers(
    workspace: &Workspace,
    options: &Options<'_>,
    bench: Bench,
    arguments: &[&str],
) -> Result<PathBuf> {
    let json = workspace.target.join(format!("bench-{}.json", bench.name()));
    let mut command = workspace.python_program("python");
    command.arg(format!("e2e/bench_{}.py", bench.name())).args(arguments);
    command.env("CARGO_TARGET_DIR", &workspace.target).env("MSB_PROFILE", options.profile.folder());
    process::run(command.arg("--json").arg(&json))?;
    Ok(json)
}

fn read(options: &[String]) -> Result<Options<'_>> {
    let mut read = Options { profile: Profile::Release, only: None, count: None, json: None };
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "--release" => read.profile = Profile::Release,
            "--dev" => read.profile = Profile::Dev,
            "--only" => read.only = Some(Bench::parse(options.next().context("--only needs a name")?)?),
            "--count" => read.count = Some(options.next().context("--count needs a number of cycles")?),
            "--json" => read.json = Some(options.next().context("--json needs a file")?),
            other => {
                bail!(
                    "unknown option {other:?}; there are --only NAME, --count N, --json FILE, --release and --dev"
                )
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let refused = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            read(&options).unwrap_err().to_string()
        };
        assert_eq!(
            read(&[]).unwrap(),
            Options { profile: Profile::Release, only: None, count: None, json: None }
        );
        let options = ["--dev", "--only", "cycles", "--count", "200", "--json", "x"].map(str::to_owned);
        let wanted =
            Options { profile: Profile::Dev, only: Some(Bench::Cycles), count: Some("200"), json: Some("x") };
        assert_eq!(read(&options).unwrap(), wanted);
        assert!(refused(&["--json"]).contains("needs a file"));
        assert!(refused(&["--only", "stop"]).contains("there are start, pull, walls, neighbour, cycles"));
        assert!(refused(&["--fast"]).contains("--only NAME"));
    }
}
