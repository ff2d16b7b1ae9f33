// SPDX-License-Identifier: Apache-2.0
//! Builds a tree of our own files, with exact modes whatever the umask, all of it owned by root where we are root.

use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

/// A directory that is being filled.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    own: bool,
}

impl Tree {
    /// Makes the directory, which must not exist yet.
    pub(crate) fn create(root: &Path) -> io::Result<Tree> {
        let tree = Tree { root: root.to_owned(), own: rustix::process::geteuid().is_root() };
        fs_err::create_dir(root)?;
        tree.settle(root, 0o755)?;
        Ok(tree)
    }

    /// Returns where a path of the tree is on the host.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Makes a directory, with its parents; sets the mode of one that exists.
    pub(crate) fn directory(&self, path: &str, mode: u32) -> io::Result<()> {
        let mut here = self.root.clone();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            here.push(part);
            match fs_err::create_dir(&here) {
                Ok(()) => self.settle(&here, 0o755)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        self.settle(&here, mode)
    }

    /// Writes a file that anybody may read.
    pub(crate) fn file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        let here = self.at(path);
        fs_err::write(&here, content)?;
        self.settle(&here, 0o644)
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&self, path: &str, target: &Path) -> io::Result<()> {
        self.parents(path)?;
        let here = self.at(path);
        symlink(target, &here).map_err(|error| named(error, "symlink", &here))?;
        if self.own {
            lchown(&here, Some(0), Some(0)).map_err(|error| named(error, "chown", &here))?;
        }
        Ok(())
    }

    fn parents(&self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) if !self.at(parent).is_dir() => self.directory(parent, 0o755),
            Some(_) | None => Ok(()),
        }
    }

    fn settle(&self, path: &Path, mode: u32) -> io::Result<()> {
        if self.own {
            lchown(path, Some(0), Some(0)).map_err(|error| named(error, "chown", path))?;
        }
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }
}

fn named(error: io::Error, act: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{act} {}: {error}", path.display()))
}
