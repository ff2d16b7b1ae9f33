// SPDX-License-Identifier: Apache-2.0
//! `msb image`: what is done with images on this machine. It works on the store, whether a server runs or not.

pub(crate) mod archive;
pub(crate) mod built;
pub(crate) mod removed;
pub(crate) mod shown;

use std::path::Path;

use image::store::{ImageRecord, Store};
use protocol::limits::QUOTE_CHARS_MAX;

use crate::args::HomeArgs;
use crate::failure::{self, Failure};
use crate::registry::DefaultRegistryArgs;

/// Opens the store of a home.
pub(crate) fn store(home: &Path) -> Result<Store, Failure> {
    Store::open(&home.join("images")).map_err(Failure::Images)
}

fn opened(home: HomeArgs) -> Result<Store, Failure> {
    store(&failure::made_home(home)?)
}

/// Finds an image by its reference, in short or in full, or by the beginning of its digest.
fn find(store: &Store, name: &str, registry: &DefaultRegistryArgs) -> Result<ImageRecord, Failure> {
    if let Ok(reference) = registry.reference(name)
        && let Some(found) = store.find(&reference.to_string()).map_err(Failure::Images)?
    {
        return Ok(found);
    }
    store.find(name).map_err(Failure::Images)?.ok_or_else(|| Failure::NoImage(quoted(name)))
}

/// Shortens what was typed, and shows what cannot be seen.
fn quoted(name: &str) -> String {
    name.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect()
}
