// SPDX-License-Identifier: Apache-2.0
//! What can be typed.

mod images;

use std::net::IpAddr;
use std::path::PathBuf;

use attack::Group;
use clap::{Parser, Subcommand};
use protocol::calls::Scope;
use protocol::isolation::Level;
use protocol::limits::{DISK_MIB_MAX, DISK_STORE_MIB_MIN};
use server::{DiskStoreKind, HostName, Lifetime};

pub(crate) use crate::args::images::{
    ImageCommand, InspectArgs, ListArgs, LoadArgs, LoginArgs, LogoutArgs, PruneArgs, PullArgs,
    RegistryCommand, RemoveArgs, SaveArgs,
};
use crate::base::{EPOCH, Kind, Mirror, Suite};
use crate::registry::{DefaultRegistryArgs, RegistryArgs};

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
    /// Fetch an image from a registry, ready to use
    Pull(PullArgs),
    /// The images on this machine
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// What this machine can do for sandboxes, and what mends what it cannot
    Doctor(DoctorArgs),
    /// The registries that images come from
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
    /// Attack sandboxes on this machine, in every way that is known, and tell what the walls hold
    Selftest(SelftestArgs),
}

/// What of the attack list to try, and how to tell.
#[derive(Debug, clap::Args)]
pub(crate) struct SelftestArgs {
    /// Print a report as JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Leave out what takes memory, processes, processor time and disk space for some seconds
    #[arg(long)]
    pub(crate) quick: bool,

    /// Try this part alone (can be given several times)
    #[arg(long, value_name = "NAME", value_parser = group)]
    pub(crate) group: Vec<Group>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Finds a part of the attack list by its name.
fn group(name: &str) -> Result<Group, String> {
    Group::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Group::ALL.into_iter().map(Group::name).collect();
        format!("the parts are {}", names.join(", "))
    })
}

/// Which base image to build.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildBaseArgs {
    /// Its language
    #[arg(value_name = "KIND")]
    pub(crate) kind: Kind,

    /// Release of Debian
    #[arg(long, value_name = "NAME", default_value = "bookworm", value_parser = Suite::parse)]
    pub(crate) suite: Suite,

    /// Mirror of Debian to fetch packages from [default: this machine's own if it runs Debian]
    #[arg(long, value_name = "URL", value_parser = Mirror::parse)]
    pub(crate) mirror: Option<Mirror>,

    /// Mirror of Debian's security updates [default: beside a --mirror that ends in /debian, else none]
    #[arg(long, value_name = "URL", value_parser = Mirror::parse)]
    pub(crate) security_mirror: Option<Mirror>,

    /// Moment, in seconds since 1970, at which times in the image are cut: the same packages give the same bytes
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = EPOCH)]
    pub(crate) epoch: u32,

    /// Write the root file system to this file, as a tar archive, instead of keeping the image
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to do with the server.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Start it in the foreground; SIGINT and SIGTERM stop it with every sandbox
    Start(Box<StartArgs>),
    /// Make a key and print it: the only time that it can be seen
    Keygen(KeygenArgs),
    /// List the keys that were made
    Keys(KeysArgs),
    /// Make a key useless, at once and for good
    Revoke(RevokeArgs),
}

/// Where things are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct HomeArgs {
    /// Directory for all that is kept, by the server and by commands [default: ~/.microsandbox]
    #[arg(long, env = "MICROSANDBOX_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

/// What a key shall be.
#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// How long it works: a number with s, m, h, d, w, mo (30 days) or y (365 days); a bare number is hours
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = Lifetime::parse)]
    pub(crate) expire: Lifetime,

    /// The namespace that it is for; * is all of them
    #[arg(short, long, value_name = "NAMESPACE", default_value = "*", value_parser = server::scope)]
    pub(crate) namespace: Scope,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// How to list keys.
#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Which key to revoke.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// The key's id, as keygen and keys print it
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
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

    #[command(flatten)]
    pub(crate) home: HomeArgs,

    #[command(flatten)]
    pub(crate) registries: RegistryArgs,

    /// Name by which clients may call the server beside its addresses, such as that of a reverse proxy in front of it
    /// (can be given several times)
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    pub(crate) allowed_host: Vec<HostName>,

    /// Let sandboxes see this machine's own /usr as microsandbox/python and microsandbox/node; --dev implies it
    #[arg(long)]
    pub(crate) allow_host_image: bool,

    /// Allow this directory, and those below it, as images (can be given several times)
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_rootfs: Vec<PathBuf>,

    /// Give no sandbox a network, and leave this machine's own untouched: no interface, no rule, no forwarding
    #[arg(long)]
    pub(crate) no_network: bool,

    /// Let clients have this directory, and those below it, in sandboxes; with :ro at its end they can only read them
    /// (can be given several times)
    #[arg(long, value_name = "DIR[:ro]")]
    pub(crate) allow_volume: Vec<String>,

    /// Where sandboxes write: on a btrfs volume in the home, with a limit for each, or in plain directories without limits;
    /// auto takes the first if it works here
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub(crate) disk_store: DiskStoreArg,

    /// Size that the btrfs volume can grow to, in MiB [default: three quarters of what is free on the home's disk]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(DISK_STORE_MIB_MIN..=DISK_MIB_MAX.into()))]
    pub(crate) disk_store_size: Option<u64>,

    /// What every sandbox must have: any (nothing), contained (the wall itself), limited (memory, processors, processes
    /// and open files too) or complete (every protection there is). Below it nothing starts
    #[arg(long, value_name = "LEVEL", default_value = "any")]
    pub(crate) min_isolation: Level,

    /// With --dev, allow a --host or --allowed-host that other machines reach: whoever reaches it can run code here,
    /// without a key
    #[arg(long, requires = "dev")]
    pub(crate) dev_on_network: bool,
}

