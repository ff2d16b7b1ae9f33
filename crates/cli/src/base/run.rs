// SPDX-License-Identifier: Apache-2.0
//! Runs the programs that make an image, so that nothing of them outlives the build: no process, no mount.
//!
//! Root runs each below `unshare`, in kernel namespaces for processes and mounts of their own; they go, whole, with the
//! first process in them. `setpriv` makes that end follow from the end of `msb`, even by SIGKILL. Others have no such
//! namespaces: `mmdebstrap` makes some itself, and cleans up when it is told to end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use protocol::limits::{
    BASE_BUILD_WAIT, BASE_LINE_BYTES_MAX, BASE_LINES_QUOTED_MAX, BASE_OUTPUT_BYTES_MAX, KILL_WAIT,
};
use rustix::process::{Pid, Signal as Kill, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use crate::base::BaseError;

/// Runs programs until the build's time is up or somebody asks to end.
pub(crate) struct Runner {
    signals: [Signal; 3],
    deadline: Instant,
    is_root: bool,
}

/// Why a program is not waited for any longer.
enum Cut {
    Signal,
    Deadline,
}

impl Runner {
    /// Begins to listen for signals, and to count the time.
    pub(crate) fn new() -> Result<Runner, BaseError> {
        let on = |kind| signal(kind).map_err(BaseError::io("listen for signals"));
        Ok(Runner {
            signals: [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?],
            deadline: Instant::now() + BASE_BUILD_WAIT,
            is_root: rustix::process::geteuid().is_root(),
        })
    }

    /// Says what is missing if a program is not on the path.
    pub(crate) fn need(&self, program: &'static str, package: &'static str) -> Result<(), BaseError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            true => Ok(()),
            false => Err(BaseError::Missing { program, package }),
        }
    }

    /// Runs a program and returns what it wrote to standard output.
    pub(crate) async fn output(
        &mut self,
        program: &'static str,
        arguments: &[OsString],
    ) -> Result<String, BaseError> {
        let command = self.command(program, arguments);
        let output = self.run(program, command, &mut |_| {}).await?;
        String::from_utf8(output)
            .map_err(|_| BaseError::Answer { program, what: "it is not UTF-8".to_owned() })
    }

    /// Runs `mmdebstrap`, and gives each line that it writes to `each`.
    pub(crate) async fn mmdebstrap(
        &mut self,
        arguments: &[OsString],
        environment: &[(&'static str, OsString)],
        each: &mut dyn FnMut(&str),
    ) -> Result<(), BaseError> {
        let mut command = self.command("mmdebstrap", arguments);
        command.env_clear();
        // What it says of this machine to the packages' scripts: how to reach the network, and no more.
        let names =
            ["PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
        command.envs(names.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        self.run("mmdebstrap", command, each).await.map(drop)
    }

    fn command(&self, program: &str, arguments: &[OsString]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if self.is_root {
            command.args([
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "--mount-proc",
                "--",
            ]);
        }
        command.arg(program).args(arguments).current_dir(Path::new("/"));
        // A group of its own: a signal from the terminal is for us, and we pass it on.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(
        &mut self,
        program: &'static str,
        mut command: Command,
        each: &mut dyn FnMut(&str),
    ) -> Result<Vec<u8>, BaseError> {
        let mut child = command.spawn().map_err(BaseError::io("run a program below setpriv"))?;
        let mut output = Vec::new();
        let mut last = Last::default();
        let stdout = child.stdout.take().expect("it is a pipe");
        let stderr = child.stderr.take().expect("it is a pipe");
        let deadline = self.deadline;
        let reading = async {
            let mut take = |line: &str| {
                last.add(line);
                each(line);
            };
            let (out, err) = tokio::join!(read_bounded(stdout, &mut output), read_lines(stderr, &mut take));
            out.and(err)?;
            child.wait().await
        };
        let ended: Result<std::io::Result<ExitStatus>, Cut> = tokio::select! {
            ended = timeout_at(deadline, reading) => ended.map_err(|_| Cut::Deadline),
            () = any(&mut self.signals) => Err(Cut::Signal),
        };
        match ended {
            Ok(status) => {
                let status = status.map_err(BaseError::io("wait for a program"))?;
                let failed = || BaseError::Failed { program, status: status.to_string(), said: last.text() };
                if status.success() { Ok(output) } else { Err(failed()) }
            }
            Err(cut) => {
                self.kill(&mut child).await;
                Err(match cut {
                    Cut::Signal => BaseError::Interrupted,
                    Cut::Deadline => BaseError::TooSlow { program, wait: BASE_BUILD_WAIT },
                })
            }
        }
    }

    /// Ends everything below a child, and returns when it has ended.
    async fn kill(&self, child: &mut Child) {
        let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        if self.is_root {
            // The first process of the namespaces: `unshare` waits for it, and it ends only when all others have.
            for first in children(pid) {
                let _ = kill_process(first, Kill::KILL);
            }
        } else {
            let _ = kill_process_group(pid, Kill::TERM);
        }
        if timeout(KILL_WAIT, child.wait()).await.is_err() {
            let _ = kill_process_group(pid, Kill::KILL);
            let _ = timeout(KILL_WAIT, child.wait()).await;
        }
    }
}

async fn any(signals: &mut [Signal; 3]) {
    let [interrupt, terminate, hangup] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let listed = fs_err::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// Reads to the end and keeps the beginning.
async fn read_bounded(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = vec![0; BASE_LINE_BYTES_MAX];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        let room = BASE_OUTPUT_BYTES_MAX - into.len();
        into.extend_from_slice(&chunk[..read.min(room)]);
    }
}

/// Gives each line to `each`, cut at [`BASE_LINE_BYTES_MAX`] and without control characters.
async fn read_lines(mut from: impl AsyncRead + Unpin, each: &mut dyn FnMut(&str)) -> std::io::Result<()> {
    let mut chunk = vec![0; BASE_LINE_BYTES_MAX];
    let mut line = Vec::new();
    loop {
        let read = from.read(&mut chunk).await?;
        for byte in &chunk[..read] {
            match byte {
                b'\n' | b'\r' => give(&mut line, each),
                _ if line.len() < BASE_LINE_BYTES_MAX => line.push(*byte),
                _ => {}
            }
        }
        if read == 0 {
            give(&mut line, each);
            return Ok(());
        }
    }
}

fn give(line: &mut Vec<u8>, each: &mut dyn FnMut(&str)) {
    let text = String::from_utf8_lossy(line);
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.clear();
    if !shown.trim().is_empty() {
        each(shown.trim_end());
    }
}

/// The end of what a program wrote.
#[derive(Default)]
struct Last(VecDeque<String>);

impl Last {
    fn add(&mut self, line: &str) {
        if self.0.len() == BASE_LINES_QUOTED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        match self.0.is_empty() {
            true => " nothing".to_owned(),
            false => self.0.iter().map(|line| format!("\n    {line}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(written: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_lines(written, &mut |line| lines.push(line.to_owned()))).unwrap();
        lines
    }

    #[test]
    fn hostile_lines_are_cut_and_cleaned() {
        assert_eq!(lines(b"a\x1b[31mb\r\n\n\xff\n"), ["a [31mb", "\u{fffd}"]);
        let long = lines(&vec![b'x'; 100 * BASE_LINE_BYTES_MAX]);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [BASE_LINE_BYTES_MAX]);
    }

    #[test]
    fn only_the_last_lines_are_quoted() {
        let mut last = Last::default();
        (0..1000).for_each(|line| last.add(&line.to_string()));
        assert_eq!(last.text().lines().filter(|line| !line.is_empty()).count(), BASE_LINES_QUOTED_MAX);
        assert!(last.text().ends_with("\n    999"));
    }
}
