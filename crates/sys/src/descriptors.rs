// SPDX-License-Identifier: Apache-2.0
//! Descriptors that a program was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

/// Descriptors that [`take_inherited`] gave out in this process.
static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes ownership of a descriptor that this process inherited at a fixed number, and makes it close on exec.
///
/// To be called before the process opens anything of its own.
///
/// # Errors
/// `EBADF` when nothing is open there, `EBUSY` when the number was taken before.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: fcntl with these commands reads and writes no memory of ours; a number that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.push(number);
    // SAFETY: the descriptor is open (checked above), and TAKEN sees to it that no second owner is made here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes every descriptor from `first` upwards close on exec (`close_range(2)`, Linux 5.11).
///
/// # Errors
/// What the kernel says.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing now: it sets a flag, so no owner in this process is invalidated.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
