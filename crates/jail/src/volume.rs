// SPDX-License-Identifier: Apache-2.0
//! Directories of the host in a sandbox: mounts that real root makes, and that nothing inside can loosen.
//!
//! The owner of the directory on the host is root inside: what root inside writes is owned by him. All other ids of the
//! host are nobody inside, with the rights of others, and no other user inside can own a file there. Without real root,
//! files keep their owners: what is not the server's user's is nobody's inside.

use std::os::fd::{AsFd, OwnedFd};

use jail::plan::{IdBlock, Owners, Plan, Volume};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::mount::{MountAttributes, NO_DEV, NO_SUID, READ_ONLY, set_attributes};
use sys::namespace::HeldUserNamespace;

use crate::error::{Act, JailError};

/// Makes the mounts of all volumes, attached nowhere.
pub(crate) fn mount_all(plan: &Plan) -> Result<Vec<OwnedFd>, JailError> {
    plan.volumes.iter().map(|volume| mount(volume, plan)).collect()
}

fn mount(volume: &Volume, plan: &Plan) -> Result<OwnedFd, JailError> {
    let directory = open_beneath(volume)?;
    let owner = match plan.owners {
        Owners::Mapped => Some(owner_namespace(volume, &directory, plan.ids)?),
        Owners::Plain => None,
    };
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    // Without what else is mounted below it.
    let mount = open_tree(directory.as_fd(), "", flags)
        .act(|| format!("copy the mount of the volume {}", volume.at))?;
    let set = NO_SUID | NO_DEV | if volume.writable { 0 } else { READ_ONLY };
    let attributes = MountAttributes { set, idmap: owner.as_ref().map(AsFd::as_fd), recursive: false };
    set_attributes(mount.as_fd(), attributes).act(|| {
        format!("map the ids of the volume {} (its file system must support idmapped mounts)", volume.at)
    })?;
    Ok(mount)
}

/// Maps the owner of a directory to root inside.
fn owner_namespace(
    volume: &Volume,
    directory: &OwnedFd,
    ids: IdBlock,
) -> Result<HeldUserNamespace, JailError> {
    let status = fstat(directory).act(|| format!("look at the volume {}", volume.at))?;
    let (user, group) = (status.st_uid, status.st_gid);
    // Whoever writes here can leave set-id files behind, which are the owner's.
    if volume.writable && (user == 0 || group == 0) {
        return Err(JailError::Plan(format!(
            "the volume {} belongs to user {user} and group {group} of the host: it cannot be written to",
            volume.at
        )));
    }
    HeldUserNamespace::new(&one_id(user, ids), &one_id(group, ids))
        .act(|| format!("map the owner of the volume {}", volume.at))
}

/// One id of the host stands for root inside.
fn one_id(owner: u32, ids: IdBlock) -> String {
    format!("{owner} {} 1\n", ids.first)
}

/// Opens the directory; no link on the way leads out of what the operator allowed.
fn open_beneath(volume: &Volume) -> Result<OwnedFd, JailError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(&volume.root, flags | OFlags::NOFOLLOW, Mode::empty())
        .act(|| format!("open {}", volume.root.display()))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, &volume.beneath, flags, Mode::empty(), resolve)
        .act(|| format!("open the volume {} beneath {}", volume.beneath.display(), volume.root.display()))
}
