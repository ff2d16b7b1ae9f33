// SPDX-License-Identifier: Apache-2.0
//! The control: the same attempts without a wall, in kernel namespaces of their own.
//!
//! ```text
//! control ── unshare all, spawn ──▶ control-root (PID 1): a root file system in memory ── spawn ──▶ control-run
//! ```
//!
//! What is mounted, named, made or killed there ends with it. It has a pid namespace, so nothing of it can stay.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// `CLONE_NEWTIME` (`linux/sched.h`).
const NEW_TIME: i32 = 0x80;
/// How long a control may take, in seconds.
const SECONDS_MAX: u32 = 60;
/// The program's place in the control's root file system.
const PROGRAM: &str = "msb-probe";
const DIRECTORIES: [&str; 8] = ["proc", "sys", "dev", "tmp", "etc", "root", "run", "var"];
const NODES: [(&str, u32, u32); 5] =
    [("null", 1, 3), ("zero", 1, 5), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Makes the kernel namespaces and tries the lines in them; `root` is an empty directory.
pub(crate) fn control(root: &str, ids: &[&str]) -> io::Result<()> {
    end_with_parent()?;
    // Whatever hangs ends with this process, see `end_with_parent`.
    nix::unistd::alarm::set(SECONDS_MAX);
    // No terminal, so that no attempt can reach the one of who runs this.
    let _ = rustix::process::setsid();
    become_root()?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all).map_err(|error| failed("make kernel namespaces", error.into()))?;
    // Kernels before 5.6 have no time namespaces; the attempts on clocks set none.
    let _ = unshare(CloneFlags::from_bits_retain(NEW_TIME));
    spawn("/proc/self/exe", "control-root", Some(root), ids)
}

/// Makes the root file system and tries the lines on it; this is PID 1 of its pid namespace.
pub(crate) fn control_root(root: &str, ids: &[&str]) -> io::Result<()> {
    end_with_parent()?;
    if std::process::id() != 1 {
        return Err(io::Error::other("this is a part of the control, not for itself"));
    }
    make_root(Path::new(root))?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    sys::network::bring_loopback_up()?;
    spawn(&format!("/{PROGRAM}"), "control-run", None, ids)
}

/// Makes an ordinary user root of a user namespace: the most that he can be without a wall.
fn become_root() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if user.is_root() {
        return Ok(());
    }
    sys::namespace::unshare_users().map_err(|error| failed("make a user namespace", error))?;
    fs_err::write("/proc/self/setgroups", "deny")?;
    fs_err::write("/proc/self/uid_map", format!("0 {} 1\n", user.as_raw()))?;
    fs_err::write("/proc/self/gid_map", format!("0 {} 1\n", group.as_raw()))
}

fn spawn(program: &str, part: &str, root: Option<&str>, ids: &[&str]) -> io::Result<()> {
    let status = Command::new(program)
        .arg(part)
        .args(root)
        .args(ids)
        .env_clear()
        .stdin(Stdio::null())
        .status()
        .map_err(|error| failed(part, error))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{part} ended with {status}"))) }
}

fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn make_root(root: &Path) -> io::Result<()> {
    let at = |path: &str| root.join(path);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let none = MountFlags::empty();
    mount("none", root, "tmpfs", none, c"mode=0755")?;
    for directory in DIRECTORIES {
        fs_err::create_dir(at(directory))?;
    }
    // Read through the descriptor that the kernel keeps: the file's name means nothing here.
    fs_err::copy("/proc/self/exe", at(PROGRAM))?;
    fs_err::set_permissions(at(PROGRAM), std::fs::Permissions::from_mode(0o755))?;
    mount("none", at("proc"), "proc", none, None)?;
    mount("none", at("sys"), "sysfs", none, None)?;
    mount("none", at("dev"), "tmpfs", none, c"mode=0755")?;
    for directory in ["pts", "shm"] {
        fs_err::create_dir(at("dev").join(directory))?;
    }
    for (name, major, minor) in NODES {
        let (path, mode) = (at("dev").join(name), Mode::from_raw_mode(0o666));
        match mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)) {
            // Root of a user's own namespace has the host's nodes alone.
            Err(rustix::io::Errno::PERM) => {
                fs_err::write(&path, "")?;
                mount_bind(Path::new("/dev").join(name), &path)?;
            }
            made => made?,
        }
    }
    mount("none", at("dev/pts"), "devpts", none, c"newinstance,ptmxmode=0666,mode=0620")?;
    symlink("pts/ptmx", at("dev/ptmx"))?;
    mount("none", at("dev/shm"), "tmpfs", none, c"mode=1777")?;
    mount("none", at("tmp"), "tmpfs", none, c"mode=1777")?;
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn failed(what: &str, error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EPERM) {
        return io::Error::other(format!("the control cannot {what}: it needs the rights of root"));
    }
    io::Error::other(format!("the control cannot {what}: {error}"))
}
