// SPDX-License-Identifier: Apache-2.0
//! The JSON-RPC envelope: a body in, checked calls out. Pure, and owned: nothing of the body is needed afterwards.
//!
//! An `id` is never looked into: it is sent back as the text that came. A call without `id` is silent in a batch and
//! answered in full, without an `id`, when it comes alone.

use std::fmt;

use protocol::calls::Call;
use protocol::errors::{ApiError, ErrorCode};
use protocol::json;
use protocol::limits::BATCH_CALLS_MAX;
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api;
use crate::caller::Caller;

/// The only version of JSON-RPC that is spoken.
pub(crate) const VERSION: &str = "2.0";

/// What JSON takes for white space (RFC 8259, section 2).
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

const NOT_A_CALL: &str = "A call must be a JSON object with the members jsonrpc, method, params and id";

/// What a body asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// One call.
    Single(Box<Asked>),
    /// Several, at least one.
    Batch(Vec<Asked>),
}

/// One call, or what is wrong with it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What the reply carries as its `id`; without one there is none.
    pub(crate) id: Option<Box<RawValue>>,
    /// The call.
    pub(crate) call: Result<Call, ApiError>,
}

/// The members of a call as they came.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// The calls of a batch, not looked into yet; reading stops at the first one too many.
struct Batch<'a>(Vec<&'a RawValue>);

/// Reads a body; every call in it is checked, and that the caller may make it.
pub(crate) fn read(caller: &Caller, body: &[u8]) -> Result<Request, ApiError> {
    let body = std::str::from_utf8(body).map_err(|error| not_json(&error))?;
    match body.trim_start_matches(JSON_SPACE).as_bytes().first() {
        Some(b'[') => read_batch(caller, body).map(Request::Batch),
        Some(b'{') => {
            let members = Members::read(body)?;
            let id = members.id.filter(|id| id.get() != "null");
            let id = id.map(ToOwned::to_owned);
            Ok(Request::Single(Box::new(Asked { id, call: members.parse(caller) })))
        }
        _ => {
            serde_json::from_str::<IgnoredAny>(body).map_err(|error| not_json(&error))?;
            Err(ApiError::new(ErrorCode::NotACall, NOT_A_CALL))
        }
    }
}

fn read_batch(caller: &Caller, text: &str) -> Result<Vec<Asked>, ApiError> {
    let calls = match serde_json::from_str(text) {
        Ok(Batch(calls)) if !calls.is_empty() => calls,
        Err(error) if !error.is_data() => return Err(not_json(&error)),
        Ok(Batch(_)) | Err(_) => {
            let text = format!("A batch has 1 to {BATCH_CALLS_MAX} calls");
            return Err(ApiError::new(ErrorCode::InvalidEnvelope, text));
        }
    };
    Ok(calls.into_iter().map(|call| read_in_batch(caller, call)).collect())
}

/// Reads one call of a batch. What is no call is never silent, for nobody can say whether it had an `id`.
fn read_in_batch(caller: &Caller, call: &RawValue) -> Asked {
    let in_envelope = |error| ApiError { code: ErrorCode::InvalidEnvelope, ..error };
    let null = || Some(RawValue::NULL.to_owned());
    let members = match Members::read(call.get()) {
        Ok(members) => members,
        Err(error) => return Asked { id: null(), call: Err(in_envelope(error)) },
    };
    let id = members.id.map(ToOwned::to_owned);
    match members.parse(caller) {
        Err(error) if error.code == ErrorCode::NotACall => {
            Asked { id: id.or_else(null), call: Err(in_envelope(error)) }
        }
        call => Asked { id, call },
    }
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Members<'a>, ApiError> {
        // Without this an array would do, for its items in the order of the members.
        if !text.trim_start_matches(JSON_SPACE).starts_with('{') {
            return Err(ApiError::new(ErrorCode::NotACall, NOT_A_CALL));
        }
        serde_json::from_str(text).map_err(|error| not_json(&error))
    }

    fn parse(&self, caller: &Caller) -> Result<Call, ApiError> {
        let not_a_call = |text: &str| ApiError::new(ErrorCode::NotACall, text);
        let version = self.jsonrpc.and_then(text).ok_or_else(|| {
            not_a_call("A call must have the member 'jsonrpc', and it must be the string \"2.0\"")
        })?;
        let method = self
            .method
            .and_then(text)
            .ok_or_else(|| not_a_call("A call must have the member 'method', and it must be a string"))?;
        if version != VERSION {
            let text = "Invalid or missing jsonrpc version field";
            return Err(ApiError::new(ErrorCode::InvalidEnvelope, text).remedy("send \"jsonrpc\": \"2.0\""));
        }
        let params = self.params.map_or(Ok(Value::Null), |params| json::read(params.get()));
        api::read(caller, &method, &params.map_err(|error| not_json(&error))?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batch<'a>, D::Error> {
        deserializer.deserialize_seq(BatchVisitor)
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of calls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Batch<'de>, A::Error> {
        let mut calls = Vec::new();
        while let Some(call) = items.next_element()? {
            if calls.len() == BATCH_CALLS_MAX {
                return Err(de::Error::custom("too many calls"));
            }
            calls.push(call);
        }
        Ok(Batch(calls))
    }
}

/// Reads a member that is there, also when it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn not_json(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::BadParameters, format!("The body is not valid JSON: {error}"))
}
