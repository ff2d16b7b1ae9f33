// SPDX-License-Identifier: Apache-2.0
//! Images as files: in and out.
//!
//! | what | in | out |
//! |---|---|---|
//! | OCI image layout, a directory | yes | |
//! | OCI archive: a tar of such a layout | yes | yes |
//! | docker archive, as `docker save` writes it | yes | yes |
//! | a tar of a root file system, which becomes an image of one layer | yes | |
//!
//! Archives may be compressed with gzip or zstd as a whole. They are as hostile as what a registry sends: an archive is
//! never unpacked, its files are looked up by exact names among the regular ones (`contents`), and every blob goes into
//! the store through its verification. What was added for an archive that is refused is removed again.

mod compression;
mod contents;
mod docker;
mod index;
mod load;
mod oci;
mod rootfs;
mod save;

pub use compression::{Gzipped, gzip};
pub use load::{Kind, LoadOptions, Loaded, Source, load};
pub use save::{Format, save};

use std::io;

use crate::store::StoreError;

/// Why an archive was not loaded or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// It is none of the kinds that are known.
    #[error("this is no OCI layout, OCI archive, docker archive or tar: {0}")]
    Unknown(String),
    /// A file of it says what cannot be.
    #[error("{what} in the archive is wrong: {why}")]
    Wrong {
        /// The file, or what it stands for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that it refers to is not in it.
    #[error("the archive has no file {0}")]
    Missing(String),
    /// Something is beyond a bound of `protocol::limits`.
    #[error("{what} of the archive is beyond the bound of {bound}")]
    Bound {
        /// What it is.
        what: String,
        /// The bound.
        bound: u64,
    },
    /// It has an image for other platforms only.
    #[error("the archive has no image for {0}")]
    Platform(String),
    /// It does not name its image, and nobody else does.
    #[error("the archive does not say what its image is called: name a reference")]
    NoReference,
    /// One reference was named for several images.
    #[error("the archive has {0} images: one reference cannot name them all")]
    Several(usize),
    /// The store could not take or give something.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says what is wrong with a file of an archive; what is quoted of it is short and printable.
fn wrong(what: &str, why: impl std::fmt::Display) -> ArchiveError {
    let quote = |text: String| text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
    ArchiveError::Wrong { what: quote(what.to_owned()), why: quote(why.to_string()) }
}
