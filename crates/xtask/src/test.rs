// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: every kind of test, each named with its result.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile, Scope};
use crate::summary::{self, Counts};
use crate::workspace::{Workspace, require_root};
use crate::{check, guest, process, setup};

/// Why single tests may be skipped: the kind, and words that the skipped test must give as its reason.
///
/// Anything else that is skipped makes its kind fail. What `check` may lack is listed there.
const MAY_BE_MISSING: &[(Kind, &str)] = &[];

/// A kind of test, in the order in which they are run: the cheap ones that judge most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Check,
    Rust,
    Drivers,
    Sdk,
    E2e,
    V2guest,
}

const KINDS: [Kind; 6] = [Kind::Check, Kind::Rust, Kind::Drivers, Kind::Sdk, Kind::E2e, Kind::V2guest];
/// The word for all of them, the one that emulates a machine included.
const ALL: &str = "all";

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Check => "check",
            Kind::Rust => "rust",
            Kind::Drivers => "drivers",
            Kind::Sdk => "sdk",
            Kind::E2e => "e2e",
            Kind::V2guest => "v2guest",
        }
    }

    fn parse(name: &str) -> Result<Kind> {
        let names = KINDS.map(Kind::name).join(", ");
        let found = KINDS.into_iter().find(|kind| kind.name() == name);
        found.with_context(|| format!("no kind of test is called {name:?}; there are {names}, {ALL}"))
    }

    /// Finds the kinds that are meant; where none is named, all but the one that takes minutes to emulate a machine.
    fn choose(names: &[String]) -> Result<Vec<Kind>> {
        match names {
            [] => Ok(KINDS.into_iter().filter(|kind| *kind != Kind::V2guest).collect()),
            [name] if name == ALL => Ok(KINDS.to_vec()),
            names => names.iter().map(|name| Kind::parse(name)).collect(),
        }
    }

    /// Says whether real walls are built.
    fn needs_root(self) -> bool {
        self.needs_programs()
    }

    /// Says whether the programs must be there.
    fn needs_programs(self) -> bool {
        matches!(self, Kind::Rust | Kind::E2e | Kind::V2guest)
    }
}

/// What came of one kind.
struct Row {
    name: &'static str,
    counts: Counts,
    seconds: u64,
    notes: Vec<String>,
}

/// Runs the kinds that are named.
pub(crate) fn run(workspace: &Workspace, names: &[String]) -> Result<()> {
    let kinds = Kind::choose(names)?;
    if kinds.iter().any(|kind| kind.needs_root()) {
        require_root("test")
            .context("drivers, sdk and check can be run without: cargo xtask test check drivers sdk")?;
    }
    setup::run(workspace)?;
    let mut rows = Vec::new();
    if kinds.iter().any(|kind| kind.needs_programs()) {
        let scope = if kinds.contains(&Kind::Rust) { Scope::Tests } else { Scope::Programs };
        rows.extend(failed_build(workspace, scope));
    }
    if rows.is_empty() {
        rows.extend(kinds.into_iter().map(|kind| row(workspace, kind)));
    }
    report(&rows)
}

/// Builds what is needed; a row only when that fails, since then nothing else can be run.
fn failed_build(workspace: &Workspace, scope: Scope) -> Option<Row> {
    let started = Instant::now();
    let error = build::programs(workspace, Profile::Dev, scope).err()?;
    let counts = Counts { failed: 1, ..Counts::default() };
    Some(Row {
        name: "build",
        counts,
        seconds: started.elapsed().as_secs(),
        notes: vec![format!("{error:#}")],
    })
}

fn row(workspace: &Workspace, kind: Kind) -> Row {
    println!("\n== {} ==", kind.name());
    let started = Instant::now();
    let (counts, notes) = match kind {
        Kind::Check => check::all(workspace),
        Kind::Rust => rust(workspace),
        Kind::Drivers => pytest(workspace, kind, "crates/agent/tests/drivers", &["--timeout=120"]),
        Kind::Sdk => pytest(workspace, kind, "sdk/python/tests", &["--timeout=120"]),
        Kind::E2e => pytest(workspace, kind, "e2e", &[]),
        Kind::V2guest => v2guest(workspace),
    };
    Row { name: kind.name(), counts, seconds: started.elapsed().as_secs(), notes }
}

fn rust(workspace: &Workspace) -> (Counts, Vec<String>) {
    let mut command = build::cargo(workspace, "nextest");
    command.args(["run", "--workspace", "--no-fail-fast", "--color", "never"]);
    let mut counts = None;
    let outcome = watch(&mut command, workspace, |line| counts = summary::nextest(line).or(counts));
    judge(counts, Vec::new(), outcome)
}

