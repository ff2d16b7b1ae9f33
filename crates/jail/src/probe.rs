// SPDX-License-Identifier: Apache-2.0
//! `msb-jail --probe DIRECTORY`: tries on this host, one by one, what the walls of a sandbox are made of.
//!
//! Each trial happens in a process of its own that ends with it, so nothing of it is left. The directory is where layers
//! of images would be: whether their ids can be mapped depends on its file system.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jail::facts::{Facts, Trial, What};
use jail::rights::Rights;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Resource, Rlimit, setrlimit};
use sys::mount::{MountAttributes, READ_ONLY, set_attributes};
use sys::namespace::{Fork, Namespaces, fork_into, leave};
use sys::seccomp::Instruction;

use crate::confine::{Open, confine};
use crate::own_root;

/// Ids that every sandbox gets.
const IDS: u32 = 65_536;
/// Where the ids of the trial begin. Whose they are makes no difference: nothing is done with them.
const FIRST_ID: u32 = 0x7000_0000;
/// A limit on core dumps of exactly this means "none", also where a program takes them (`core(5)`).
pub(crate) const NO_CORE_BYTES: u64 = 1;

type Outcome = Result<(), String>;

/// Tries everything.
pub(crate) fn facts(directory: &Path, rights: &Rights) -> Facts {
    let namespaces = [
        (What::UserNamespace, Namespaces::USER),
        (What::MountNamespace, Namespaces::MOUNT),
        (What::PidNamespace, Namespaces::PID),
        (What::NetworkNamespace, Namespaces::NETWORK),
        (What::IpcNamespace, Namespaces::IPC),
        (What::UtsNamespace, Namespaces::UTS),
        (What::CgroupNamespace, Namespaces::CGROUP),
    ];
    let mut outcomes: Vec<(What, Outcome)> =
        namespaces.into_iter().map(|(what, kind)| (what, in_child(kind, || Ok(())))).collect();
    outcomes.extend(match rights {
        Rights::Root => ids(directory),
        Rights::User(_) => own_ids(rights),
    });
    outcomes.push((What::Seccomp, in_child(Namespaces::NONE, filter_refuses)));
    outcomes.push((What::Landlock, in_child(Namespaces::NONE, || landlock_closes(directory))));
    outcomes.push((What::CoreDumpsOff, crash_without_core(directory)));
    let trial = |(what, outcome): (What, Outcome)| Trial { what, failed: outcome.err() };
    Facts { trials: outcomes.into_iter().map(trial).collect() }
}

/// Does something in a new process, and returns what it came to.
fn in_child(namespaces: Namespaces, act: impl FnOnce() -> Outcome) -> Outcome {
    let (mut reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
    match fork_into(namespaces).map_err(|error| error.to_string())? {
        Fork::Child => {
            let failed = act().err().unwrap_or_default();
            let written = writer.write_all(failed.as_bytes());
            leave(if failed.is_empty() && written.is_ok() { 0 } else { 1 })
        }
        Fork::Parent(pid) => {
            drop(writer);
            let mut failed = String::new();
            let read = reader.read_to_string(&mut failed);
            match (waitpid(Pid::from_raw(pid), None), read) {
                (Ok(WaitStatus::Exited(_, 0)), Ok(0)) => Ok(()),
                (Ok(_), Ok(1..)) => Err(failed),
                (status, _) => Err(format!("the trial ended with {status:?}")),
            }
        }
    }
}

/// Maps a range of ids into a user namespace, and a mount of the directory to them.
fn ids(directory: &Path) -> [(What, Outcome); 2] {
    let (range, layers) = match mapped(directory) {
        Ok(layers) => (Ok(()), layers),
        Err(error) => (Err(error.clone()), Err(format!("there are no ids to map: {error}"))),
    };
    [(What::IdRange, range), (What::IdmappedLayers, layers)]
}

/// Takes the rights of a user.
fn own_ids(rights: &Rights) -> [(What, Outcome); 2] {
    let taken = in_child(Namespaces::NONE, || own_root::take(rights).map_err(|error| error.to_string()));
    let layers = "only root can map the ids of a mount".to_owned();
    [(What::IdRange, taken), (What::IdmappedLayers, Err(layers))]
}

fn mapped(directory: &Path) -> Result<Outcome, String> {
    let text = |error: std::io::Error| error.to_string();
    let (mut reader, writer) = std::io::pipe().map_err(text)?;
    let pid = match fork_into(Namespaces::USER).map_err(text)? {
        Fork::Child => {
            drop(writer);
            // Until the other end is closed.
            let _ = reader.read(&mut [0]);
            leave(0)
        }
        Fork::Parent(pid) => pid,
    };
    drop(reader);
    let map = |file: &str| {
        let mut opened = File::options().write(true).open(format!("/proc/{pid}/{file}"))?;
        opened.write_all(format!("0 {FIRST_ID} {IDS}\n").as_bytes())
    };
    let outcome = map("uid_map").and_then(|()| map("gid_map")).map_err(text).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        let namespace = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace = namespace.map_err(|error| error.to_string())?;
        Ok(idmapped(directory, &namespace))
    });
    drop(writer);
    let _ = waitpid(Pid::from_raw(pid), None);
    outcome
}

