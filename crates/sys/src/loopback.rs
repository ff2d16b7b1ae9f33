// SPDX-License-Identifier: Apache-2.0
//! Loop devices: a file as a block device (`loop(4)`).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE` (Linux 5.8), `LOOP_GET_STATUS64`.
const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
const GET_STATUS: libc::Ioctl = 0x4C05;
/// The device lets go of its file when nobody has it open any more (`LO_FLAGS_AUTOCLEAR`).
const AUTOCLEAR: u32 = 4;
/// Writes go past the page cache, which has them already (`LO_FLAGS_DIRECT_IO`); ignored where the file cannot.
const DIRECT_IO: u32 = 16;
/// Bytes that are read and written at once: what every disk can.
const BLOCK_BYTES: u32 = 4096;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Asks `/dev/loop-control` for the number of a device that nobody uses; somebody else may be quicker.
///
/// # Errors
/// What the kernel says.
pub fn free_number(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this order takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts a file behind a device, until the last one who has the device open closes it.
///
/// # Errors
/// `EBUSY` when the device has a file already; else what the kernel says.
pub fn attach(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the structure is integers and arrays of them: all zeroes is a valid value.
    let mut configuration: Configuration = unsafe { zeroed() };
    configuration.fd = file.as_raw_fd().unsigned_abs();
    configuration.block_size = BLOCK_BYTES;
    configuration.info.flags = AUTOCLEAR | DIRECT_IO;
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which lives across the call; both descriptors are borrowed.
    if unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const configuration) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns device and inode number of the file behind a device; `None` when it has none.
///
/// # Errors
/// What the kernel says.
pub fn file_behind(device: BorrowedFd<'_>) -> io::Result<Option<(u64, u64)>> {
    // SAFETY: as above.
    let mut info: Info = unsafe { zeroed() };
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64, which lives across the call and may hold any bytes.
    if unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &raw mut info) } < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) };
    }
    Ok(Some((info.device, info.inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_sizes_that_the_kernel_knows() {
        assert_eq!((size_of::<Info>(), size_of::<Configuration>()), (232, 304));
    }
}
