// SPDX-License-Identifier: Apache-2.0
//! The loopback interface of a fresh network namespace.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Brings `lo` up (`netdevice(7)`, SIOCSIFFLAGS); its addresses come with that.
///
/// # Errors
/// What the kernel says.
pub fn bring_loopback_up() -> io::Result<()> {
    // SAFETY: socket(2) takes integers only.
    let number = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: ifreq is integers, arrays and a union of them: all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call, its name ending in a zero byte.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
