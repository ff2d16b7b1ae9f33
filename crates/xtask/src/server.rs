// SPDX-License-Identifier: Apache-2.0
//! A development server for as long as a command needs one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::build::Profile;
use crate::process;
use crate::workspace::Workspace;

const READY_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(60);

/// A server that ends with us.
pub(crate) struct Server {
    child: Option<Child>,
    /// Where it listens.
    pub(crate) url: String,
    /// The file with its log.
    pub(crate) log: PathBuf,
}

impl Server {
    /// Starts one on a free port; its home and log are called after the command that needs it.
    pub(crate) fn start(workspace: &Workspace, profile: Profile, name: &str) -> Result<Server> {
        let log = workspace.target.join(format!("{name}-server.log"));
        let mut command = Command::new(workspace.target.join(profile.folder()).join("msb"));
        // The network of the machine that measures or tries out is nobody's to change.
        command.args(["server", "start", "--dev", "--no-network", "--port", "0", "--home"]);
        command.arg(workspace.target.join(format!("{name}-home")));
        println!("   $ {}", process::shown(&command));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?.into_parts().0);
        let mut child = command.spawn().context("cannot start msb")?;
        let output = child.stdout.take().context("the server has no standard output")?;
        let mut server = Server { child: Some(child), url: String::new(), log };
        let (sender, first_line) = sync_channel(1);
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            // Nobody waits any more when the server took too long.
            let _ = sender.send(lines.next());
            // Read on, so that the server can always write.
            lines.for_each(drop);
        });
        let line = match first_line.recv_timeout(READY_MAX) {
            Ok(Some(line)) => line.context("cannot read what the server says")?,
            Ok(None) => bail!("the server ended at once{}", tail(&server.log)),
            Err(_) => bail!("the server was not ready within {} s{}", READY_MAX.as_secs(), tail(&server.log)),
        };
        server.url =
            url(&line).with_context(|| format!("the server did not say where it listens: {line:?}"))?;
        Ok(server)
    }

    /// Stops it, and fails when it does not end cleanly.
    pub(crate) fn end(mut self) -> Result<()> {
        let child = self.child.take().context("the server was stopped before")?;
        let id = child.id();
        process::signal(id, "TERM");
        match process::wait_at_most(child, END_MAX)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the server ended with {status}{}", tail(&self.log)),
            None => {
                process::signal(id, "KILL");
                bail!("the server did not end within {} s{}", END_MAX.as_secs(), tail(&self.log))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let id = child.id();
        process::signal(id, "TERM");
        if !matches!(process::wait_at_most(child, END_MAX), Ok(Some(_))) {
            process::signal(id, "KILL");
        }
    }
}

/// Finds the address in the line that says the server is ready.
fn url(line: &str) -> Option<String> {
    let word = line.split_whitespace().find(|word| word.starts_with("http://"))?;
    Some(word.trim_end_matches(['.', ',', '/', ';']).to_owned())
}

/// The end of the server's log, for the message of a failure.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("; the end of its log ({}):\n{}", log.display(), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn the_address_is_found_wherever_it_stands_in_the_line() {
        assert_eq!(url("listening on http://127.0.0.1:41233").as_deref(), Some("http://127.0.0.1:41233"));
        assert_eq!(url("ready: http://127.0.0.1:80/, dev mode").as_deref(), Some("http://127.0.0.1:80"));
        assert_eq!(url("ready"), None);
    }
}
