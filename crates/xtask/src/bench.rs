// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: measures through the SDK, against the bare interpreter in the same run.

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile, Scope};
use crate::server::Server;
use crate::workspace::{Workspace, require_root};
use crate::{process, setup};

/// Builds, and runs `e2e/bench.py` with the options it knows.
pub(crate) fn run(workspace: &Workspace, options: &[String]) -> Result<()> {
    let (profile, json) = read(options)?;
    require_root("bench")?;
    setup::run(workspace)?;
    build::programs(workspace, profile, Scope::Programs)?;
    let server = Server::start(workspace, profile, "bench")?;
    let mut command = workspace.python_program("python");
    command.arg("e2e/bench.py").env("MSB_SERVER_URL", &server.url).env_remove("MSB_API_KEY");
    if let Some(file) = json {
        // The benchmark starts in the root of the repository, the developer may be elsewhere.
        command.arg("--json").arg(std::path::absolute(file).context("cannot find the current folder")?);
    }
    process::run(&mut command)?;
    server.end()
}

fn read(options: &[String]) -> Result<(Profile, Option<&str>)> {
    let (mut profile, mut json) = (Profile::Release, None);
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "--release" => profile = Profile::Release,
            "--dev" => profile = Profile::Dev,
            "--json" => json = Some(options.next().context("--json needs a file")?),
            other => bail!("unknown option {other:?}; there are --json FILE, --release and --dev"),
        }
    }
    Ok((profile, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let read_all = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            read(&options).map(|(profile, json)| (profile, json.map(str::to_owned)))
        };
        assert_eq!(read_all(&[]).unwrap(), (Profile::Release, None));
        assert_eq!(read_all(&["--dev", "--json", "x"]).unwrap(), (Profile::Dev, Some("x".to_owned())));
        assert!(read_all(&["--json"]).is_err());
        assert!(read_all(&["--fast"]).is_err());
    }
}
