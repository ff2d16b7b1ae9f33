// SPDX-License-Identifier: Apache-2.0
//! The directories that take a sandbox's writes, where they are in a mount namespace of their own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jail::plan::WritableLayers;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Act, JailError};

/// Layers that are mounted nowhere yet.
pub(crate) struct Fetched<'plan> {
    mount: OwnedFd,
    at: &'plan Path,
}

/// Goes into the other mount namespace and comes back with the one directory.
pub(crate) fn fetch_layers(layers: &WritableLayers) -> Result<Fetched<'_>, JailError> {
    let own = open_namespace(Path::new("/proc/self/ns/mnt"))?;
    let other = open_namespace(&layers.namespace)?;
    enter(&other)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, &layers.from, flags)
        .act(|| format!("open the writable layers {}", layers.from.display()))?;
    enter(&own)?;
    Ok(Fetched { mount, at: &layers.at })
}

impl Fetched<'_> {
    /// Attaches them in the mount namespace in which the caller is now.
    pub(crate) fn attach(&self) -> Result<(), JailError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.mount.as_fd(), "", CWD, self.at, flags)
            .act(|| format!("attach the writable layers on {}", self.at.display()))
    }
}

fn open_namespace(path: &Path) -> Result<OwnedFd, JailError> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .act(|| format!("open the mount namespace {}", path.display()))
}

fn enter(namespace: &OwnedFd) -> Result<(), JailError> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .act(|| "enter a mount namespace".to_owned())
}
