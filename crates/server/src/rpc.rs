// SPDX-License-Identifier: Apache-2.0
//! The JSON-RPC envelope: single calls, batches, and the two shapes of an error.
//!
//! A single call answers most errors with a flat body, `{"error": text, "code": number}`, and with the HTTP status of the
//! error; errors of the envelope itself, and every error in a batch, have the shape of JSON-RPC. A single call without
//! `id` is answered in full, without an `id`; in a batch it is silent.

use protocol::calls::{METHODS, ParseError, parse};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::BATCH_CALLS_MAX;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::{self, Outcome};
use crate::app::App;
use crate::output::Bounds;

/// An answer without its HTTP clothes.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None` when it went well.
    pub(crate) error: Option<ErrorCode>,
    /// The JSON text; empty when there is nothing to say.
    pub(crate) body: Vec<u8>,
}

/// One call as it came.
struct Envelope<'a> {
    method: &'a str,
    params: &'a Value,
    id: Option<&'a Value>,
}

/// One reply of a batch.
#[derive(Serialize)]
#[serde(untagged)]
enum Reply<'a> {
    Success(Success<'a>),
    Error(Value),
}

#[derive(Serialize)]
struct Success<'a> {
    jsonrpc: &'static str,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
}

/// Carries out what a body asks for.
pub(crate) async fn answer(app: &App, body: &[u8]) -> Answer {
    match serde_json::from_slice(body) {
        Ok(Value::Array(calls)) => answer_batch(app, &calls).await,
        Ok(call) => answer_single(app, &call).await,
        Err(error) => {
            let text = format!("The body is not valid JSON: {error}");
            flat(ApiError::new(ErrorCode::BadParameters, text))
        }
    }
}

/// Returns an error as a flat body, and writes it to the log if it is ours.
pub(crate) fn flat(error: ApiError) -> Answer {
    let request_id = note(&error);
    let mut body = additions(&error, &request_id);
    body.insert("error".to_owned(), error.message.into());
    body.insert("code".to_owned(), error.code.number().into());
    Answer { error: Some(error.code), body: Value::Object(body).to_string().into_bytes() }
}

async fn answer_single(app: &App, call: &Value) -> Answer {
    let id = call.get("id").filter(|id| !id.is_null());
    let result = match Envelope::read(call) {
        Ok(envelope) => envelope.perform(app, Bounds::shared_by(1)).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(result) => Answer { error: None, body: json_text(&Success { jsonrpc: "2.0", result, id }) },
        Err(error) if error.code.concerns_envelope() => {
            let code = error.code;
            Answer { error: Some(code), body: json_text(&json_rpc_error(error, id)) }
        }
        Err(error) => flat(error),
    }
}

/// Carries out the calls of a batch one after the other, so that a later one can build on an earlier one.
async fn answer_batch(app: &App, calls: &[Value]) -> Answer {
    if calls.is_empty() || calls.len() > BATCH_CALLS_MAX {
        let text = format!("A batch has 1 to {BATCH_CALLS_MAX} calls, not {}", calls.len());
        let error = ApiError::new(ErrorCode::InvalidEnvelope, text);
        let body = json_text(&json_rpc_error(error, Some(&Value::Null)));
        return Answer { error: Some(ErrorCode::InvalidEnvelope), body };
    }
    let bounds = Bounds::shared_by(calls.len());
    let mut replies = Vec::new();
    for call in calls {
        let envelope = match Envelope::read(call) {
            Ok(envelope) => envelope,
            Err(mut error) => {
                error.code = ErrorCode::InvalidEnvelope;
                let id = call.get("id").unwrap_or(&Value::Null);
                replies.push(Reply::Error(json_rpc_error(error, Some(id))));
                continue;
            }
        };
        let result = envelope.perform(app, bounds).await;
        match (envelope.id, result) {
            (Some(id), Ok(result)) => {
                replies.push(Reply::Success(Success { jsonrpc: "2.0", result, id: Some(id) }));
            }
            (Some(id), Err(error)) => replies.push(Reply::Error(json_rpc_error(error, Some(id)))),
            (None, Ok(_)) => {}
            (None, Err(error)) => drop(note(&error)),
        }
    }
    let body = if replies.is_empty() { Vec::new() } else { json_text(&replies) };
    Answer { error: None, body }
}

impl<'a> Envelope<'a> {
    fn read(call: &'a Value) -> Result<Envelope<'a>, ApiError> {
        let not_a_call = |text: &str| ApiError::new(ErrorCode::NotACall, text);
        let members = call.as_object().ok_or_else(|| {
            not_a_call("A call must be a JSON object with the members jsonrpc, method, params and id")
        })?;
        let version = members.get("jsonrpc").and_then(Value::as_str).ok_or_else(|| {
            not_a_call("A call must have the member 'jsonrpc', and it must be the string \"2.0\"")
        })?;
        let method = members
            .get("method")
            .and_then(Value::as_str)
            .ok_or_else(|| not_a_call("A call must have the member 'method', and it must be a string"))?;
        if version != "2.0" {
            let text = "Invalid or missing jsonrpc version field";
            return Err(ApiError::new(ErrorCode::InvalidEnvelope, text).remedy("send \"jsonrpc\": \"2.0\""));
        }
        Ok(Envelope { method, params: members.get("params").unwrap_or(&Value::Null), id: members.get("id") })
    }

    async fn perform(&self, app: &App, bounds: Bounds) -> Result<Outcome, ApiError> {
        let call = parse(self.method, self.params).map_err(|error| {
            let text = error.to_string();
            match error {
                ParseError::Method(_) => ApiError::new(ErrorCode::UnknownMethod, text)
                    .remedy(format!("the methods are {}", METHODS.join(", "))),
                ParseError::Params(_) | ParseError::Name(_) | ParseError::Wildcard(_) => {
                    ApiError::new(ErrorCode::BadParameters, text)
                }
            }
        })?;
        api::perform(app, call, bounds).await
    }
}

fn json_rpc_error(error: ApiError, id: Option<&Value>) -> Value {
    let request_id = note(&error);
    let data = additions(&error, &request_id);
    let mut body = json!({
        "jsonrpc": "2.0",
        "error": {"code": error.code.number(), "message": error.message, "data": data},
    });
    if let Some(id) = id {
        body["id"] = id.clone();
    }
    body
}

/// Returns what an error carries beside its code and text.
fn additions(error: &ApiError, request_id: &str) -> Map<String, Value> {
    let mut members = error.data.clone();
    members.insert("request_id".to_owned(), request_id.into());
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
        | ErrorCode::BodyTooLarge
        | ErrorCode::WrongContentType
        | ErrorCode::NotACall
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::NotRunning => tracing::debug!(request_id, code, cause, "{}", error.message),
    }
    request_id
}

fn json_text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our answers have text keys only, so they are JSON")
}
