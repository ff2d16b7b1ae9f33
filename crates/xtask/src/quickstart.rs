// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask quickstart`: from a fresh clone to code that ran in a sandbox, told step by step.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile, Scope};
use crate::server::Server;
use crate::setup;
use crate::workspace::{Workspace, require_root};

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
    let server = Server::start(workspace, profile, "quickstart")?;
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