/// Where sandboxes write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DiskStoreArg {
    Auto,
    Btrfs,
    Plain,
}

impl From<DiskStoreArg> for DiskStoreKind {
    fn from(word: DiskStoreArg) -> DiskStoreKind {
        match word {
            DiskStoreArg::Auto => DiskStoreKind::Auto,
            DiskStoreArg::Btrfs => DiskStoreKind::Btrfs,
            DiskStoreArg::Plain => DiskStoreKind::Plain,
        }
    }
}

/// How to look at this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// The level of isolation that this machine shall reach: any, contained, limited or complete
    #[arg(long, value_name = "LEVEL", default_value = "contained")]
    pub(crate) min_isolation: Level,

    /// Leave this machine's own network untouched, as a server does with the same option
    #[arg(long)]
    pub(crate) no_network: bool,

    /// Look for images as a server does that may use this machine's own /usr
    #[arg(long)]
    pub(crate) allow_host_image: bool,

    #[command(flatten)]
    pub(crate) registry: DefaultRegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
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
            Command::Server { command: ServerCommand::Start(arguments) } => *arguments,
            other => panic!("{other:?}"),
        })
    }

    fn keygen(arguments: &[&str]) -> Result<KeygenArgs, String> {
        let all = ["msb", "server", "keygen"].iter().chain(arguments);
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        match args.command {
            Command::Server { command: ServerCommand::Keygen(arguments) } => Ok(arguments),
            other => panic!("{other:?}"),
        }
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

    #[test]
    fn the_least_isolation_is_one_of_four_levels() {
        assert_eq!(start(&[]).unwrap().min_isolation, Level::Any);
        assert_eq!(start(&["--min-isolation", "limited"]).unwrap().min_isolation, Level::Limited);
        let wrong = start(&["--min-isolation", "most"]).unwrap_err().to_string();
        assert!(wrong.contains("any, contained, limited, complete"), "{wrong}");
    }

    #[test]
    fn a_key_is_for_a_day_and_for_everything_unless_said_otherwise() {
        let arguments = keygen(&[]).unwrap();
        assert_eq!((arguments.expire, arguments.namespace), (Lifetime::default(), Scope::All));
        for both in [["-n", "team"], ["--namespace", "team"]] {
            let arguments = keygen(&[&both[..], &["--expire", "2w"]].concat()).unwrap();
            assert_eq!(server::scope_text(&arguments.namespace), "team");
            assert_eq!(arguments.expire.seconds(), 14 * 24 * 60 * 60);
        }
        assert!(
            keygen(&["--expire", "abc"])
                .unwrap_err()
                .contains("Invalid duration: abc. No numeric value found.")
        );
        assert!(keygen(&["-n", "a b"]).unwrap_err().contains("Namespace name can only contain"));
    }

    fn build_base(arguments: &[&str]) -> Result<BuildBaseArgs, String> {
        let all = ["msb", "image", "build-base"].iter().chain(arguments);
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        match args.command {
            Command::Image { command: ImageCommand::BuildBase(arguments) } => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_base_image_is_bookworm_unless_said_otherwise() {
        let arguments = build_base(&["python", "-o", "a.tar"]).unwrap();
        assert_eq!((arguments.kind, arguments.suite.to_string().as_str()), (Kind::Python, "bookworm"));
        assert!(arguments.mirror.is_none() && arguments.security_mirror.is_none());
        let arguments = build_base(&["node", "--suite", "trixie", "-o", "a.tar"]).unwrap();
        assert_eq!((arguments.kind, arguments.suite.to_string().as_str()), (Kind::Node, "trixie"));
    }

    #[test]
    fn what_cannot_be_a_base_image_is_refused() {
        assert!(build_base(&["ruby", "-o", "a.tar"]).unwrap_err().contains("python, node"));
        assert!(build_base(&["python"]).unwrap().output.is_none(), "it is kept as an image");
        for (wrong, says) in [
            (["--suite", "../x"], "bookworm or trixie"),
            (["--suite", "Bookworm"], "bookworm or trixie"),
            (["--mirror", "mirror.example"], "http://"),
            (["--mirror", "http://a/ [trusted=yes]"], "no spaces"),
            (["--epoch", "now"], "--epoch"),
        ] {
            let said = build_base(&[&["python", "-o", "a.tar"], &wrong[..]].concat()).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn names_of_the_server_are_checked() {
        let arguments =
            start(&["--allowed-host", "a.example.com", "--allowed-host", "b.example.com"]).unwrap();
        assert_eq!(arguments.allowed_host.len(), 2);
        for wrong in ["*", "http://a.example.com", "a.example.com:80", ""] {
            assert!(start(&["--allowed-host", wrong]).is_err(), "{wrong}");
        }
    }
}
