// SPDX-License-Identifier: Apache-2.0
//! The errors a client can see: one table of codes, and one type that carries a code with its text.
//!
//! The code decides the HTTP status and the number in the body; both are part of the contract with published clients.
//! How an error looks on the wire (flat or as JSON-RPC) is the business of whoever answers.

use serde_json::{Map, Value};

/// Every kind of error that an answer can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The envelope is no JSON-RPC 2.0.
    InvalidEnvelope,
    /// No method of that name.
    UnknownMethod,
    /// No credential, or nothing that looks like one.
    NoCredential,
    /// A credential that is not valid here.
    BadCredential,
    /// Parameters, names or limits that break a rule; also a body that is no JSON.
    BadParameters,
    /// The path exists, but not for this HTTP method.
    WrongHttpMethod,
    /// The body took too long to arrive.
    BodyTooSlow,
    /// The body is larger than is read.
    BodyTooLarge,
    /// The body is not declared as JSON, or is compressed.
    WrongContentType,
    /// The body is JSON, but no call.
    NotACall,
    /// An idempotency key that was used with another call before.
    KeyReused,
    /// A foreign origin, a foreign host name, or another tenant's namespace.
    Forbidden,
    /// No sandbox, image or path of that name.
    NotFound,
    /// The sandbox is known, but does not run.
    NotRunning,
    /// The server or its host is full.
    NoCapacity,
    /// The store of the server failed.
    Store,
    /// The call was carried out and failed, or something unexpected happened.
    Failed,
    /// The sandbox was not up in the time the client gave.
    StartDeadline,
}

impl ErrorCode {
    /// Every code there is.
    pub const ALL: [ErrorCode; 18] = [
        ErrorCode::InvalidEnvelope,
        ErrorCode::UnknownMethod,
        ErrorCode::NoCredential,
        ErrorCode::BadCredential,
        ErrorCode::BadParameters,
        ErrorCode::WrongHttpMethod,
        ErrorCode::BodyTooSlow,
        ErrorCode::BodyTooLarge,
        ErrorCode::WrongContentType,
        ErrorCode::NotACall,
        ErrorCode::KeyReused,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::NotRunning,
        ErrorCode::NoCapacity,
        ErrorCode::Store,
        ErrorCode::Failed,
        ErrorCode::StartDeadline,
    ];

    /// Returns the row of the table: the number that the body carries, the HTTP status of the answer, what it means.
    fn row(self) -> (i32, u16, &'static str) {
        match self {
            ErrorCode::InvalidEnvelope => (-32600, 400, "The request is no JSON-RPC 2.0"),
            ErrorCode::UnknownMethod => (-32601, 404, "There is no such method"),
            ErrorCode::NoCredential => (1001, 401, "A key is needed"),
            ErrorCode::BadCredential => (1004, 401, "The key is not valid, or not any more"),
            ErrorCode::BadParameters => {
                (2001, 400, "The request, a parameter, a name or a limit breaks a rule")
            }
            ErrorCode::WrongHttpMethod => (2001, 405, "The path does not take this HTTP method"),
            ErrorCode::BodyTooSlow => (2001, 408, "The body did not arrive in time"),
            ErrorCode::BodyTooLarge => (2001, 413, "The body is larger than is read"),
            ErrorCode::WrongContentType => (2001, 415, "The body is not sent as plain JSON"),
            ErrorCode::NotACall => (2001, 422, "The body is JSON, but no call"),
            ErrorCode::KeyReused => (2001, 422, "The idempotency key belongs to another call"),
            ErrorCode::Forbidden => (3001, 403, "Not for this caller, or not from there"),
            ErrorCode::NotFound => (4001, 404, "There is no such sandbox, image or path"),
            ErrorCode::NotRunning => (4009, 409, "The sandbox is known, but does not run"),
            ErrorCode::NoCapacity => (4290, 429, "The server or its machine is full"),
            ErrorCode::Store => (5001, 500, "The server's own records cannot be used"),
            ErrorCode::Failed => (5002, 500, "The call failed, or something unexpected happened"),
            ErrorCode::StartDeadline => (5004, 504, "The sandbox was not up in time"),
        }
    }

    /// Returns the number that the body carries.
    pub fn number(self) -> i32 {
        self.row().0
    }

    /// Returns the HTTP status of an answer with this error.
    pub fn http_status(self) -> u16 {
        self.row().1
    }

    /// Returns what it means, in one sentence.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    /// Says whether the error concerns the JSON-RPC envelope itself, and so is always JSON-RPC shaped.
    pub fn concerns_envelope(self) -> bool {
        self.number() < 0
    }
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its kind.
    pub code: ErrorCode,
    /// What was wrong, in words for the caller.
    pub message: String,
    /// What lies behind it, where that is known and may be told.
    pub cause: Option<Box<str>>,
    /// What the caller can do about it.
    pub remedy: Option<Box<str>>,
    /// Further members of the answer, such as the output so far.
    pub data: Map<String, Value>,
    /// What only the operator may know, such as paths of the host: it goes into the log and is never sent.
    pub detail: Option<Box<str>>,
}

impl ApiError {
    /// Makes an error of a kind with its text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), cause: None, remedy: None, data: Map::new(), detail: None }
    }

    /// Adds what lies behind it.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> ApiError {
        self.cause = Some(cause.into().into());
        self
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> ApiError {
        self.remedy = Some(remedy.into().into());
        self
    }

    /// Adds what only the log may have.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> ApiError {
        self.detail = Some(detail.into().into());
        self
    }

    /// Adds one more member to the answer.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> ApiError {
        self.data.insert(key.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_codes_is_the_published_one() {
        let rows: Vec<(i32, u16)> = ErrorCode::ALL.iter().map(|c| (c.number(), c.http_status())).collect();
        let published = [
            (-32600, 400),
            (-32601, 404),
            (1001, 401),
            (1004, 401),
            (2001, 400),
            (2001, 405),
            (2001, 408),
            (2001, 413),
            (2001, 415),
            (2001, 422),
            (2001, 422),
            (3001, 403),
            (4001, 404),
            (4009, 409),
            (4290, 429),
            (5001, 500),
            (5002, 500),
            (5004, 504),
        ];
        assert_eq!(rows, published);
        assert!(ErrorCode::UnknownMethod.concerns_envelope());
        assert!(!ErrorCode::Failed.concerns_envelope());
    }
}
