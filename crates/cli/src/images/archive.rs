// SPDX-License-Identifier: Apache-2.0
//! `msb image save` and `load`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use image::archive::{self, ArchiveError, Format, Kind, LoadOptions, Source};
use image::pull::unpack_image;
use image::registry::Platform;
use image::store::{ImageRecord, Store};
use serde_json::json;

use crate::args::{LoadArgs, SaveArgs};
use crate::failure::{Failure, LoadError};
use crate::images::{self, shown::Row};
use crate::interrupt::blocking_unless_interrupted;
use crate::output::{print, print_json};
use crate::registry::DefaultRegistryArgs;

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Writes images to an archive, which gets its name when it is whole.
pub(crate) fn save(arguments: SaveArgs) -> Result<(), Failure> {
    let store = images::opened(arguments.home)?;
    let found = arguments.names.iter().map(|name| images::find(&store, name, &arguments.registry));
    let found: Vec<ImageRecord> = found.collect::<Result<_, Failure>>()?;
    let shown: Vec<Row<'_>> = found.iter().map(Row::of).collect();
    let told = json!({ "file": arguments.output, "images": shown });
    let saving = Saving { store, images: found, format: arguments.format.into() };
    if arguments.output == Path::new("-") {
        if arguments.json {
            return Err(Failure::Both);
        }
        if std::io::stdout().is_terminal() {
            return Err(Failure::Terminal);
        }
        return blocking_unless_interrupted(
            move || saving.write("standard output", &mut std::io::stdout().lock()),
            "what was written is no archive",
        );
    }
    write_file(saving, arguments.output)?;
    if arguments.json { print_json(&told) } else { Ok(()) }
}

/// Writes it to a file, or to what else has a name.
fn write_file(saving: Saving, output: PathBuf) -> Result<(), Failure> {
    let is_special = fs::metadata(&output).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return blocking_unless_interrupted(
            move || saving.write_to(&output, &output),
            "what was written is no archive",
        );
    }
    let fresh = Fresh::beside(&output);
    let (path, named) = (fresh.path.clone(), output.clone());
    blocking_unless_interrupted(move || saving.write_to(&path, &named), "no file was written")?;
    fs::rename(&fresh.path, &output).map_err(Failure::system("give the archive its name"))
}

/// What is written.
struct Saving {
    store: Store,
    images: Vec<ImageRecord>,
    format: Format,
}

impl Saving {
    fn write_to(&self, path: &Path, named: &Path) -> Result<(), Failure> {
        let shown = named.display().to_string();
        let failed =
            |error| Failure::Save { file: shown.clone(), source: Box::new(ArchiveError::Write(error)) };
        let mut file = File::options().write(true).create(true).truncate(true).open(path).map_err(failed)?;
        self.write(&shown, &mut file)?;
        match file.metadata().map_err(failed)?.is_file() {
            true => file.sync_all().map_err(failed),
            false => Ok(()),
        }
    }

    fn write(&self, shown: &str, to: &mut dyn Write) -> Result<(), Failure> {
        let mut writer = BufWriter::with_capacity(CHUNK_BYTES, to);
        let saved = archive::save(&self.store, &self.images, self.format, &mut writer);
        saved.map_err(|source| Failure::Save { file: shown.to_owned(), source: Box::new(source) })
    }
}

/// The file before it has its name; it goes with this value unless it was renamed.
struct Fresh {
    path: PathBuf,
}

impl Fresh {
    fn beside(output: &Path) -> Fresh {
        let mut name = std::ffi::OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        Fresh { path: output.with_file_name(name) }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // It is not there when it has its name by now.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the images of an archive into the store, ready to use.
pub(crate) fn load(arguments: LoadArgs) -> Result<(), Failure> {
    let store = images::opened(arguments.home)?;
    let named = arguments.reference.as_deref().map(|name| arguments.registry.reference(name)).transpose()?;
    let loading = Loading {
        kind: if arguments.rootfs { Kind::Rootfs } else { Kind::Any },
        reference: named.map(|reference| reference.to_string()),
        registry: arguments.registry,
    };
    let file = arguments.file;
    let images = blocking_unless_interrupted(
        move || match file == Path::new("-") {
            true => loading.load(&store, Source::Reader(&mut std::io::stdin().lock()), "standard input"),
            false => loading.load(&store, Source::Path(&file), &file.display().to_string()),
        },
        "no image was loaded",
    )?;
    if arguments.json {
        return print_json(&images.iter().map(Row::of).collect::<Vec<Row<'_>>>());
    }
    let lines: Vec<String> = images
        .iter()
        .map(|image| format!("Image: {}\nDigest: {}", image.reference, image.manifest_digest))
        .collect();
    print(&lines.join("\n"))
}

/// How an archive is loaded.
pub(crate) struct Loading {
    /// What it is.
    pub(crate) kind: Kind,
    /// What its only image shall be called, in full.
    pub(crate) reference: Option<String>,
    /// What names in it belong to that name no registry.
    pub(crate) registry: DefaultRegistryArgs,
}

impl Loading {
    /// Loads the one image of an archive under a name.
    pub(crate) fn named(name: &str) -> Result<Loading, Failure> {
        let registry = DefaultRegistryArgs::default();
        Ok(Loading { kind: Kind::Any, reference: Some(registry.reference(name)?.to_string()), registry })
    }

    /// Loads it; of one that is of no use nothing stays.
    pub(crate) fn load(
        &self,
        store: &Store,
        from: Source<'_>,
        shown: &str,
    ) -> Result<Vec<ImageRecord>, Failure> {
        let failed = |source: LoadError| Failure::Load { file: shown.to_owned(), source: Box::new(source) };
        let full = |name: &str| {
            self.registry.reference(name).map(|found| found.to_string()).map_err(|e| e.to_string())
        };
        let options = LoadOptions {
            kind: self.kind,
            reference: self.reference.as_deref(),
            platform: &Platform::host().to_string(),
            full_reference: &full,
        };
        let loaded = archive::load(store, from, &options).map_err(|error| failed(error.into()))?;
        let held = store.holding().map_err(Failure::Images)?;
        for image in &loaded.images {
            if let Err(error) = unpack_image(&held, image) {
                let reference = image.reference.clone();
                drop(held);
                // What cannot be removed now goes with the next prune: the first failure is what is told.
                let _ = loaded.take_back();
                return Err(failed(LoadError::Unpack(reference, error)));
            }
        }
        loaded.tag().map_err(Failure::Images)
    }
}
