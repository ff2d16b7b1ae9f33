// SPDX-License-Identifier: Apache-2.0
//! `msb image rm` and `prune`.

use std::collections::BTreeSet;

use image::store::{Prune, Pruned, Removed, Store};
use serde_json::json;

use crate::args::{PruneArgs, RemoveArgs};
use crate::failure::Failure;
use crate::images;
use crate::output::{print, print_json, size};
use crate::registry::DefaultRegistryArgs;

/// Removes images. All of them are looked up before any is removed.
pub(crate) fn remove(arguments: RemoveArgs) -> Result<(), Failure> {
    let store = images::opened(arguments.home)?;
    let mut references = BTreeSet::new();
    for name in &arguments.names {
        references.insert(meant(&store, name, &arguments.registry)?);
    }
    if !arguments.json {
        return take(&store, references, |reference, removed| print(&line(reference, removed)));
    }
    let mut rows = Vec::new();
    let taken = take(&store, references, |reference, removed| {
        rows.push(json!({
            "reference": reference,
            "digest": removed.image.as_ref().map(|image| image.manifest_digest.to_string()),
            "in_use": removed.in_use,
            "blobs": removed.pruned.blobs,
            "layers": removed.pruned.layers,
            "bytes": removed.pruned.bytes,
        }));
        Ok(())
    });
    // What is gone is gone, also when the next one could not be removed.
    print_json(&rows).and(taken)
}

fn take(
    store: &Store,
    references: BTreeSet<String>,
    mut tell: impl FnMut(&str, &Removed) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for reference in references {
        // Somebody else may have removed it since.
        if let Some(removed) = store.remove(&reference).map_err(Failure::Images)? {
            tell(&reference, &removed)?;
        }
    }
    Ok(())
}

fn line(reference: &str, removed: &Removed) -> String {
    let freed = size(removed.pruned.bytes);
    match removed.in_use {
        true => format!(
            "removed {reference} ({freed}); a sandbox uses it still: what that needs goes with the next msb image prune \
             after it"
        ),
        false => format!("removed {reference} ({freed})"),
    }
}

/// Returns what a name means: a reference, or the file of a record that cannot be read.
fn meant(store: &Store, name: &str, registry: &DefaultRegistryArgs) -> Result<String, Failure> {
    let listing = store.list().map_err(Failure::Images)?;
    if listing.broken.iter().any(|broken| broken.file == name) {
        return Ok(name.to_owned());
    }
    let image = images::find(store, name, registry)?;
    let is_named = image.reference == name
        || registry.reference(name).is_ok_and(|reference| reference.to_string() == image.reference);
    let same = listing.images.into_iter().filter(|other| other.manifest_digest == image.manifest_digest);
    let references: Vec<String> = same.map(|other| other.reference).collect();
    if !is_named && references.len() > 1 {
        return Err(Failure::SeveralNames { name: images::quoted(name), references });
    }
    Ok(image.reference)
}

/// Removes what belongs to no image, and with `--all` every image that no sandbox uses.
pub(crate) fn prune(arguments: PruneArgs) -> Result<(), Failure> {
    let what = if arguments.all { Prune::Images } else { Prune::Loose };
    let pruned = images::opened(arguments.home)?.prune(what).map_err(Failure::Images)?;
    if arguments.json {
        return print_json(&json!({
            "images": pruned.images,
            "blobs": pruned.blobs,
            "layers": pruned.layers,
            "bytes": pruned.bytes,
            "broken": pruned.broken.iter().map(|broken| &broken.file).collect::<Vec<_>>(),
        }));
    }
    print(&lines(&pruned).join("\n"))
}

fn lines(pruned: &Pruned) -> Vec<String> {
    let mut lines: Vec<String> = pruned.images.iter().map(|image| format!("removed {image}")).collect();
    for broken in &pruned.broken {
        lines.push(format!(
            "the record {0} cannot be read ({1}), so blobs and layers stay; remove it first: msb image rm {0}",
            broken.file, broken.why
        ));
    }
    let counts = format!("{} blobs and {} layers removed", pruned.blobs, pruned.layers);
    lines.push(format!("{counts}, {} free", size(pruned.bytes)));
    lines
}
