// SPDX-License-Identifier: Apache-2.0
//! Runs `nft`, when a server starts and ends. It works in the network namespace of the thread that calls.

use std::io::{self, Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use protocol::limits::NFT_WAIT;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where it is: programs of the administrator are not in everybody's PATH.
const PLACES: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
/// Most characters of its complaints that are repeated.
const COMPLAINT_CHARS_MAX: usize = 400;

/// Carries out a script, wholly or not at all.
pub(super) fn carry_out(script: &str) -> io::Result<()> {
    run(&["-f", "-"], script).map(drop)
}

/// Asks for something and returns what it prints.
pub(super) fn ask(arguments: &[&str]) -> io::Result<String> {
    run(arguments, "")
}

/// Says whether it is there.
pub(super) fn is_there() -> bool {
    PLACES.iter().any(|place| std::path::Path::new(place).is_file())
}

fn run(arguments: &[&str], input: &str) -> io::Result<String> {
    let program = PLACES.iter().find(|place| std::path::Path::new(place).is_file());
    let program =
        program.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no program nft"))?;
    // Files, not pipes: nobody waits for anybody.
    let file = || rustix::fs::memfd_create("nft", rustix::fs::MemfdFlags::CLOEXEC).map(std::fs::File::from);
    let (mut script, mut output, mut complaint) = (file()?, file()?, file()?);
    script.write_all(input.as_bytes())?;
    script.rewind()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(script))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(complaint.try_clone()?))
        .spawn()?;
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let deadline = Instant::now() + NFT_WAIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nft took too long"));
            }
            Ok(_) => break,
        }
    }
    let status = child.wait()?;
    let read = |file: &mut std::fs::File| {
        let mut text = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut text))
            .map(|_| String::from_utf8_lossy(&text).into_owned())
    };
    if status.success() {
        return read(&mut output);
    }
    let said: String = read(&mut complaint)?.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(COMPLAINT_CHARS_MAX).collect();
    Err(io::Error::other(format!("nft refuses the rules: {said}")))
}
