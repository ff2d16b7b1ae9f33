// SPDX-License-Identifier: Apache-2.0
//! From a name to a rootfs, along what the operator allows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::directory::{self, DirectoryError};
use crate::host;
use crate::{ImageName, Rootfs};

/// What the operator allows as an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Whether this machine's own `/usr` may serve for the two default names.
    pub host: bool,
    /// Directories that are, or contain, a rootfs.
    pub rootfs: Vec<PathBuf>,
}

/// Why a name has no rootfs here.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nothing of that name can be had.
    #[error("no image {0} here")]
    Unknown(String),
    /// A default name, for which this server has nothing that it may use.
    #[error("no image for {0}: this server may not show its own programs")]
    HostNotAllowed(&'static str),
    /// A path that may not be an image.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The private root for this machine's `/usr` could not be made.
    #[error("cannot make the root for the host image")]
    Host(#[source] io::Error),
}

impl ResolveError {
    /// Says what would help, where something does.
    pub fn remedy(&self) -> &'static str {
        match self {
            ResolveError::Unknown(_) => {
                "use microsandbox/python, microsandbox/node, or the absolute path of a rootfs directory that the server was started with (--allow-rootfs DIR)"
            }
            ResolveError::HostNotAllowed(_) => {
                "start the server with --allow-host-image, or name a rootfs directory (--allow-rootfs DIR)"
            }
            ResolveError::Directory(_) => {
                "start the server with --allow-rootfs DIR, where DIR is or contains it"
            }
            ResolveError::Host(_) => "see the server's log",
        }
    }
}

/// Resolves names to rootfs directories below one home.
#[derive(Debug)]
pub struct Resolver {
    images: PathBuf,
    allowed: Allowed,
    /// The root for the host image, once it is made; the lock makes those who need it first wait for one maker.
    host: Mutex<Option<Rootfs>>,
}

impl Resolver {
    /// Makes a resolver that keeps its own directories below `home`.
    ///
    /// # Errors
    /// When an allowed directory does not exist or is none.
    pub fn new(home: &Path, allowed: Allowed) -> io::Result<Resolver> {
        let rootfs = allowed.rootfs.iter().map(|path| directory::allow(path)).collect::<io::Result<_>>()?;
        let allowed = Allowed { rootfs, ..allowed };
        Ok(Resolver { images: home.join("images"), allowed, host: Mutex::default() })
    }

    /// Says whether this machine's own programs may be an image.
    pub(crate) fn allows_host(&self) -> bool {
        self.allowed.host
    }

    /// Returns the rootfs of a name. Reads the disk: not for an async thread, the first time for the host image.
    ///
    /// # Errors
    /// [`ResolveError`], whose [`ResolveError::remedy`] says what helps.
    pub fn resolve(&self, name: &ImageName) -> Result<Rootfs, ResolveError> {
        match name {
            ImageName::Python => self.host_image("microsandbox/python"),
            ImageName::Node => self.host_image("microsandbox/node"),
            ImageName::Directory(path) => Ok(directory::rootfs(path, &self.allowed.rootfs)?),
            ImageName::Other(text) => Err(ResolveError::Unknown(text.clone())),
        }
    }

    fn host_image(&self, name: &'static str) -> Result<Rootfs, ResolveError> {
        if !self.allowed.host {
            return Err(ResolveError::HostNotAllowed(name));
        }
        let mut made = self.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(rootfs) = &*made {
            return Ok(rootfs.clone());
        }
        let rootfs = host::build(&self.images, Path::new("/")).map_err(ResolveError::Host)?;
        *made = Some(rootfs.clone());
        Ok(rootfs)
    }
}
