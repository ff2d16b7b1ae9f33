// SPDX-License-Identifier: Apache-2.0
//! Locks between threads and between processes, which end with their holder.
//!
//! All are `flock`s, which belong to the opened file: two threads exclude each other as two processes do, and the kernel
//! frees the locks of whatever was killed.
//!
//! The store's own lock is held **shared** for a single step that adds something (pin and look, rename into place), and
//! **alone** for one that takes away (mark and sweep). It is never held while bytes are fetched or unpacked: those have
//! the lock of the one blob or layer.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use protocol::limits::IMAGE_LOCK_WAIT;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::StoreError;
use super::folder::Folder;

const STORE_LOCK: &str = "lock";

/// Who else may hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Others who hold it shared.
    Shared,
    /// Nobody.
    Alone,
}

/// The store's lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

/// Takes the store's lock.
pub(super) fn of_store(root: &Folder, hold: Hold) -> Result<StoreLock, StoreError> {
    let file = root.write(STORE_LOCK)?;
    wait(&file, hold, IMAGE_LOCK_WAIT, root, STORE_LOCK)?;
    Ok(StoreLock { _file: file })
}

/// Takes the store's lock alone, if nobody has it.
pub(super) fn of_store_if_free(root: &Folder) -> Result<Option<StoreLock>, StoreError> {
    let file = root.write(STORE_LOCK)?;
    let free = if_free(&file).map_err(|error| root.error("lock", STORE_LOCK, error))?;
    Ok(free.then_some(StoreLock { _file: file }))
}

/// Takes the lock of an opened file or directory alone, if it is free.
pub(super) fn if_free(opened: impl AsFd) -> Result<bool, Errno> {
    match rustix::fs::flock(opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the lock of what was opened as `name` in `folder`, and waits for it if need be, but not for ever.
pub(super) fn wait(
    opened: impl AsFd,
    hold: Hold,
    at_most: Duration,
    folder: &Folder,
    name: &str,
) -> Result<(), StoreError> {
    let (at_once, waiting) = match hold {
        Hold::Shared => (FlockOperation::NonBlockingLockShared, FlockOperation::LockShared),
        Hold::Alone => (FlockOperation::NonBlockingLockExclusive, FlockOperation::LockExclusive),
    };
    let error = |error: Errno| folder.error("lock", name, error);
    match rustix::fs::flock(&opened, at_once) {
        Ok(()) => return Ok(()),
        Err(Errno::WOULDBLOCK) => {}
        Err(other) => return Err(error(other)),
    }
    let twin = opened.as_fd().try_clone_to_owned().map_err(|other| folder.error("lock", name, other))?;
    match wait_in_thread(twin, waiting).recv_timeout(at_most) {
        Ok(answer) => answer.map_err(error),
        Err(_) => Err(StoreError::Busy(folder.path.join(name).display().to_string())),
    }
}

/// Waits in a thread, because `flock` has no deadline. The thread ends when the lock is free; if nobody waits for its
/// answer then, the lock goes with the last descriptor of the file, which is the thread's.
fn wait_in_thread(twin: OwnedFd, operation: FlockOperation) -> mpsc::Receiver<Result<(), Errno>> {
    let (answer, answered) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let result = rustix::io::retry_on_intr(|| rustix::fs::flock(&twin, operation));
        drop(twin);
        // An answer that comes too late has no reader.
        let _ = answer.send(result);
    });
    answered
}
