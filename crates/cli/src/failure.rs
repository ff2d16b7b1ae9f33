// SPDX-License-Identifier: Apache-2.0
//! How a command fails: what happened, what helps, and the exit code. The one place that decides them.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use image::archive::ArchiveError;
use image::pull::PullError;
use image::reference::ReferenceError;
use image::registry::RegistryError;
use image::registry::credentials::CredentialsError;
use protocol::isolation::Level;
use server::{HomeError, KeysError, OpenError, SecretError, StoreError};

use crate::args::HomeArgs;
use crate::base::BaseError;
use crate::selftest::SelftestError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no home directory to keep things below.
    #[error("there is no directory to keep things in: HOME is not set")]
    NoHome,
    /// The home cannot be made.
    #[error("cannot make the directory {home}")]
    Home {
        /// The directory.
        home: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A server without keys would be reachable from outside.
    #[error("with --dev whoever reaches {0} can run code on this machine")]
    DevOnNetwork(String),
    /// A helper program is missing or of another version.
    #[error("{0}")]
    Program(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server cannot be put together.
    #[error("cannot start the server")]
    Open(#[from] OpenError),
    /// Keys cannot be worked with.
    #[error("cannot use the keys")]
    Keys(#[source] KeysError),
    /// There is no such key. What was typed is not repeated: it may be a key.
    #[error("no key has that id")]
    NoSuchKey,
    /// There is no base image.
    #[error("cannot build the base image")]
    Base(#[source] BaseError),
    /// A text names no image.
    #[error(transparent)]
    Reference(ReferenceError),
    /// There is no such image here.
    #[error("no image here is called {0}")]
    NoImage(String),
    /// A part of a digest is one image, but this one has several names.
    #[error("{name} is an image with several names: {}", .references.join(", "))]
    SeveralNames {
        /// What was typed.
        name: String,
        /// The references.
        references: Vec<String>,
    },
    /// The image store cannot be worked with.
    #[error("cannot use the images")]
    Images(#[source] image::store::StoreError),
    /// An image cannot be pulled.
    #[error("cannot pull {reference}")]
    Pull {
        /// The image, in full.
        reference: String,
        /// Why.
        #[source]
        source: Arc<PullError>,
    },
    /// What was said about registries cannot be used.
    #[error(transparent)]
    Registry(RegistryError),
    /// Logins cannot be worked with.
    #[error(transparent)]
    Logins(CredentialsError),
    /// A login is not known to be right.
    #[error("the login for {host} was not kept")]
    Login {
        /// The registry.
        host: String,
        /// What came of asking it.
        #[source]
        source: Box<RegistryError>,
    },
    /// A login cannot be right or wrong.
    #[error("the login for {0} was not kept: this registry asks nobody for one, so it cannot be checked")]
    NoLoginWanted(String),
    /// A file of certificates cannot be used.
    #[error("cannot use the certificates in {file}: {why}")]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No password came.
    #[error("there is no password: {0}")]
    NoPassword(&'static str),
    /// Images cannot be taken from an archive.
    #[error("cannot load {file}")]
    Load {
        /// Where it comes from.
        file: String,
        /// Why.
        #[source]
        source: Box<LoadError>,
    },
    /// Images cannot be written to an archive.
    #[error("cannot save to {file}")]
    Save {
        /// Where it should go.
        file: String,
        /// Why.
        #[source]
        source: Box<ArchiveError>,
    },
    /// The attack list was not tried, or not withstood.
    #[error("the self-test did not pass")]
    Selftest(#[from] SelftestError),
    /// An archive is nothing to look at.
    #[error("an archive is not written to a terminal")]
    Terminal,
    /// This machine protects sandboxes less than it shall.
    #[error("this machine does not reach the level of isolation '{0}'")]
    TooWeak(Level),
    /// Standard output cannot be both.
    #[error("the archive and what is said of it cannot both be written to standard output")]
    Both,
    /// Somebody asked to end.
    #[error("interrupted: {0}")]
    Interrupted(&'static str),
    /// The system gives no runtime, signal handler or standard output.
    #[error("cannot {act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Why images were not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The archive is of no use.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its layers are of no use.
    #[error("cannot unpack the layers of {0}")]
    Unpack(String, #[source] PullError),
}

/// Wrong use, which another command line mends.
const USAGE: u8 = 2;
/// Everything else.
const FAILED: u8 = 1;
/// This machine protects sandboxes less than is demanded.
const TOO_WEAK: u8 = 3;
/// Ended by SIGINT, as shells count it.
const INTERRUPTED: u8 = 130;

impl Failure {
    /// Writes it for the person who typed the command, and says how the program ends.
    pub(crate) fn tell(&self) -> ExitCode {
        let mut text = format!("msb: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            let _ = write!(text, "\n  because {error}");
            cause = error.source();
        }
        let (hint, code) = self.advice();
        if let Some(hint) = hint {
            let _ = write!(text, "\n  {hint}");
        }
        // Nobody is there to read when standard error is closed.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), (text + "\n").as_bytes());
        ExitCode::from(code)
    }

    fn advice(&self) -> (Option<String>, u8) {
        let hint = |text: &str| Some(text.to_owned());
        match self {
            Failure::NoHome | Failure::Home { .. } => (hint("name a directory with --home DIR"), USAGE),
            Failure::DevOnNetwork(_) => (
                hint("leave it at the loopback address, or say --dev-on-network if that is what you want"),
                USAGE,
            ),
            Failure::Program(_) => (hint("build all programs together: cargo xtask build"), FAILED),
            Failure::Listen { .. } => (hint("choose another --port; 0 takes a free one"), FAILED),
            Failure::Open(OpenError::Home(error)) | Failure::Keys(KeysError::Home(error)) => {
                (Some(home_advice(error)), FAILED)
            }
            Failure::Keys(KeysError::Secret(error)) => (Some(secret_advice(error)), FAILED),
            Failure::Keys(KeysError::Store(error)) => (store_advice(error), FAILED),
            Failure::NoSuchKey | Failure::Keys(KeysError::Unknown(_)) => {
                (hint("list the keys there are with: msb server keys"), FAILED)
            }
            Failure::Base(error) => (base_advice(error), FAILED),
            Failure::Keys(KeysError::System(_)) => (None, FAILED),
            Failure::Reference(_) | Failure::Certificates { .. } => (None, USAGE),
            Failure::NoImage(_) => (hint("list the images there are with: msb image ls"), FAILED),
            Failure::SeveralNames { .. } => (hint("name one of them"), USAGE),
            Failure::Pull { reference, source } => (pull_advice(reference, source), FAILED),
            Failure::Load { source, .. } => (load_advice(source), FAILED),
            Failure::Images(_) | Failure::Registry(_) | Failure::Logins(_) | Failure::Save { .. } => {
                (None, FAILED)
            }
            Failure::Login { source, .. } if matches!(**source, RegistryError::Denied { .. }) => {
                (None, FAILED)
            }
            Failure::Login { .. } | Failure::NoLoginWanted(_) => {
                (hint("keep it unchecked with --no-verify"), FAILED)
            }
            Failure::NoPassword(_) => (hint("type it, or send it with --password-stdin"), USAGE),
            Failure::TooWeak(_) => (None, TOO_WEAK),
            Failure::Open(OpenError::TooWeak(_)) => {
                (hint("mend it (msb doctor says more), or demand less with --min-isolation LEVEL"), TOO_WEAK)
            }
            Failure::Terminal => (hint("name a file with -o FILE, or send standard output elsewhere"), USAGE),
            Failure::Both => (hint("name a file with -o FILE, or leave --json out"), USAGE),
            Failure::Interrupted(_) => (None, INTERRUPTED),
            Failure::Selftest(SelftestError::Failed(_)) => (
                hint("let nobody run code here that you do not trust before each of these lines passes"),
                FAILED,
            ),
            Failure::Selftest(_) => (None, FAILED),
            Failure::Open(_) | Failure::System { .. } => (None, FAILED),
        }
    }
}

impl Failure {
    /// Says what was tried when the system refused.
    pub(crate) fn system(act: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
        move |source| Failure::System { act, source }
    }
}

fn home_advice(error: &HomeError) -> String {
    match error {
        HomeError::InUse(_) => "stop the other server, or name another directory with --home DIR".to_owned(),
        HomeError::NotPrivate(path, _) => format!("make it private with: chmod 700 {}", path.display()),
        HomeError::Io { .. } => "name another directory with --home DIR".to_owned(),
    }
}

fn secret_advice(error: &SecretError) -> String {
    match error {
        SecretError::NotPrivate(path, ..) | SecretError::Content(path) => format!(
            "stop the server and delete {}: another one is made, and keys made until now no longer work; if nobody \
             else can have read or changed it, give it to the server's user and to nobody else: chmod 600",
            path.display()
        ),
        SecretError::Io { .. } => {
            "run this as the user whose home it is, or name another with --home DIR".to_owned()
        }
    }
}

fn store_advice(error: &StoreError) -> Option<String> {
    match error {
        StoreError::NotPrivate(path, _) => {
            Some(format!("make it private with: chmod 600 {}", path.display()))
        }
        StoreError::Newer { .. } => {
            Some("use the newer msb, or name another directory with --home DIR".to_owned())
        }
        StoreError::Make(_) | StoreError::Database(_) => None,
    }
}

fn base_advice(error: &BaseError) -> Option<String> {
    match error {
        BaseError::Missing { package, .. } => {
            Some(format!("install it: apt-get install --no-install-recommends {package}"))
        }
        BaseError::TooSlow { .. } => Some("name a nearer mirror with --mirror URL".to_owned()),
        BaseError::Failed { .. }
        | BaseError::Interrupted
        | BaseError::Answer { .. }
        | BaseError::Machine(_)
        | BaseError::Io { .. } => None,
    }
}

/// What the registry's errors do not say themselves.
fn pull_advice(reference: &str, error: &PullError) -> Option<String> {
    match error {
        PullError::NotThere(_) => Some(format!("fetch it with: msb pull {reference} --policy if-missing")),
        PullError::Store(image::store::StoreError::Busy(_)) => {
            Some("wait until the other msb is done with it".to_owned())
        }
        PullError::Platform { .. } => Some("name a reference that has one for this machine".to_owned()),
        PullError::Registry(_)
        | PullError::TooMany
        | PullError::Store(_)
        | PullError::Layer(_)
        | PullError::Unpack(_)
        | PullError::Lost => None,
    }
}

fn load_advice(error: &LoadError) -> Option<String> {
    match error {
        LoadError::Archive(ArchiveError::NoReference) => Some("name it with --reference NAME".to_owned()),
        LoadError::Archive(ArchiveError::Several(_)) => Some("leave --reference out".to_owned()),
        LoadError::Archive(ArchiveError::Unknown(_)) => {
            Some("a root file system as a tar is loaded with --reference NAME --rootfs".to_owned())
        }
        LoadError::Archive(_) | LoadError::Unpack(..) => None,
    }
}

/// Returns the directory in which things are kept, made for this user alone where it is missing.
pub(crate) fn made_home(named: HomeArgs) -> Result<PathBuf, Failure> {
    let home = home(named)?;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&home);
    made.map_err(|source| Failure::Home { home: home.clone(), source })?;
    Ok(home)
}

/// Returns the directory in which things are kept.
pub(crate) fn home(named: HomeArgs) -> Result<PathBuf, Failure> {
    match named.home {
        Some(home) => Ok(home),
        None => default_home(std::env::var_os("HOME")),
    }
}

fn default_home(home: Option<OsString>) -> Result<PathBuf, Failure> {
    let home = home.filter(|home| !home.is_empty()).ok_or(Failure::NoHome)?;
    Ok(PathBuf::from(home).join(".microsandbox"))
}
