// SPDX-License-Identifier: Apache-2.0
//! What can be typed about images and registries.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use image::archive::Format;
use image::pull::PullPolicy;
use image::registry::Platform;

use crate::args::{BuildBaseArgs, HomeArgs};
use crate::registry::{self, ConnectionArgs, DefaultRegistryArgs, RegistryArgs};

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images
    Ls(ListArgs),
    /// Show all that is known of an image, as JSON
    Inspect(InspectArgs),
    /// Remove images
    Rm(RemoveArgs),
    /// Remove what belongs to no image
    Prune(PruneArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Take images from an archive: OCI layout or archive, docker archive, or root file system
    Load(LoadArgs),
    /// Build a base image from Debian packages, where no registry is at hand
    BuildBase(BuildBaseArgs),
}

/// What to do with registries.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Keep a name and password for a registry
    Login(LoginArgs),
    /// Forget them
    Logout(LogoutArgs),
    /// List the registries that there are logins for
    Ls(ListArgs),
}

/// What to pull.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image, such as python:3.12-slim or registry.example:5000/team/app@sha256:...
    #[arg(value_name = "REFERENCE", value_parser = registry::reference)]
    pub(crate) reference: String,

    /// When to ask the registry
    #[arg(long, value_enum, default_value = "if-missing")]
    pub(crate) policy: Policy,

    /// Platform to choose where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
    pub(crate) platform: Option<Platform>,

    /// Print JSON, one object in each line
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// When the registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// A tag may mean something else by now
    Always,
    /// Only when the image is not here
    IfMissing,
    /// The image is here, or it is an error
    Never,
}

impl From<Policy> for PullPolicy {
    fn from(policy: Policy) -> PullPolicy {
        match policy {
            Policy::Always => PullPolicy::Always,
            Policy::IfMissing => PullPolicy::IfMissing,
            Policy::Never => PullPolicy::Never,
        }
    }
}

/// How to list.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Its reference, or the beginning of its digest
    pub(crate) name: String,

    /// Print JSON, as is done without it too
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) registry: DefaultRegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to remove.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Their references, or beginnings of their digests
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) registry: DefaultRegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to collect.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Remove every image that no sandbox uses, too
    #[arg(long)]
    pub(crate) all: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to write, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Their references, or beginnings of their digests
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// File to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// What to write
    #[arg(long, value_enum, default_value = "oci")]
    pub(crate) format: ArchiveFormat,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) registry: DefaultRegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// A tar of an OCI image layout
    Oci,
    /// As docker save writes it
    Docker,
}

impl From<ArchiveFormat> for Format {
    fn from(format: ArchiveFormat) -> Format {
        match format {
            ArchiveFormat::Oci => Format::Oci,
            ArchiveFormat::Docker => Format::Docker,
        }
    }
}

/// What to load.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Archive, or directory of an OCI layout; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What its only image shall be called [default: what the archive says]
    #[arg(long, value_name = "NAME", value_parser = registry::reference)]
    pub(crate) reference: Option<String>,

    /// It is a tar of a root file system, whatever files it has
    #[arg(long, requires = "reference")]
    pub(crate) rootfs: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) registry: DefaultRegistryArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to keep for a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The registry, as references name it
    #[arg(value_name = "HOST", value_parser = registry::host)]
    pub(crate) host: String,

    /// Name of the user there
    #[arg(short, long, value_name = "USER", value_parser = user)]
    pub(crate) username: String,

    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub(crate) password_stdin: bool,

    /// Keep the login without asking the registry whether it takes it
    #[arg(long)]
    pub(crate) no_verify: bool,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// What to forget.
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry, as registry ls prints it
    #[arg(value_name = "HOST", value_parser = registry::host)]
    pub(crate) host: String,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// A colon ends the name where HTTP puts both together.
fn user(text: &str) -> Result<String, String> {
    match !text.is_empty() && !text.contains(|c: char| c == ':' || c.is_control()) {
        true => Ok(text.to_owned()),
        false => Err("a user's name is not empty, and has neither colons nor control characters".to_owned()),
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    let is_word = |word: &&str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let words: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match words.as_slice() {
        words if !words.iter().all(is_word) => return Err(platform_rule()),
        [os, architecture] => (os, architecture, None),
        [os, architecture, variant] => (os, architecture, Some(variant)),
        _ => return Err(platform_rule()),
    };
    Ok(Platform {
        os: (*os).to_owned(),
        architecture: (*architecture).to_owned(),
        variant: variant.map(|variant| (*variant).to_owned()),
    })
}

fn platform_rule() -> String {
    "write system and architecture, and a variant if need be, such as linux/amd64 or linux/arm/v7".to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn parsed(line: &str) -> Result<Command, String> {
        let words = std::iter::once("msb").chain(line.split(' '));
        Args::try_parse_from(words).map(|args| args.command).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pull_asks_for_this_machine_unless_said_otherwise() {
        let Ok(Command::Pull(arguments)) = parsed("pull python") else { panic!() };
        assert_eq!((arguments.policy, arguments.platform, arguments.json), (Policy::IfMissing, None, false));
        assert_eq!(arguments.registry.default.registry, "docker.io");
        let line = "pull team/app:1 --policy never --platform linux/arm/v7 --registry R.example --mirror \
                    docker.io=m.example --plain-http a.example --plain-http b.example:80 --registry-ca ca.pem --json";
        let Ok(Command::Pull(arguments)) = parsed(line) else { panic!() };
        assert_eq!(arguments.platform.unwrap().to_string(), "linux/arm/v7");
        assert_eq!(
            (arguments.policy, arguments.registry.default.registry.as_str()),
            (Policy::Never, "r.example")
        );
        assert_eq!((arguments.registry.mirror.len(), arguments.registry.connection.plain_http.len()), (1, 2));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_is_allowed() {
        for (line, says) in [
            ("pull Team/App:1 --registry x", "small letters"),
            ("pull team/app:", "letters, digits"),
            ("pull a --platform amd64", "linux/amd64"),
            ("pull a --platform linux//v7", "linux/amd64"),
            ("pull a --policy sometimes", "if-missing"),
            ("pull a --mirror m.example", "REGISTRY=HOST"),
            ("pull a --plain-http http://m.example", "host name or address"),
            ("image rm", "<NAME>"),
            ("image save a", "--output"),
            ("image save a -o x --format zip", "oci, docker"),
            ("image load x.tar --rootfs", "--reference"),
            ("registry login r.example", "--username"),
            ("registry login r.example -u a:b", "colons"),
            ("registry login r.example -u a --password s3cret", "--password-stdin"),
            ("registry login https://r.example -u a", "host name or address"),
        ] {
            let said = parsed(line).expect_err(line);
            assert!(said.contains(says), "{line}: {said}");
        }
    }
}
