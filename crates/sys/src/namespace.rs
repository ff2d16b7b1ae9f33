// SPDX-License-Identifier: Apache-2.0
//! A fork straight into new kernel namespaces (`clone3(2)`).

use std::fs;
use std::io;
use std::mem::{size_of, zeroed};

/// The kernel namespaces that one call makes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// User, mount, pid, net, ipc and uts.
    pub const SANDBOX: Namespaces = Namespaces(
        (libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS) as u64,
    );
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The caller; the pid is the new process, as seen from here.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks into new kernel namespaces; the new process becomes a sibling: its parent is the caller's parent.
///
/// # Errors
/// `EBUSY` when the process has more than one thread (a fork would leave locks held by nobody); else what the kernel says.
pub fn fork_sibling_into(namespaces: Namespaces) -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { zeroed() };
    arguments.flags = namespaces.0 | libc::CLONE_PARENT as u64;
    // SAFETY: without CLONE_VM the child has a copy of this memory, as after fork(2); there is exactly one thread
    // (checked above), so no lock is left behind locked. No stack is given: the child goes on where the parent is.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match i32::try_from(result) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this process a cgroup namespace whose root is the cgroup it is in now.
///
/// # Errors
/// What the kernel says.
pub fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: unshare with this flag touches no memory and no descriptor.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives this process a mount namespace of its own.
///
/// # Errors
/// What the kernel says.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: as above; paths resolve in the copy from now on, descriptors keep what they refer to.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
