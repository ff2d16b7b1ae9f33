// SPDX-License-Identifier: Apache-2.0
//! A fork straight into new kernel namespaces (`clone3(2)`).

use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
    /// None: a plain fork.
    pub const NONE: Namespaces = Namespaces(0);
    /// User.
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u64);
    /// User and mount.
    pub const MOUNT: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64);
    /// User and pid.
    pub const PID: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64);
    /// User and net.
    pub const NETWORK: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64);
    /// User and ipc.
    pub const IPC: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) as u64);
    /// User and uts.
    pub const UTS: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWUTS) as u64);
    /// User and cgroup.
    pub const CGROUP: Namespaces = Namespaces((libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP) as u64);
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
    fork_with(namespaces.0 | libc::CLONE_PARENT as u64, 0)
}

/// Forks into new kernel namespaces; the new process is a child of the caller.
///
/// # Errors
/// As for [`fork_sibling_into`].
pub fn fork_into(namespaces: Namespaces) -> io::Result<Fork> {
    fork_with(namespaces.0, libc::SIGCHLD as u64)
}

/// Ends this process at once: nothing of what it inherited is flushed or run.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

fn fork_with(flags: u64, exit_signal: u64) -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = exit_signal;
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

/// Gives this process a user namespace of its own, in which it has every capability and no id is mapped yet.
///
/// # Errors
/// `EBUSY` when this process has more than one thread; else what the kernel says.
pub fn unshare_users() -> io::Result<()> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: unshare with this flag touches no memory and no descriptor.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } < 0 {
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

/// A user namespace with id maps and without processes, for mounts whose ids it shall map.
#[derive(Debug)]
pub struct HeldUserNamespace(OwnedFd);

impl HeldUserNamespace {
    /// Makes one with these maps, as `/proc/<pid>/uid_map` takes them (`user_namespaces(7)`).
    ///
    /// # Errors
    /// `EBUSY` when this process has more than one thread; else what the kernel says.
    pub fn new(user_map: &str, group_map: &str) -> io::Result<HeldUserNamespace> {
        if thread_count()? != 1 {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let (wait, go) = io::pipe()?;
        // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
        let mut arguments: libc::clone_args = unsafe { zeroed() };
        arguments.flags = libc::CLONE_NEWUSER as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        // SAFETY: as in fork_sibling_into; the child only waits for the end of a pipe and exits.
        let result =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        let pid = match i32::try_from(result) {
            Ok(0) => {
                drop(go);
                wait_for_end_and_exit(&wait.into());
            }
            Ok(pid) if pid > 0 => pid,
            _ => return Err(io::Error::last_os_error()),
        };
        let made = map_and_open(pid, user_map, group_map);
        drop(go);
        let mut status = 0;
        // SAFETY: the pid is a child of ours that nobody else waits for; `status` lives across the call.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        made.map(HeldUserNamespace)
    }
}

impl AsFd for HeldUserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn map_and_open(pid: i32, user_map: &str, group_map: &str) -> io::Result<OwnedFd> {
    for (file, map) in [("uid_map", user_map), ("gid_map", group_map)] {
        let mut opened = fs::File::options().write(true).open(format!("/proc/{pid}/{file}"))?;
        io::Write::write_all(&mut opened, map.as_bytes())?;
    }
    Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// Holds a namespace until the other end of a pipe is closed.
fn wait_for_end_and_exit(pipe: &OwnedFd) -> ! {
    use std::os::fd::AsRawFd;
    let mut byte = 0_u8;
    // SAFETY: read writes at most one byte, into `byte`; _exit runs nothing of the copied process.
    unsafe {
        libc::read(pipe.as_raw_fd(), (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
