// SPDX-License-Identifier: Apache-2.0
//! `msb image build-base`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use fs_err as fs;
use image::archive::Source;

use crate::args::BuildBaseArgs;
use crate::base::{self, BaseImage, Progress, Request};
use crate::failure::{self, Failure};
use crate::images::{self, archive::Loading};
use crate::interrupt::blocking_unless_interrupted;
use crate::output::{print, size};

/// Builds a base image, and keeps it in the store or writes its root file system to a file.
pub(crate) fn build_base(arguments: BuildBaseArgs) -> Result<(), Failure> {
    let request = Request {
        kind: arguments.kind,
        suite: arguments.suite,
        mirror: arguments.mirror,
        security_mirror: arguments.security_mirror,
        epoch: arguments.epoch,
    };
    match &arguments.output {
        Some(output) => write(&request, output),
        None => store(&request, &failure::made_home(arguments.home)?),
    }
}

/// Builds it beside the file, so that this gets its name in one step, whole.
fn write(request: &Request, output: &Path) -> Result<(), Failure> {
    let folder = match output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let image = base::build(request, folder, &mut tell).map_err(Failure::Base)?;
    let bytes = keep(&image, output).map_err(Failure::system("write the image"))?;
    say(&image, &[format!("File: {} ({})", output.display(), size(bytes))])
}

/// Builds it and takes it into the store, under the name by which sandboxes ask for it.
fn store(request: &Request, home: &Path) -> Result<(), Failure> {
    let store = images::store(home)?;
    let loading = Loading::named(&format!("microsandbox/{}", request.kind.name()))?;
    // The packages' scripts and apt's own user cannot pass through a home, which is private.
    let image = base::build(request, &std::env::temp_dir(), &mut tell).map_err(Failure::Base)?;
    let layout = image.layout().map_err(Failure::Base)?;
    let stored = blocking_unless_interrupted(
        move || loading.load(&store, Source::Path(&layout), "the image that was built"),
        "the image was built, and not kept",
    )?;
    let lines: Vec<String> = stored
        .iter()
        .map(|stored| format!("Reference: {}\nDigest: {}", stored.reference, stored.manifest_digest))
        .collect();
    say(&image, &lines)
}

fn say(image: &BaseImage, lines: &[String]) -> Result<(), Failure> {
    let labels = &image.config.labels;
    let own = [
        format!(
            "Image: {} {}",
            labels["org.opencontainers.image.title"], labels["org.opencontainers.image.version"]
        ),
        format!("Suites: {}", labels["microsandbox.suites"]),
        format!("Packages: {}", labels["microsandbox.packages"].split(' ').count()),
    ];
    print(&[lines, &own].concat().join("\n"))
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
