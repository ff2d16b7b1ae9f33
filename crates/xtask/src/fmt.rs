// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fmt`: formats Rust and Python.

use std::process::Command;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{process, setup};

/// The folders with Python that have the SDK's settings, or their own.
const CONFIGURED: [&str; 2] = ["sdk/python", "e2e"];
/// The drivers run on the interpreter of whatever image, so on Pythons far older than ours.
const DRIVERS: [&str; 5] = ["--line-length", "120", "--target-version", "py38", "crates/agent"];

/// Formats everything.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::python_environment(workspace)?;
    process::run(workspace.cargo("fmt").arg("--all"))?;
    ruff(workspace, &["format"]).iter_mut().try_for_each(process::run)
}

/// Prepares the calls of ruff that together see all our Python.
pub(crate) fn ruff(workspace: &Workspace, subcommand: &[&str]) -> [Command; 2] {
    [CONFIGURED.as_slice(), DRIVERS.as_slice()].map(|rest| {
        let mut command = workspace.python_program("ruff");
        command.args(subcommand).args(rest);
        command
    })
}
