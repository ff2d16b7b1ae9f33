// SPDX-License-Identifier: Apache-2.0
//! Everything a developer types: `cargo xtask <command>`.
//!
//! One file for each command; beside them what the commands share: where things are ([`workspace`]), how programs are
//! run ([`process`]), and the pure parts ([`arrows`], [`elf`], [`summary`], [`tidy`]), which have the tests.
#![expect(clippy::print_stdout, reason = "a developer reads what these commands print")]

mod arrows;
mod bench;
mod build;
mod check;
mod elf;
mod fmt;
mod guest;
mod process;
mod quickstart;
mod server;
mod setup;
mod summary;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build::Profile;
use crate::workspace::Workspace;

const HELP: &str = "\
Usage: cargo xtask <command>

  quickstart [--release]          set up, build, start a server, run the first examples, stop it (as root)
  setup                           install by name what is missing, make the Python environment
  build [--release]               build msb, and msb-jail and msb-agent statically
  check                           format, lints, docs, types and the rules of the house
  fmt                             format Rust and Python
  test [KIND...]                  tests of some kinds: check, rust, drivers, sdk, e2e, v2guest; all; all but v2guest
  bench [--only NAME] [--json FILE] [--dev]
                                  measure start (against the bare interpreter) and pull (against skopeo and umoci);
                                  release build unless --dev

Commands that build walls (quickstart, test, bench) need root in this version.";

/// A failure that was already told in full.
#[derive(Debug)]
struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed, as told above")
    }
}

impl std::error::Error for Reported {}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Reported>() => ExitCode::FAILURE,
        Err(error) => {
            println!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (command, options) = match arguments.split_first() {
        None => ("help", &[][..]),
        Some((command, options)) => (command.as_str(), options),
    };
    if matches!(command, "help" | "--help" | "-h") {
        println!("{HELP}");
        return Ok(());
    }
    let workspace = Workspace::find()?;
    match command {
        "setup" => no_options(options).and_then(|()| setup::run(&workspace)),
        "build" => build::run(&workspace, profile(options)?),
        "quickstart" => quickstart::run(&workspace, profile(options)?),
        "fmt" => no_options(options).and_then(|()| fmt::run(&workspace)),
        "check" => no_options(options).and_then(|()| check::run(&workspace)),
        "test" => test::run(&workspace, options),
        "bench" => bench::run(&workspace, options),
        other => bail!("unknown command {other:?}\n\n{HELP}"),
    }
    .with_context(|| format!("cargo xtask {command}"))
}

fn no_options(options: &[String]) -> Result<()> {
    match options {
        [] => Ok(()),
        [first, ..] => bail!("unknown option {first:?}; this command takes none"),
    }
}

fn profile(options: &[String]) -> Result<Profile> {
    match options {
        [] => Ok(Profile::Dev),
        [flag] if flag == "--release" => Ok(Profile::Release),
        [first, ..] => bail!("unknown option {first:?}; the only one is --release"),
    }
}
