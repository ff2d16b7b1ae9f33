// SPDX-License-Identifier: Apache-2.0
//! The name of an image in, a local rootfs out.
//!
//! A name is read once ([`ImageName`]) and resolved along a chain ([`Resolver`]): today the embedded default
//! ([`host`]), which shows this machine's own `/usr` behind a private root, and plain directories that the operator
//! allows ([`directory`]). For images from registries, [`mod@reference`] says what names one, and [`registry`] talks with them.

pub mod archive;
pub mod directory;
pub mod host;
pub mod images;
pub mod name;
mod owners;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod resolver;
pub mod store;
pub mod unpack;

pub use images::{Found, ImageError, Images, Source, Stored};
pub use name::{ImageName, NameError};
pub use resolver::{Allowed, ResolveError, Resolver};

use std::path::PathBuf;

/// What a sandbox's file system is made of: read-only directories of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The mounts, `/` first.
    pub mounts: Vec<RootfsMount>,
}

/// One mount of a [`Rootfs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsMount {
    /// Where it is inside, as an absolute path.
    pub at: String,
    /// The directories that lie upon each other there, topmost first.
    pub lowers: Vec<PathBuf>,
}
