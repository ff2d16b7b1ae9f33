// SPDX-License-Identifier: Apache-2.0
//! Finds `msb-jail`, `msb-agent` and `msb-probe`: beside `msb`, else in `../libexec/microsandbox`. Other versions than our own are
//! refused, for they speak with each other in words that may change with any version.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use server::Programs;

use crate::failure::Failure;

/// Finds the two that a server needs.
pub(crate) fn find() -> Result<Programs, Failure> {
    let folders = folders()?;
    Ok(Programs { jail: find_one("msb-jail", &folders)?, agent: find_one("msb-agent", &folders)? })
}

/// Finds the program that tries the attack list.
pub(crate) fn find_probe() -> Result<PathBuf, Failure> {
    find_one("msb-probe", &folders()?)
}

fn folders() -> Result<[PathBuf; 2], Failure> {
    let own = std::env::current_exe().map_err(Failure::system("find the program file of msb"))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    Ok([beside.to_owned(), beside.join("../libexec/microsandbox")])
}

fn find_one(name: &str, folders: &[PathBuf]) -> Result<PathBuf, Failure> {
    let mut candidates = folders.iter().map(|folder| folder.join(name));
    let found = candidates.find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Failure::Program(format!("{name} is neither in {}", places.join(" nor in ")))
    })?;
    let wanted = format!("{name} {}", env!("CARGO_PKG_VERSION"));
    let said = version(&found)?;
    if said != wanted {
        return Err(Failure::Program(format!("{} is {said:?}, and not {wanted:?}", found.display())));
    }
    Ok(found)
}

fn version(program: &Path) -> Result<String, Failure> {
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Program(format!("{} cannot be run: {error}", program.display())))?;
    let first = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    Ok(first.chars().take(100).collect())
}
