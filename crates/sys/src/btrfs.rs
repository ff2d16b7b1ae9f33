// SPDX-License-Identifier: Apache-2.0
//! Subvolumes of btrfs and their quotas (`linux/btrfs.h`). All of it needs CAP_SYS_ADMIN.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BTRFS_IOCTL_MAGIC`.
const MAGIC: u64 = 0x94;
/// Directions of an ioctl, as seen from user space.
const NONE: u64 = 0;
const WRITE: u64 = 1;
const READ: u64 = 2;
/// The inode number of every subvolume's root directory (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_DIRECTORY: u64 = 256;
/// Bytes of the longest name in `struct btrfs_ioctl_vol_args`, its zero byte included.
const NAME_BYTES: usize = 4088;

/// How a file system counts what each subvolume uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// Each extent counts for the subvolume that made it (Linux 6.7).
    Simple,
    /// Extents are searched for those who share them.
    Full,
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; NAME_BYTES],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_fs_info_args`, as far as it is of interest.
#[repr(C)]
struct FileSystemInfo {
    max_id: u64,
    devices: u64,
    id: [u8; 16],
    rest: [u64; 124],
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
#[derive(Default)]
struct GroupLimit {
    group: u64,
    flags: u64,
    referenced_max: u64,
    exclusive_max: u64,
    referenced_reserved: u64,
    exclusive_reserved: u64,
}

/// Makes an empty subvolume in a directory.
///
/// # Errors
/// `EEXIST` when there is something of that name; else what the kernel says.
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    command(parent, WRITE, 14, &mut named(name)?)
}

/// Removes a subvolume with all that is in it; its space is given back in the background.
///
/// # Errors
/// `ENOENT` when there is none of that name; else what the kernel says.
pub fn destroy_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    command(parent, WRITE, 15, &mut named(name)?)
}

/// Returns the number of the subvolume that a directory is in; its quota group has the same.
///
/// # Errors
/// `ENOTTY` when the file system is no btrfs; else what the kernel says.
pub fn subvolume_of(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let mut lookup = InodeLookup { tree: 0, object: ROOT_DIRECTORY, name: [0; 4080] };
    command(directory, READ | WRITE, 18, &mut lookup)?;
    Ok(lookup.tree)
}

/// Returns the id of a file system, as `/sys/fs/btrfs` calls its directory.
///
/// # Errors
/// `ENOTTY` when it is no btrfs; else what the kernel says.
pub fn file_system_id(directory: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = FileSystemInfo { max_id: 0, devices: 0, id: [0; 16], rest: [0; 124] };
    command(directory, READ, 31, &mut info)?;
    let mut text = String::with_capacity(36);
    for (index, byte) in info.id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

/// Switches the counting of subvolumes on.
///
/// # Errors
/// `EINVAL` when the kernel does not know this accounting; `EEXIST` when there is one already.
pub fn enable_quota(directory: BorrowedFd<'_>, accounting: Accounting) -> io::Result<()> {
    // BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA and BTRFS_QUOTA_CTL_ENABLE.
    let order = match accounting {
        Accounting::Simple => 4_u64,
        Accounting::Full => 1,
    };
    command(directory, READ | WRITE, 40, &mut [order, 0])
}

/// Waits until the first full count is through, where one was begun.
///
/// # Errors
/// What the kernel says.
pub fn wait_for_count(directory: BorrowedFd<'_>) -> io::Result<()> {
    command(directory, NONE, 46, &mut [(); 0])
}

/// Limits what the subvolume of a directory may refer to, data and metadata together.
///
/// # Errors
/// What the kernel says.
pub fn limit_subvolume(directory: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    // Group 0 is the one of the subvolume that the descriptor is in; flag 1 is BTRFS_QGROUP_LIMIT_MAX_RFER.
    let mut limit = GroupLimit { flags: 1, referenced_max: bytes, ..GroupLimit::default() };
    command(directory, READ, 43, &mut limit)
}

/// Removes the quota group of a subvolume that was destroyed.
///
/// # Errors
/// `EBUSY` while the kernel still gives the space back; `ENOENT` when it is gone.
pub fn remove_group(directory: BorrowedFd<'_>, subvolume: u64) -> io::Result<()> {
    command(directory, WRITE, 42, &mut [0, subvolume])
}

/// Writes what the file system has in memory of its trees, so that its counts are up to date; data that waits to be
/// written goes on waiting.
///
/// # Errors
/// What the kernel says.
pub fn commit(directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut transaction = 0_u64;
    command(directory, READ, 24, &mut transaction)?;
    command(directory, WRITE, 22, &mut transaction)
}

fn named(name: &CStr) -> io::Result<VolumeArguments> {
    let bytes = name.to_bytes_with_nul();
    let mut arguments = VolumeArguments { fd: 0, name: [0; NAME_BYTES] };
    let room = arguments.name.get_mut(..bytes.len());
    room.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?.copy_from_slice(bytes);
    Ok(arguments)
}

/// Gives one order; `T` must be the plain integers that the kernel knows it by: its size is part of the number.
fn command<T>(directory: BorrowedFd<'_>, direction: u64, number: u64, argument: &mut T) -> io::Result<()> {
    let request = (direction << 30) | ((size_of::<T>() as u64) << 16) | (MAGIC << 8) | number;
    // SAFETY: the kernel reads and writes at most as many bytes as the request says, which is the size of `argument`,
    // borrowed for the call; every type given here is made of integers, for which all bytes are valid.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), request as libc::Ioctl, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn arguments_have_the_sizes_that_the_kernel_knows() {
        assert_eq!(size_of::<VolumeArguments>(), 4096);
        assert_eq!(size_of::<InodeLookup>(), 4096);
        assert_eq!(size_of::<FileSystemInfo>(), 1024);
        assert_eq!(size_of::<GroupLimit>(), 48);
    }

    #[test]
    fn what_is_no_btrfs_says_so() {
        let directory = std::fs::File::open("/proc").unwrap();
        let error = subvolume_of(directory.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        let error = create_subvolume(directory.as_fd(), &std::ffi::CString::new(vec![b'a'; 5000]).unwrap());
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    }
}
