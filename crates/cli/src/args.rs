// SPDX-License-Identifier: Apache-2.0
//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Runs untrusted code in sandboxes on this machine.
#[derive(Debug, Parser)]
#[command(name = "msb", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The server that runs sandboxes
    Server {
        #[command(subcommand)]
        command: ServerCommand,
    },
}

/// What to do with the server.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Start it in the foreground; SIGINT and SIGTERM stop it with every sandbox
    Start(StartArgs),
}

/// How to start a server.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// For your own machine: no keys, and this machine's own programs as the default image
    #[arg(long)]
    pub(crate) dev: bool,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS", value_parser = address)]
    pub(crate) host: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 5555)]
    pub(crate) port: u16,

    /// Directory for everything the server keeps [default: ~/.microsandbox]
    #[arg(long, env = "MICROSANDBOX_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,

    /// Let sandboxes see this machine's own /usr as microsandbox/python and microsandbox/node; --dev implies it
    #[arg(long)]
    pub(crate) allow_host_image: bool,

    /// Allow this directory, and those below it, as images (can be given several times)
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_rootfs: Vec<PathBuf>,

    /// With --dev, allow a --host that other machines reach: whoever reaches it can run code here, without a key
    #[arg(long, requires = "dev")]
    pub(crate) dev_on_network: bool,
}

/// Reads an address; the one name that is always this machine's is known too.
fn address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse().map_err(|_| "it must be an IP address of this machine, such as 127.0.0.1 or ::1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(arguments: &[&str]) -> Result<StartArgs, clap::Error> {
        let all = ["msb", "server", "start"].iter().chain(arguments);
        Args::try_parse_from(all).map(|args| match args.command {
            Command::Server { command: ServerCommand::Start(arguments) } => arguments,
        })
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let arguments = start(&["--home", "/h"]).unwrap();
        assert_eq!(arguments.host.to_string(), "127.0.0.1");
        assert_eq!(arguments.port, 5555);
        assert!(!arguments.dev && !arguments.allow_host_image && !arguments.dev_on_network);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in
            [&["--host", "example"][..], &["--port", "70000"], &["--dev-on-network"], &["--nonsense"]]
        {
            assert!(start(wrong).is_err(), "{wrong:?}");
        }
        assert!(
            start(&["--host", "localhost", "--dev", "--allow-rootfs", "/a", "--allow-rootfs", "/b"]).is_ok()
        );
    }
}
