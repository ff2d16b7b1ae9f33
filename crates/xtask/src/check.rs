// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask check`: everything that is judged without running the product.

use anyhow::{Result, bail};

use crate::summary::Counts;
use crate::workspace::Workspace;
use crate::{arrows, fmt, process, setup, tidy};

/// The parts that a host may lack, and why that is no failure.
const MAY_BE_MISSING: &[(&str, &str)] = &[
    ("cargo-deny", "not installed; it takes minutes to build, and needs the advisories from the network"),
    ("rustfmt", "not part of this Rust toolchain, which has no rustup to add it"),
    ("clippy", "not part of this Rust toolchain, which has no rustup to add it"),
];

type Part = (&'static str, fn(&Workspace) -> Result<()>);

const PARTS: &[Part] = &[
    ("tidy", |workspace| none(&tidy::violations(&workspace.root)?)),
    ("arrows", |workspace| none(&arrows::violations(&workspace.metadata))),
    ("rustfmt", |workspace| process::run(workspace.cargo("fmt").args(["--all", "--check"]))),
    ("ruff", |workspace| {
        fmt::ruff(workspace, &["format", "--check"]).iter_mut().try_for_each(process::run)?;
        fmt::ruff(workspace, &["check"]).iter_mut().try_for_each(process::run)
    }),
    ("pyright", |workspace| {
        let mut command = workspace.python_program("pyright");
        // It shall see what the environment has installed, whatever Python comes first in the path.
        command.args(["--project", "sdk/python", "--pythonpath"]).arg(workspace.venv().join("bin/python"));
        process::run(&mut command)
    }),
    ("clippy", |workspace| {
        let flags = ["--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        process::run(workspace.cargo("clippy").args(flags))
    }),
    ("docs", |workspace| {
        let mut command = workspace.cargo("doc");
        process::run(
            command
                .args(["--workspace", "--no-deps", "--document-private-items", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
        )
    }),
    ("cargo-deny", |workspace| process::run(workspace.cargo("deny").arg("check"))),
];

/// Checks, and fails when anything is wrong.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::python_environment(workspace)?;
    let (counts, notes) = all(workspace);
    for note in &notes {
        println!("{note}");
    }
    println!("check: {counts}");
    if counts.failed > 0 {
        bail!("{} of the checks failed", counts.failed);
    }
    Ok(())
}

/// Runs every part, also after one has failed; returns the counts and a line for each part that did not pass.
pub(crate) fn all(workspace: &Workspace) -> (Counts, Vec<String>) {
    let mut counts = Counts::default();
    let mut notes = Vec::new();
    for (name, check) in PARTS {
        println!("\ncheck: {name}");
        if let Some(reason) = missing(workspace, name) {
            counts.skipped += 1;
            notes.push(format!("{name} skipped: {reason}"));
        } else if let Err(error) = check(workspace) {
            counts.failed += 1;
            println!("{error:#}");
            notes.push(format!("{name} failed"));
        } else {
            counts.passed += 1;
        }
    }
    (counts, notes)
}

/// Says why a part cannot be done here, if that is allowed and so.
fn missing(workspace: &Workspace, part: &str) -> Option<&'static str> {
    let (_, reason) = MAY_BE_MISSING.iter().find(|(name, _)| *name == part)?;
    let subcommand = match part {
        "rustfmt" => "fmt",
        "cargo-deny" => "deny",
        other => other,
    };
    (!setup::component_is_there(workspace, subcommand)).then_some(*reason)
}

fn none(violations: &[String]) -> Result<()> {
    if violations.is_empty() {
        return Ok(());
    }
    bail!("\n{}", violations.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_missing_is_a_part() {
        assert!(MAY_BE_MISSING.iter().all(|(name, _)| PARTS.iter().any(|(part, _)| part == name)));
    }
}
