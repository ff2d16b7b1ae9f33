// SPDX-License-Identifier: Apache-2.0
//! The JSON-RPC envelope: single calls, batches, and the two shapes of an error.
//!
//! A single call answers most errors with a flat body, `{"error": text, "code": number}`, and with the HTTP status of the
//! error; errors of the envelope itself, and every error in a batch, have the shape of JSON-RPC. A single call without
//! `id` is answered in full, without an `id`; in a batch it is silent.
//!
//! An `id` is never looked into: it is sent back as the text that came. Parameters are parsed when their call's turn comes
//! and are gone before it is carried out, so that what a body says too much is not held while a call takes its time.

use axum::body::Bytes;
use protocol::calls::{Call, Outcome};
use protocol::errors::{ApiError, ErrorCode};
use protocol::json;
use protocol::limits::BATCH_CALLS_MAX;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api;
use crate::app::App;
use crate::caller::Caller;
use crate::memory::Held;
use crate::output::Room;

/// The only version of JSON-RPC that is spoken.
const VERSION: &str = "2.0";

/// An answer without its HTTP clothes.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// `None` when it went well.
    pub(crate) error: Option<ErrorCode>,
    /// The JSON text; empty when there is nothing to say.
    pub(crate) body: Bytes,
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

/// One reply.
#[derive(Serialize)]
#[serde(untagged)]
enum Reply<'a> {
    Success {
        jsonrpc: &'static str,
        result: Outcome,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
    Error {
        jsonrpc: &'static str,
        error: ErrorObject,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
    },
}

/// An error in the shape of JSON-RPC.
#[derive(Serialize)]
struct ErrorObject {
    code: i32,
    message: String,
    data: Map<String, Value>,
}

/// Carries out what a body asks for, for a caller.
pub(crate) async fn answer(app: &App, caller: &Caller, body: &[u8]) -> Answer {
    let body = match std::str::from_utf8(body) {
        Ok(body) => body,
        Err(error) => return flat(not_json(&error)),
    };
    match serde_json::from_str::<&RawValue>(body) {
        Ok(raw) if raw.get().starts_with('[') => answer_batch(app, caller, raw.get()).await,
        Ok(raw) => answer_single(app, caller, raw.get()).await,
        Err(error) => flat(not_json(&error)),
    }
}

/// Returns an error as a flat body, and writes it to the log if it is ours.
pub(crate) fn flat(error: ApiError) -> Answer {
    let mut body = additions(&error);
    body.insert("error".to_owned(), error.message.into());
    body.insert("code".to_owned(), error.code.number().into());
    Answer { error: Some(error.code), body: json_text(&body).into() }
}

async fn answer_single(app: &App, caller: &Caller, text: &str) -> Answer {
    let members = match Members::read(text) {
        Ok(members) => members,
        Err(error) => return flat(error),
    };
    let id = members.id.filter(|id| id.get() != "null");
    let mut room = Room::shared_by(1, app.memory());
    match members.perform(app, caller, &mut room).await {
        Ok(result) => success(app, &room, &Reply::Success { jsonrpc: VERSION, result, id }).await,
        Err(error) if error.code.concerns_envelope() => {
            let code = error.code;
            Answer { error: Some(code), body: json_text(&Reply::error(error, id)).into() }
        }
        Err(error) => flat(error),
    }
}

