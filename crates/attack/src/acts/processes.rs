// SPDX-License-Identifier: Apache-2.0
//! Many processes: so many that they can be counted, or until somebody ends it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use attack::line::Kind;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::attempt::{exit_copy, fork};
use sys::namespace::Fork;

/// A small stack: the thread waits for one byte.
const STACK_BYTES: usize = 64 * 1024;

/// Makes processes, at most so many, and returns how many there were at once; they end with this one.
pub(super) fn multiply(kind: Kind, most: u32) -> io::Result<i64> {
    // Whoever waits at its end of the pipe is woken when this process is gone, whatever the reason.
    let (wait, held) = pipe_with(PipeFlags::CLOEXEC)?;
    match kind {
        Kind::Forks => forks(most, wait, held),
        Kind::Threads => threads(most, wait, held),
        Kind::Daemons => daemons(most, wait, held),
    }
}

fn forks(most: u32, wait: OwnedFd, held: OwnedFd) -> io::Result<i64> {
    let mut count = 0;
    while count < i64::from(most) {
        match fork() {
            Ok(Fork::Child) => {
                drop(held);
                wait_for_end(wait);
            }
            Ok(Fork::Parent(_)) => count += 1,
            Err(_) => break,
        }
    }
    Ok(count)
}

fn threads(most: u32, wait: OwnedFd, held: OwnedFd) -> io::Result<i64> {
    let mut count = 0;
    while count < i64::from(most) {
        let mut reader = File::from(wait.try_clone()?);
        let waiting = move || {
            let _ = reader.read(&mut [0]);
        };
        match std::thread::Builder::new().stack_size(STACK_BYTES).spawn(waiting) {
            Ok(_) => count += 1,
            Err(_) => break,
        }
    }
    // They end with the process, which must not wait for them.
    std::mem::forget(held);
    Ok(count)
}

fn daemons(most: u32, wait: OwnedFd, held: OwnedFd) -> io::Result<i64> {
    let (count, born) = pipe_with(PipeFlags::CLOEXEC)?;
    for _ in 0..most {
        match fork() {
            Ok(Fork::Child) => {
                drop((held, count));
                let _ = rustix::process::setsid();
                if let Ok(Fork::Child) = fork() {
                    let _ = rustix::io::write(&born, b"x");
                    drop(born);
                    wait_for_end(wait);
                }
                exit_copy(0);
            }
            Ok(Fork::Parent(child)) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None)?;
            }
            Err(_) => break,
        }
    }
    drop(born);
    let mut total = 0;
    let mut chunk = [0; 4096];
    rustix::fs::fcntl_setfl(&count, rustix::fs::OFlags::NONBLOCK)?;
    // Each has written before its parent ended, and parents were waited for, but for the last moment of the last one.
    while let Ok(bytes @ 1..) = rustix::io::read(&count, &mut chunk) {
        total += i64::try_from(bytes).unwrap_or(0);
    }
    Ok(total)
}

/// Waits until the other end of a pipe is closed, and ends this copy.
fn wait_for_end(wait: OwnedFd) -> ! {
    let _ = File::from(wait).read(&mut [0]);
    exit_copy(0)
}

/// Leaves this many processes that wait for each other, and comes back: they are below whoever adopts them.
pub(crate) fn hold_many(act: impl Fn(u32)) -> io::Result<()> {
    let (ready, written) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            drop(ready);
            let _ = rustix::process::setsid();
            close_standard();
            act(u32::MAX);
            let _ = File::from(written).write_all(b"x");
            loop {
                nix::unistd::pause();
            }
        }
        Fork::Parent(_) => {
            drop(written);
            let mut byte = [0];
            File::from(ready).read_exact(&mut byte)
        }
    }
}

/// Lets nobody wait for this process's output.
pub(crate) fn close_standard() {
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// A bomb: every process makes more, for as long as it lives.
pub(crate) fn multiply_until_killed(kind: Kind) -> io::Result<()> {
    loop {
        match kind {
            Kind::Forks => drop(fork()),
            // Started by the kind of fork that shares memory until the program is another one.
            Kind::Threads => {
                let next = ["play", "bomb", "threads"];
                let _ = Command::new("/proc/self/exe").args(next).stdin(Stdio::null()).spawn();
            }
            Kind::Daemons => {
                if let Ok(Fork::Child) = fork() {
                    let _ = rustix::process::setsid();
                    if let Ok(Fork::Parent(_)) = fork() {
                        exit_copy(0);
                    }
                }
            }
        }
    }
}