fn pytest(workspace: &Workspace, kind: Kind, folder: &str, options: &[&str]) -> (Counts, Vec<String>) {
    let mut command = workspace.python_program("python");
    // One line for each test, as it ends: a run that hangs shows where.
    command
        .args(["-m", "pytest", "-v", "-ra", "--color=no", folder])
        .args(options)
        .env("PYTHONUNBUFFERED", "1");
    let mut counts = None;
    let mut refused = Vec::new();
    let outcome = watch(&mut command, workspace, |line| {
        counts = summary::pytest(line).or(counts);
        if let Some(reason) = summary::pytest_skip_reason(line).filter(|reason| !may_be_missing(kind, reason))
        {
            refused.push(format!("skipped, and not on the list of what may be missing: {reason}"));
        }
    });
    judge(counts, refused, outcome)
}

fn v2guest(workspace: &Workspace) -> (Counts, Vec<String>) {
    let mut machine = match guest::machine(workspace, Profile::Dev) {
        Ok(machine) => machine,
        Err(error) => return judge(None, Vec::new(), Err(error)),
    };
    let mut counts = None;
    let outcome = watch(&mut machine, workspace, |line| counts = summary::pytest(line).or(counts));
    judge(counts, Vec::new(), outcome)
}

fn may_be_missing(kind: Kind, reason: &str) -> bool {
    MAY_BE_MISSING.iter().any(|(of, words)| *of == kind && reason.contains(words))
}

/// Runs a runner with what all tests are told: where the programs are, and that nothing may be skipped silently.
fn watch(command: &mut Command, workspace: &Workspace, line: impl FnMut(&str)) -> Result<()> {
    command.env("CARGO_TARGET_DIR", &workspace.target).env("MSB_PROFILE", Profile::Dev.folder());
    let status = process::watch(command.env("MSB_TEST_REQUIRE", "all"), line)?;
    if !status.success() {
        bail!("{} ended with {status}", process::shown(command));
    }
    Ok(())
}

/// A run counts as it says itself; one that failed without a failed test, or tested nothing, is a failure of its own.
fn judge(counts: Option<Counts>, mut notes: Vec<String>, outcome: Result<()>) -> (Counts, Vec<String>) {
    let mut counts = counts.unwrap_or_default();
    counts.failed += notes.len() as u64;
    if counts.passed + counts.failed == 0 {
        notes.push("no test was run".to_owned());
    }
    if let Err(error) = outcome {
        notes.push(format!("{error:#}"));
    }
    if !notes.is_empty() && counts.failed == 0 {
        counts.failed = 1;
    }
    (counts, notes)
}

fn report(rows: &[Row]) -> Result<()> {
    println!("\n{:<10}{:>8}{:>8}{:>8}{:>9}  result", "kind", "passed", "failed", "skipped", "seconds");
    let mut total = Counts::default();
    for Row { name, counts, seconds, notes } in rows {
        let result = if counts.failed == 0 { "ok" } else { "FAILED" };
        println!(
            "{name:<10}{:>8}{:>8}{:>8}{seconds:>9}  {result}",
            counts.passed, counts.failed, counts.skipped
        );
        for note in notes {
            println!("{:<10}  {note}", "");
        }
        total += *counts;
    }
    if total.failed > 0 {
        // The counts are the last line, so what failed is said before them and not by an error after.
        println!("\nsomething failed: see above\n{total}");
        std::io::Write::flush(&mut std::io::stdout())?;
        return Err(crate::Reported.into());
    }
    println!("\n{total}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped: 0 })
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in KINDS {
            assert_eq!(Kind::parse(kind.name()).unwrap(), kind);
        }
        assert!(!Kind::choose(&[]).unwrap().contains(&Kind::V2guest));
        assert_eq!(Kind::choose(&["all".to_owned()]).unwrap(), KINDS);
        assert_eq!(Kind::choose(&["sdk".to_owned()]).unwrap(), [Kind::Sdk]);
        assert!(Kind::parse("unit").unwrap_err().to_string().contains("check, rust, drivers, sdk, e2e"));
    }

    #[test]
    fn a_run_that_says_nothing_or_tests_nothing_failed() {
        assert_eq!(judge(None, Vec::new(), Ok(())).0.failed, 1);
        assert_eq!(judge(counts(0, 0), Vec::new(), Ok(())).0.failed, 1);
        assert_eq!(judge(counts(5, 0), Vec::new(), Ok(())).0.failed, 0);
    }

    #[test]
    fn a_runner_that_fails_is_a_failure_even_when_all_its_tests_passed() {
        let (judged, notes) = judge(counts(5, 0), Vec::new(), Err(anyhow::anyhow!("exit 3")));
        assert_eq!((judged.passed, judged.failed, notes.len()), (5, 1, 1));
        assert_eq!(judge(counts(5, 2), Vec::new(), Err(anyhow::anyhow!("exit 1"))).0.failed, 2);
    }

    #[test]
    fn a_skipped_test_that_is_not_on_the_list_is_a_failure() {
        assert!(!may_be_missing(Kind::E2e, "needs the moon"));
        assert_eq!(judge(counts(5, 0), vec!["skipped: needs the moon".to_owned()], Ok(())).0.failed, 1);
    }
}
