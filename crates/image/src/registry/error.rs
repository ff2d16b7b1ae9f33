// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a registry, for the one who asked: who did what, what is allowed, what to do.
//!
//! Nothing here holds a secret: of addresses only host and port are told (a redirect's address often carries a
//! signature), and what a registry says in the body of an error is not repeated, for it may repeat what was sent to it.

use std::io;
use std::time::Duration;

use super::credentials::CredentialsError;

/// Why something could not be had from a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error(
        "cannot reach {host}: {reason}; check its name and the network, and that it speaks the protocol expected"
    )]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What the network says.
        reason: String,
    },
    /// It is not there.
    #[error("{host} has no {what}; check the name, and that the credentials for {host} may see it")]
    NotFound {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
    },
    /// The registry wants other credentials, or any.
    #[error("{host} denies {what}: {reason}; {remedy}")]
    Denied {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
        /// What was wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The registry did not answer as it should, however often it was asked.
    #[error("{host} answered {what} with status {status}{}; try again later", asked_wait(*.wait))]
    Status {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
        /// The status of HTTP.
        status: u16,
        /// How long the registry asks to wait, where that is longer than is waited here.
        wait: Option<Duration>,
    },
    /// It sends, but next to nothing.
    #[error(
        "{host} sent only {bytes} bytes of {what} in {window:?}; at least {least} are expected, try again later"
    )]
    TooSlow {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
        /// How much came.
        bytes: u64,
        /// How much should have.
        least: u64,
        /// In which time.
        window: Duration,
    },
    /// A client names a registry in a network that is not the client's to reach.
    #[error("refused to ask {host} for a client: it leads to {place}; {allowed}")]
    Near {
        /// The registry.
        host: String,
        /// Where it is.
        place: &'static str,
        /// What is allowed, and what the operator can do.
        allowed: String,
    },
    /// A registry points at a place where it must not send us.
    #[error("refused {act} that {host} asks for: {wrong}; {allowed}")]
    Refused {
        /// What was refused, such as a redirect.
        act: &'static str,
        /// Who asked for it.
        host: String,
        /// What is wrong with it.
        wrong: String,
        /// What is allowed, and what to do.
        allowed: String,
    },
    /// What came is not what was asked for.
    #[error("cannot use {what} from {host}: {source}")]
    Content {
        /// Who was asked.
        host: String,
        /// For what.
        what: String,
        /// What is wrong with it.
        #[source]
        source: ContentError,
    },
    /// A blob could not be written.
    #[error("cannot write {what}")]
    Sink {
        /// Which blob.
        what: String,
        /// What the disk says.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be used.
    #[error("cannot use the configuration of registries: {reason}")]
    Configuration {
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// Credentials cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The registry itself failed, and its mirrors had before.
    #[error("{origin}; before that: {mirrors}")]
    AfterMirrors {
        /// What the mirrors said.
        mirrors: String,
        /// What the registry said.
        #[source]
        origin: Box<RegistryError>,
    },
}

/// What is wrong with a manifest, an index or the length of a blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// It has another digest than it was asked for by.
    #[error("its digest is {got}, and {wanted} is expected; it was changed on its way or in the registry")]
    WrongDigest {
        /// What was asked for.
        wanted: String,
        /// What came.
        got: String,
    },
    /// It has another length than its descriptor says.
    #[error("it has {got} bytes, and {wanted} are expected; it was changed on its way or in the registry")]
    WrongSize {
        /// What was asked for.
        wanted: u64,
        /// What came, or was announced.
        got: u64,
    },
    /// It is larger than is allowed.
    #[error("{what} more than the {max} {unit} that are allowed")]
    TooLarge {
        /// What is too large, with its verb.
        what: &'static str,
        /// How much is allowed.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// It is something else.
    #[error("{wrong}; {allowed}")]
    Unexpected {
        /// What it is.
        wrong: String,
        /// What it should be.
        allowed: &'static str,
    },
    /// There is no image for this machine.
    #[error("it has no image for {wanted}, only for {has}; choose a reference that has one for {wanted}")]
    NoPlatform {
        /// What was looked for.
        wanted: String,
        /// What there is.
        has: String,
    },
}

fn asked_wait(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| format!(" and asks to wait for {} seconds", wait.as_secs()))
}

/// An error, and whether to try again.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: RegistryError,
    pub(super) again: Again,
}

/// Whether another attempt may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    No,
    Soon,
    After(Duration),
}

impl Failure {
    pub(super) fn soon(error: RegistryError) -> Failure {
        Failure { error, again: Again::Soon }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        Failure { error, again: Again::No }
    }
}
