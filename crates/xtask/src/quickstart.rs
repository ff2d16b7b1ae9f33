// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask quickstart`: from a fresh clone to code that ran in a sandbox, told step by step.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::build::{self, Profile, Scope};
use crate::workspace::{Workspace, require_root};
use crate::{process, setup};

const READY_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(60);

/// An example of the reference, with what it must print.
struct Example {
    title: &'static str,
    code: &'static str,
    prints: &'static str,
}

const PYTHON: Example = Example {
    title: "Python code in a sandbox of its own",
    code: r#"import asyncio
from microsandbox import PythonSandbox

async def main():
    async with PythonSandbox.create(name="my-sandbox") as sb:
        exec = await sb.run("print('Hello, World!')")
        print(await exec.output())

asyncio.run(main())
"#,
    prints: "Hello, World!",
};

const NODE: Example = Example {
    title: "JavaScript in another one",
    code: r#"import asyncio
from microsandbox import NodeSandbox

async def main():
    async with NodeSandbox.create(name="js-sandbox") as sb:
        exec = await sb.run("console.log('Hello from Node.js!');")
        print(await exec.output())

asyncio.run(main())
"#,
    prints: "Hello from Node.js!",
};

/// Does it all, and stops what it started.
pub(crate) fn run(workspace: &Workspace, profile: Profile) -> Result<()> {
    require_root("quickstart")?;
    println!("1. Setting up: system packages, Rust tools, a Python environment with the SDK");
    setup::run(workspace)?;
    println!(
        "2. Building msb (server and command line), msb-jail (builds the walls), msb-agent (PID 1 inside)"
    );
    build::programs(workspace, profile, Scope::Programs)?;
    println!("3. Starting a development server on a free port of this machine");
    let server = Server::start(workspace, profile)?;
    println!("   it listens at {}", server.url);
    for (number, example) in (4..).zip([PYTHON, NODE]) {
        println!("{number}. Running {}", example.title);
        show(workspace, &server, &example)?;
    }
    println!("6. Stopping the server");
    server.end()?;
    println!("   it ended cleanly");
    let msb = workspace.target.join(profile.folder()).join("msb");
    println!(
        "\nThat worked. Next, a server to keep, in one terminal:\n  {} server start --dev\n\
         and in another one your own code, with\n  {}\n\
         All tests: cargo xtask test",
        msb.display(),
        workspace.venv().join("bin/python").display(),
    );
    Ok(())
}

fn show(workspace: &Workspace, server: &Server, example: &Example) -> Result<()> {
    for line in example.code.lines() {
        println!("   | {line}");
    }
    let mut python = workspace.python_program("python");
    let python =
        python.args(["-c", example.code]).env("MSB_SERVER_URL", &server.url).env_remove("MSB_API_KEY");
    let output =
        python.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run Python")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    println!("   it printed:\n{}", printed.trim_end());
    if !output.status.success() || printed.trim_end() != example.prints {
        bail!(
            "the example should have printed {:?} ({}); the server's log is {}",
            example.prints,
            output.status,
            server.log.display()
        );
    }
    Ok(())
}

/// A server that ends with us.
struct Server {
    child: Option<Child>,
    url: String,
    log: PathBuf,
}

impl Server {
    fn start(workspace: &Workspace, profile: Profile) -> Result<Server> {
        let log = workspace.target.join("quickstart-server.log");
        let mut command = Command::new(workspace.target.join(profile.folder()).join("msb"));
        command.args(["server", "start", "--dev", "--port", "0", "--home"]);
        command.arg(workspace.target.join("quickstart-home"));
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

    fn end(mut self) -> Result<()> {
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
