// SPDX-License-Identifier: Apache-2.0
//! What the writable layers of a sandbox begin with.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chownat};

/// Directories that every sandbox has, whatever its image brings: its home, room for temporary files, and `/etc`.
const OWN_DIRECTORIES: [(&str, u32); 3] = [("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)];

/// Who root inside is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The user.
    pub(crate) user: u32,
    /// The group.
    pub(crate) group: u32,
}

/// The layers of a sandbox that is about to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLayers<'a> {
    /// How many there are: one for each mount of the rootfs.
    pub(crate) mounts: usize,
    /// Whose they are.
    pub(crate) owner: Owner,
    /// The files with which `/etc` of the first one begins: name and text.
    pub(crate) etc: &'a [(&'a str, String)],
    /// The most that all of them together may take on the disk, in bytes.
    pub(crate) bytes_max: u64,
}

/// Makes the layers below a directory: `0/upper`, `0/work`, `1/upper`, and so on.
pub(super) fn fill(layers: &Path, new: &NewLayers<'_>) -> io::Result<()> {
    for number in 0..new.mounts {
        let layer = layers.join(number.to_string());
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        fs_err::create_dir(&layer)?;
        for directory in [&upper, &work] {
            fs_err::create_dir(directory)?;
            give(directory, new.owner, 0o755)?;
        }
        if number == 0 {
            for (name, mode) in OWN_DIRECTORIES {
                fs_err::create_dir(upper.join(name))?;
                give(&upper.join(name), new.owner, mode)?;
            }
            for (name, text) in new.etc {
                let file = upper.join("etc").join(name);
                fs_err::write(&file, text)?;
                give(&file, new.owner, 0o644)?;
            }
        }
    }
    Ok(())
}

fn give(path: &Path, owner: Owner, mode: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
