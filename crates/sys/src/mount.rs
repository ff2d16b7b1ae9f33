// SPDX-License-Identifier: Apache-2.0
//! `mount_setattr(2)`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change on a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttributes<'fd> {
    /// `MOUNT_ATTR_*` flags to set.
    pub set: u64,
    /// A user namespace whose id maps the mount shall apply to its files.
    pub idmap: Option<BorrowedFd<'fd>>,
    /// Whether the mounts below it change too.
    pub recursive: bool,
}

/// The mount cannot be written through.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Set-id bits and file capabilities mean nothing on it.
pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes on it cannot be opened.
pub const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
/// Nothing on it can be executed.
pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Changes the attributes of the mount that a descriptor stands for.
///
/// # Errors
/// `EINVAL` where the file system takes no id map; else what the kernel says.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: MountAttributes<'_>) -> io::Result<()> {
    let (flag, userns_fd) = match attributes.idmap {
        Some(fd) => (libc::MOUNT_ATTR_IDMAP, u64::from(fd.as_raw_fd().unsigned_abs())),
        None => (0, 0),
    };
    let attr = libc::mount_attr { attr_set: attributes.set | flag, attr_clr: 0, propagation: 0, userns_fd };
    let flags = libc::AT_EMPTY_PATH | if attributes.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and `attr` a whole mount_attr, both alive across the call; the descriptors
    // are borrowed, so they stay open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
