// SPDX-License-Identifier: Apache-2.0
//! How a command fails: what happened, what helps, and the exit code. The one place that decides them.

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use server::OpenError;

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
    DevOnNetwork(SocketAddr),
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
            Failure::DevOnNetwork(_) => {
                (hint("leave --host at 127.0.0.1, or say --dev-on-network if that is what you want"), USAGE)
            }
            Failure::Program(_) => (hint("build all three programs together: cargo xtask build"), FAILED),
            Failure::Listen { .. } => (hint("choose another --port; 0 takes a free one"), FAILED),
            Failure::Open(OpenError::Home(_)) => {
                (hint("stop the other server, or name another directory with --home DIR"), FAILED)
            }
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

/// The directory below which things are kept when none is named.
pub(crate) fn default_home(home: Option<std::ffi::OsString>) -> Result<PathBuf, Failure> {
    let home = home.filter(|home| !home.is_empty()).ok_or(Failure::NoHome)?;
    Ok(PathBuf::from(home).join(".microsandbox"))
}
