// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask build`: the four programs, side by side in `target/<profile>/`.
//!
//! msb-jail, msb-agent and msb-probe must be static: they run inside any image, also one without a dynamic loader. Cargo
//! cannot say that for some programs of a workspace. One `cargo rustc` for each would compile their dependencies again, with the
//! features that this one crate wants of them, and the next test run would put dynamic programs in their place. So
//! `crates/xtask/rustc-static-helpers` stands between cargo and rustc, in builds and in test runs alike, and adds the
//! flag to the calls that link them. What came out is checked here.

use std::process::Command;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::workspace::Workspace;
use crate::{elf, process};

const STATIC_PROGRAMS: [&str; 3] = ["msb-jail", "msb-agent", "msb-probe"];

/// How the compiler shall work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quickly compiled.
    Dev,
    /// Quickly running.
    Release,
}

impl Profile {
    /// The folder of the target folder that cargo puts this profile's programs into.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }
}

/// How much is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The four programs.
    Programs,
    /// Them and all tests, in one call, so that dependencies are compiled once for both.
    Tests,
}

/// Prepares a cargo call that links programs.
pub(crate) fn cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = workspace.cargo(subcommand);
    command.env("RUSTC_WORKSPACE_WRAPPER", workspace.root.join("crates/xtask/rustc-static-helpers"));
    command
}

/// Builds and says where the programs are.
pub(crate) fn run(workspace: &Workspace, profile: Profile) -> Result<()> {
    programs(workspace, profile, Scope::Programs)?;
    println!(
        "msb, msb-jail, msb-agent and msb-probe are in {}",
        workspace.target.join(profile.folder()).display()
    );
    Ok(())
}

/// Builds the programs and checks that the ones that must be static are.
pub(crate) fn programs(workspace: &Workspace, profile: Profile, scope: Scope) -> Result<()> {
    let mut command = cargo(workspace, "build");
    match scope {
        Scope::Programs => command.args(["-p", "cli", "-p", "jail", "-p", "agent", "-p", "attack", "--bins"]),
        Scope::Tests => command.args(["--workspace", "--bins", "--tests"]),
    };
    if profile == Profile::Release {
        command.arg("--release");
    }
    process::run(&mut command)?;
    for name in STATIC_PROGRAMS {
        let path = workspace.target.join(profile.folder()).join(name);
        let program = fs::read(&path)?;
        if !elf::is_static(&program).with_context(|| format!("cannot judge {}", path.display()))? {
            bail!(
                "{} is not static: it asks for a dynamic loader, which not every image has",
                path.display()
            );
        }
    }
    Ok(())
}
