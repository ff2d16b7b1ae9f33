// SPDX-License-Identifier: Apache-2.0
//! `msb image`: what is done with images on this machine.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use fs_err as fs;

use crate::args::BuildBaseArgs;
use crate::base::{self, BaseImage, Progress, Request};
use crate::failure::Failure;

/// Builds a base image and writes its root file system to a file.
pub(crate) fn build_base(arguments: BuildBaseArgs) -> Result<(), Failure> {
    let request = Request {
        kind: arguments.kind,
        suite: arguments.suite,
        mirror: arguments.mirror,
        security_mirror: arguments.security_mirror,
        epoch: arguments.epoch,
    };
    // Beside the result, so that it gets its name in one step, whole.
    let folder = match arguments.output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let image = base::build(&request, folder, &mut tell).map_err(Failure::Base)?;
    let bytes = keep(&image, &arguments.output).map_err(Failure::system("write the image"))?;
    let labels = &image.config.labels;
    let lines = [
        format!("File: {} ({} MB)", arguments.output.display(), bytes.div_ceil(1_000_000)),
        format!(
            "Image: {} {}",
            labels["org.opencontainers.image.title"], labels["org.opencontainers.image.version"]
        ),
        format!("Suites: {}", labels["microsandbox.suites"]),
        format!("Packages: {}", labels["microsandbox.packages"].split(' ').count()),
    ];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", lines.join("\n"))
        .and_then(|()| out.flush())
        .map_err(Failure::system("write to standard output"))
}

fn keep(image: &BaseImage, output: &Path) -> std::io::Result<u64> {
    let file = File::open(&image.tar)?;
    file.sync_all()?;
    fs::rename(&image.tar, output)?;
    Ok(file.metadata()?.len())
}

fn tell(progress: Progress) {
    // Nobody is there to read when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{:3}% {}", progress.percent, progress.step);
}
