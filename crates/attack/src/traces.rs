// SPDX-License-Identifier: Apache-2.0
//! What one sandbox leaves, and another one must not find.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::time::Duration;

use attack::abi::{call, flags, text, word};
use attack::{Answer, Finding, MARK};
use nix::libc;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::attempt::{Call, attempt, exit_copy, fork};
use sys::namespace::Fork;

use crate::{acts, run, say};

/// The name of System V things.
const KEY: u64 = 0x6d73_6261;
/// The port on loopback.
const PORT: u16 = 46_721;
/// The abstract socket.
const ABSTRACT: &[u8] = b"msb-attack";
const FILE: &str = "/tmp/msb-attack-trace";
const SHARED_FILE: &str = "/dev/shm/msb-attack-trace";
const CALL_SECONDS: u32 = 5;
/// How long a connection on loopback may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// Makes all traces and stays, in the background, to keep those that end with their maker.
pub(crate) fn leave() -> io::Result<()> {
    let (ready, written) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            drop(ready);
            let _ = rustix::process::setsid();
            let made = make();
            acts::close_standard();
            let said = made.as_ref().err().map_or_else(String::new, ToString::to_string);
            let _ = std::fs::File::from(written).write_all(said.as_bytes());
            let Ok(_listeners) = made else { exit_copy(1) };
            loop {
                nix::unistd::pause();
            }
        }
        Fork::Parent(_) => {
            drop(written);
            let mut failure = String::new();
            std::fs::File::from(ready).take(4096).read_to_string(&mut failure)?;
            if failure.is_empty() { say("left") } else { Err(io::Error::other(failure)) }
        }
    }
}

fn make() -> io::Result<(UnixListener, TcpListener)> {
    fs_err::write(FILE, MARK)?;
    fs_err::write(SHARED_FILE, MARK)?;
    let create = libc::IPC_CREAT | 0o600;
    let calls = [
        call(libc::SYS_shmget, [word(KEY), word(4096), flags(create)]),
        call(libc::SYS_semget, [word(KEY), word(1), flags(create)]),
        call(libc::SYS_msgget, [word(KEY), flags(create)]),
        call(libc::SYS_mq_open, [text(MARK), flags(libc::O_CREAT | libc::O_RDWR), word(0o600), word(0)]),
    ];
    for one in calls {
        match run::answer(attempt(&[one], CALL_SECONDS), 0) {
            // Message queues may be closed to sandboxes altogether: then this one has none to leave.
            Answer::Returned(_) | Answer::Error(libc::EACCES) => {}
            other => return Err(io::Error::other(format!("a trace was not made: {other}"))),
        }
    }
    let abstract_socket = UnixListener::bind_addr(&UnixAddress::from_abstract_name(ABSTRACT)?)?;
    let port = TcpListener::bind(("127.0.0.1", PORT))?;
    Ok((abstract_socket, port))
}

/// Looks for a trace and prints what came of it.
pub(crate) fn find(name: &str) -> io::Result<()> {
    let by_call = |one: Call| run::answer(attempt(&[one], CALL_SECONDS), 0);
    let answer = match name {
        "file" => there(FILE),
        "shared-file" => there(SHARED_FILE),
        "segment" => by_call(call(libc::SYS_shmget, [word(KEY), word(0), word(0)])),
        "semaphores" => by_call(call(libc::SYS_semget, [word(KEY), word(0), word(0)])),
        "messages" => by_call(call(libc::SYS_msgget, [word(KEY), word(0)])),
        "queue" => by_call(call(libc::SYS_mq_open, [text(MARK), flags(libc::O_RDWR), word(0), word(0)])),
        "abstract" => {
            let address = UnixAddress::from_abstract_name(ABSTRACT)?;
            Answer::of(&UnixStream::connect_addr(&address), |_| 0)
        }
        "port" => {
            let address = SocketAddr::from(([127, 0, 0, 1], PORT));
            Answer::of(&TcpStream::connect_timeout(&address, CONNECT_WAIT), |_| 0)
        }
        "process" => process()?,
        _ => return Err(io::Error::other(format!("there is no trace called {name}"))),
    };
    let finding = Finding { id: name.to_owned(), answer };
    say(&serde_json::to_string(&finding).map_err(io::Error::from)?)
}

fn there(path: &str) -> Answer {
    Answer::of(&rustix::fs::lstat(path).map_err(io::Error::from), |_| 0)
}

fn process() -> io::Result<Answer> {
    for entry in fs_err::read_dir("/proc")? {
        let path = entry?.path();
        let line = fs_err::read(path.join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).nth(1) == Some(b"leave") {
            return Ok(Answer::Returned(0));
        }
    }
    Ok(Answer::Error(libc::ESRCH))
}
