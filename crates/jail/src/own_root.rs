// SPDX-License-Identifier: Apache-2.0
//! How an ordinary user becomes root, of a user namespace of his own (`user_namespaces(7)`).
//!
//! One id he may map himself. More of them map the programs `newuidmap` and `newgidmap`, which must be called from
//! outside: a copy of this process stays there for that.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use jail::rights::{Rights, SubIds, UserIds};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::thread::set_thread_groups;
use sys::namespace::{Fork, Namespaces, fork_into, leave};

use crate::error::{Act, JailError};

/// Most bytes of what a mapping program says.
const SAID_BYTES_MAX: u64 = 1000;

/// Takes the rights of root where this process does not have them.
pub(crate) fn take(rights: &Rights) -> Result<(), JailError> {
    let Rights::User(ids) = rights else { return Ok(()) };
    match &ids.more {
        None => take_one(ids),
        Some(more) => take_range(ids, more),
    }
}

fn take_one(ids: &UserIds) -> Result<(), JailError> {
    unshare()?;
    // Groups can be used to refuse something to their members, so nobody may leave one that he did not get here.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {} 1\n", ids.user)),
        ("gid_map", format!("0 {} 1\n", ids.group)),
    ] {
        File::options()
            .write(true)
            .open(format!("/proc/self/{file}"))
            .and_then(|mut opened| opened.write_all(text.as_bytes()))
            .act(|| format!("write {file} of the user's own namespace ({})", text.trim()))?;
    }
    Ok(())
}

fn take_range(ids: &UserIds, more: &SubIds) -> Result<(), JailError> {
    let pid = std::process::id();
    let pipe = || std::io::pipe().act(|| "make a pipe".to_owned());
    let ((mut wait, go), (mut answer, mut answers)) = (pipe()?, pipe()?);
    let mapper = match fork_into(Namespaces::NONE).act(|| "fork".to_owned())? {
        Fork::Child => {
            drop(go);
            // Until the other end is closed: the namespace is there, or its maker is gone.
            let _ = wait.read(&mut [0]);
            let failed = map(pid, ids, more).err().unwrap_or_default();
            let written = answers.write_all(failed.as_bytes());
            leave(if failed.is_empty() && written.is_ok() { 0 } else { 1 })
        }
        Fork::Parent(mapper) => mapper,
    };
    drop(answers);
    unshare()?;
    drop(go);
    let mut said = String::new();
    let read = answer.read_to_string(&mut said);
    match (waitpid(Pid::from_raw(mapper), None), read) {
        (Ok(WaitStatus::Exited(_, 0)), Ok(_)) => {}
        (status, _) if said.is_empty() => {
            return Err(JailError::Plan(format!("the ids were not mapped: {status:?}")));
        }
        _ => return Err(JailError::Plan(said)),
    }
    set_thread_groups(&[]).act(|| "drop the user's groups".to_owned())
}

fn map(pid: u32, ids: &UserIds, more: &SubIds) -> Result<(), String> {
    run(&more.map_users, pid, ids.user, more.first_user, more.count)?;
    run(&more.map_groups, pid, ids.group, more.first_group, more.count)
}

fn run(program: &Path, pid: u32, own: u32, first: u32, count: u32) -> Result<(), String> {
    let name = program.display();
    let output = Command::new(program)
        .args([pid, 0, own, 1, 1, first, count].map(|number| number.to_string()))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::new();
    let _ = output.stderr.as_slice().take(SAID_BYTES_MAX).read_to_string(&mut said);
    Err(format!("{name} refused: {}", said.lines().next().unwrap_or("it does not say why").escape_debug()))
}

fn unshare() -> Result<(), JailError> {
    sys::namespace::unshare_users().act(|| "make a user namespace".to_owned())
}