/// Carries out the calls of a batch one after the other, so that a later one can build on an earlier one.
async fn answer_batch(app: &App, caller: &Caller, text: &str) -> Answer {
    let calls: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(calls) => calls,
        Err(error) => return flat(not_json(&error)),
    };
    if calls.is_empty() || calls.len() > BATCH_CALLS_MAX {
        let text = format!("A batch has 1 to {BATCH_CALLS_MAX} calls, not {}", calls.len());
        let error = ApiError::new(ErrorCode::InvalidEnvelope, text);
        let body = json_text(&Reply::error(error, Some(RawValue::NULL))).into();
        return Answer { error: Some(ErrorCode::InvalidEnvelope), body };
    }
    let mut room = Room::shared_by(calls.len(), app.memory());
    let mut replies = Vec::new();
    for call in calls {
        let members = match Members::read(call.get()) {
            Ok(members) => members,
            Err(error) => {
                replies.push(Reply::error(envelope(error), Some(RawValue::NULL)));
                continue;
            }
        };
        match (members.id, members.perform(app, caller, &mut room).await) {
            (Some(_), Ok(result)) => {
                replies.push(Reply::Success { jsonrpc: VERSION, result, id: members.id })
            }
            (id, Err(error)) if error.code == ErrorCode::NotACall => {
                replies.push(Reply::error(envelope(error), id.or(Some(RawValue::NULL))));
            }
            (Some(_), Err(error)) => replies.push(Reply::error(error, members.id)),
            (None, Ok(_)) => {}
            (None, Err(error)) => drop(note(&error)),
        }
    }
    if replies.is_empty() {
        return Answer { error: None, body: Bytes::new() };
    }
    success(app, &room, &replies).await
}

/// Writes an answer once there is room for it: a large one is held until its client has taken it.
async fn success(app: &App, room: &Room, replies: &impl Serialize) -> Answer {
    match app.memory().answer(room.answer_bytes_max()).await {
        Ok(held) => Answer { error: None, body: Bytes::from_owner(Held::new(json_text(replies), held)) },
        Err(error) => flat(error),
    }
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Members<'a>, ApiError> {
        if !text.starts_with('{') {
            let text = "A call must be a JSON object with the members jsonrpc, method, params and id";
            return Err(ApiError::new(ErrorCode::NotACall, text));
        }
        serde_json::from_str(text).map_err(|error| not_json(&error))
    }

    async fn perform(&self, app: &App, caller: &Caller, room: &mut Room) -> Result<Outcome, ApiError> {
        let call = self.parse(caller)?;
        api::perform(app, call, room).await
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

impl<'a> Reply<'a> {
    fn error(error: ApiError, id: Option<&'a RawValue>) -> Reply<'a> {
        let data = additions(&error);
        Reply::Error {
            jsonrpc: VERSION,
            error: ErrorObject { code: error.code.number(), message: error.message, data },
            id,
        }
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

/// In a batch, what is no call is an error of the envelope.
fn envelope(mut error: ApiError) -> ApiError {
    error.code = ErrorCode::InvalidEnvelope;
    error
}

/// Returns what an error carries beside its code and text.
///
/// The request id is given here, so every error that is sent is in the log too.
pub(crate) fn additions(error: &ApiError) -> Map<String, Value> {
    let mut members = error.data.clone();
    members.insert("request_id".to_owned(), note(error).into());
    for (key, value) in [("cause", &error.cause), ("remedy", &error.remedy)] {
        if let Some(value) = value {
            members.insert(key.to_owned(), value.as_str().into());
        }
    }
    members
}

/// Gives an error its id, under which the log knows it.
fn note(error: &ApiError) -> String {
    let request_id =
        getrandom::u64().map_or_else(|_| "unknown".to_owned(), |number| format!("{number:016x}"));
    let (code, cause) = (error.code.number(), error.cause.as_deref().unwrap_or(""));
    match error.code {
        ErrorCode::Failed | ErrorCode::Store | ErrorCode::StartDeadline | ErrorCode::NoCapacity => {
            tracing::warn!(request_id, code, cause, "{}", error.message);
        }
        ErrorCode::InvalidEnvelope
        | ErrorCode::UnknownMethod
        | ErrorCode::NoCredential
        | ErrorCode::BadCredential
        | ErrorCode::BadParameters
        | ErrorCode::WrongHttpMethod
        | ErrorCode::BodyTooSlow
        | ErrorCode::BodyTooLarge
        | ErrorCode::WrongContentType
        | ErrorCode::NotACall
        | ErrorCode::KeyReused
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::NotRunning => tracing::debug!(request_id, code, cause, "{}", error.message),
    }
    request_id
}

fn json_text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our answers have text keys only, so they are JSON")
}