fn idmapped(directory: &Path, namespace: &OwnedFd) -> Outcome {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, directory, flags).map_err(|error| error.to_string())?;
    let attributes =
        MountAttributes { set: READ_ONLY, idmap: Some(namespace.as_fd()), ..MountAttributes::default() };
    set_attributes(mount.as_fd(), attributes)
        .map_err(|error| format!("the file system of {} refuses it: {error}", directory.display()))
}

/// Installs a filter that refuses `getpriority`, and makes that call.
fn filter_refuses() -> Outcome {
    let step = |code, jump_true, jump_false, operand| Instruction { code, jump_true, jump_false, operand };
    let number = u32::try_from(nix::libc::SYS_getpriority).unwrap_or_default();
    let program = [
        step(0x20, 0, 0, 0),           // load the number of the call
        step(0x15, 0, 1, number),      // is it that one?
        step(0x06, 0, 0, 0x0005_0001), // EPERM
        step(0x06, 0, 0, 0x7fff_0000), // allowed
    ];
    rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string())?;
    sys::seccomp::install(&program).map_err(|error| error.to_string())?;
    match rustix::process::getpriority_process(None) {
        Err(rustix::io::Errno::PERM) => Ok(()),
        other => Err(format!("a filter that refuses a call lets it through: {other:?}")),
    }
}

/// Shuts itself into the directory, and opens something outside through a descriptor that it held before.
fn landlock_closes(directory: &Path) -> Outcome {
    let held = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("cannot open {}: {error}", path.display()))
    };
    let (inside, outside) = (held(directory)?, held(Path::new("/"))?);
    rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string())?;
    confine(&Open { root: &inside, dev: None, queues: None, program: None })?;
    let read = |of: &OwnedFd| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(of, ".", flags, Mode::empty()).map(drop)
    };
    match (read(&inside), read(&outside)) {
        (Ok(()), Err(rustix::io::Errno::ACCESS)) => Ok(()),
        (inside, outside) => Err(format!("inside it gives {inside:?} and outside {outside:?}")),
    }
}

/// Has a process crash, in the directory, and looks whether the kernel says that there is a core dump.
fn crash_without_core(directory: &Path) -> Outcome {
    match fork_into(Namespaces::NONE).map_err(|error| error.to_string())? {
        Fork::Child => {
            let limit = Rlimit { current: Some(NO_CORE_BYTES), maximum: Some(NO_CORE_BYTES) };
            if rustix::process::chdir(directory).is_err() || setrlimit(Resource::Core, limit).is_err() {
                leave(1)
            }
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGABRT);
            leave(2)
        }
        Fork::Parent(pid) => match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Signaled(_, _, false)) => Ok(()),
            Ok(WaitStatus::Signaled(_, _, true)) => {
                Err("a crash leaves a core dump, whatever its limit".to_owned())
            }
            Ok(WaitStatus::Exited(_, 1)) => Err("the limit on core dumps cannot be set".to_owned()),
            other => Err(format!("the trial ended with {other:?}")),
        },
    }
}
