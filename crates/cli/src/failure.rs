// SPDX-License-Identifier: Apache-2.0
//! How a command fails: what happened, what helps, and the exit code. The one place that decides them.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use server::{HomeError, KeysError, OpenError, SecretError, StoreError};

use crate::args::HomeArgs;
use crate::base::BaseError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The walls need rights that the user does not have.
    #[error("sandboxes need root: this version builds its walls with the rights of root")]
    NotRoot,
    /// There is no home directory to keep things below.
    #[error("there is no directory to keep things in: HOME is not set")]
    NoHome,
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

/// Wrong use, which another command line mends.
const USAGE: u8 = 2;
/// Everything else.
const FAILED: u8 = 1;

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
            Failure::NotRoot => (hint("run it with sudo"), FAILED),
            Failure::NoHome => (hint("name a directory with --home DIR"), USAGE),
            Failure::DevOnNetwork(_) => (
                hint("leave it at the loopback address, or say --dev-on-network if that is what you want"),
                USAGE,
            ),
            Failure::Program(_) => (hint("build all three programs together: cargo xtask build"), FAILED),
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
