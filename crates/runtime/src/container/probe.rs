// SPDX-License-Identifier: Apache-2.0
//! What this host can do for a wall: `msb-jail` tries it in processes of its own, within a deadline.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jail::facts::Facts;
use jail::report::REPORT_BYTES_MAX;
use jail::rights::Rights;
use protocol::limits::PROBE_WAIT;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Tries everything, in the home: layers of images are below it. What could not be tried is not there.
pub(super) fn facts(jail: &Path, home: &Path, rights: &Rights) -> Facts {
    match run(jail, home, rights) {
        Ok(facts) => facts,
        Err(error) => {
            tracing::warn!(%error, "cannot find out what this host can do");
            Facts::default()
        }
    }
}

fn run(jail: &Path, home: &Path, rights: &Rights) -> io::Result<Facts> {
    let mut child = Command::new(jail)
        .arg("--probe")
        .arg(home)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it says nothing of use either.
        let _ = stdin.write_all(&serde_json::to_vec(rights)?);
    }
    let ended = wait(&child);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let mut said = Vec::new();
    if let (Ok(true), Some(stdout)) = (&ended, child.stdout.take()) {
        // Far less than a pipe holds, so it is all there by now.
        stdout.take(REPORT_BYTES_MAX as u64).read_to_end(&mut said)?;
    }
    child.wait()?;
    match ended? {
        true => Ok(serde_json::from_slice(&said)?),
        false => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took more than {PROBE_WAIT:?}"))),
    }
}

/// Waits for the end of a process; false when it takes too long.
fn wait(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a pid"))?;
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    let wait = PROBE_WAIT.try_into().map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&wait))? > 0)
}

#[cfg(test)]
mod tests {
    use jail::facts::What;

    use super::*;

    #[test]
    fn a_program_that_says_nonsense_proves_nothing() {
        for program in ["/bin/echo", "/bin/false", "/nowhere"] {
            let facts = facts(Path::new(program), Path::new("/tmp"), &Rights::Root);
            assert!(facts.failure(What::Seccomp).is_some(), "{program}");
        }
    }
}
