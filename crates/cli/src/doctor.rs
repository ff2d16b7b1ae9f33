// SPDX-License-Identifier: Apache-2.0
//! `msb doctor`: what this machine can do for sandboxes, found out by building one, and what mends what it cannot.
//!
//! It changes nothing: what it builds is below a directory of its own, on the file system of the home, and is gone when
//! it ends. Its exit code is 0 if the machine reaches the level that is asked for, 3 if it does not, 1 if it could not
//! look.

mod images;
mod shown;

use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use protocol::isolation::{Isolation, Level};
use serde::Serialize;
use server::Wish;

use crate::args::DoctorArgs;
use crate::doctor::images::Expected;
use crate::failure::Failure;
use crate::output::{print, print_json};
use crate::{failure, programs};

/// All that was found out.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    kernel: String,
    root: bool,
    home: PathBuf,
    /// Whether a server runs with this home.
    server_runs: bool,
    /// The highest level that is reached.
    level: &'static str,
    isolation: Isolation,
    images: Vec<Expected>,
}

/// Looks at the machine, and tells.
pub(crate) fn run(arguments: DoctorArgs) -> Result<(), Failure> {
    let home = failure::home(arguments.home)?;
    let network = if arguments.no_network { Wish::Off } else { Wish::Enforced };
    let isolation = examine(&home, network)?;
    let system = rustix::system::uname();
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        kernel: system.release().to_string_lossy().into_owned(),
        root: rustix::process::geteuid().is_root(),
        server_runs: server::is_held(&home).map_err(Failure::system("look whether a server runs"))?,
        level: isolation.level().text(),
        images: images::expected(&home, &arguments.registry, arguments.allow_host_image)?,
        home,
        isolation,
    };
    if arguments.json {
        print_json(&findings)?;
    } else {
        print(&shown::text(&findings, colours(), width()))?;
    }
    reached(&findings.isolation, arguments.min_isolation)
}

fn reached(isolation: &Isolation, level: Level) -> Result<(), Failure> {
    match level.missing(isolation).is_empty() {
        true => Ok(()),
        false => Err(Failure::TooWeak(level)),
    }
}

/// Whether somebody sees them (<https://no-color.org>).
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The columns of the terminal, within what can be read well.
fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 100 } else { columns.clamp(60, 120) }
}

/// Builds a sandbox below a directory that is there for this alone.
fn examine(home: &Path, network: Wish) -> Result<Isolation, Failure> {
    let programs = programs::find()?;
    let place = Place::make(home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("start the runtime"))?;
    Ok(runtime.block_on(server::examine(&place.0, programs, network)))
}

/// A private directory, removed in the end.
struct Place(PathBuf);

impl Place {
    /// Makes one in the home if that is there, so that its file system is the one that is tried; else among temporary
    /// files.
    fn make(home: &Path) -> Result<Place, Failure> {
        let among = if home.is_dir() { home.to_owned() } else { std::env::temp_dir() };
        let mut bytes = [0_u8; 8];
        let failed = Failure::system("make a directory to try walls in");
        let random = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let name = format!(".msb-doctor-{:016x}", u64::from_ne_bytes(bytes));
        let path = among.join(name);
        let made = random.map_err(std::io::Error::from).and_then(|_| {
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            fs_err::canonicalize(&path)
        });
        made.map(Place).map_err(failed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What sandboxes wrote is removed by then: there are only empty directories of ours.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}
