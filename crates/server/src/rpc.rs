// SPDX-License-Identifier: Apache-2.0
//! JSON-RPC: carries out what a body asks for, and writes the answer in one of two shapes of errors.
//!
//! A single call answers most errors with a flat body, `{"error": text, "code": number}`, and with the HTTP status of the
//! error; errors of the envelope itself, and every error in a batch, have the shape of JSON-RPC. What is large is read
//! and written apart from the tasks that serve everybody.

use axum::body::Bytes;
use protocol::calls::Outcome;
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{LOGGED_CHARS_MAX, MEMORY_SHARE_FREE_BYTES};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api;
use crate::app::App;
use crate::caller::Caller;
use crate::envelope::{self, Asked, Request, VERSION};
use crate::memory::Held;
use crate::output::Room;

/// An answer without its HTTP clothes.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// `None` when it went well.
    pub(crate) error: Option<ErrorCode>,
    /// The JSON text; empty when there is nothing to say.
    pub(crate) body: Bytes,
}

/// What is said to one call.
#[derive(Serialize)]
struct Reply {
    jsonrpc: &'static str,
    #[serde(flatten)]
    said: Said,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<RawValue>>,
}

/// Never both: published clients look for the member `error`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Result(Outcome),
    Error(ErrorObject),
}

/// An error in the shape of JSON-RPC.
#[derive(Serialize)]
struct ErrorObject {
    code: i32,
    message: String,
    data: Map<String, Value>,
}

/// Carries out what a body asks for, for a caller.
pub(crate) async fn answer(app: &App, caller: &Caller, body: Bytes) -> Answer {
    // What the calls hold is made of the body, so its share of the memory is kept until they are done.
    let held = body.clone();
    match read(app, caller, body).await {
        Ok(Request::Single(asked)) => answer_single(app, *asked, held.len()).await,
        Ok(Request::Batch(asked)) => answer_batch(app, asked, held.len()).await,
        Err(error) if error.code.concerns_envelope() => shaped(error, Some(RawValue::NULL.to_owned())),
        Err(error) => flat(error),
    }
}

async fn read(app: &App, caller: &Caller, body: Bytes) -> Result<Request, ApiError> {
    if body.len() <= MEMORY_SHARE_FREE_BYTES {
        return envelope::read(caller, &body);
    }
    let caller = caller.clone();
    app.memory().heavy(move || envelope::read(&caller, &body)).await?
}

/// Returns an error as a flat body, and writes it to the log if it is ours.
pub(crate) fn flat(error: ApiError) -> Answer {
    let mut body = additions(&error);
    body.insert("error".to_owned(), error.message.into());
    body.insert("code".to_owned(), error.code.number().into());
    Answer { error: Some(error.code), body: json_text(&body).into() }
}

/// Returns an error in the shape of JSON-RPC.
fn shaped(error: ApiError, id: Option<Box<RawValue>>) -> Answer {
    Answer { error: Some(error.code), body: json_text(&Reply::error(error, id)).into() }
}

async fn answer_single(app: &App, Asked { id, call }: Asked, asked_bytes: usize) -> Answer {
    let mut room = Room::shared_by(1, app.memory());
    room.add(asked_bytes);
    let result = match call {
        Ok(call) => api::perform(app, call, &mut room).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(outcome) => success(app, &room, Reply::result(outcome, id)).await,
        Err(error) if error.code.concerns_envelope() => shaped(error, id),
        Err(error) => flat(error),
    }
}

/// Carries out the calls of a batch one after the other, so that a later one can build on an earlier one.
async fn answer_batch(app: &App, calls: Vec<Asked>, asked_bytes: usize) -> Answer {
    let mut room = Room::shared_by(calls.len(), app.memory());
    room.add(asked_bytes);
    let mut replies = Vec::new();
    for Asked { id, call } in calls {
        let result = match call {
            Ok(call) => api::perform(app, call, &mut room).await,
            Err(error) => Err(error),
        };
        match (id, result) {
            (Some(id), Ok(outcome)) => replies.push(Reply::result(outcome, Some(id))),
            (Some(id), Err(error)) => replies.push(Reply::error(error, Some(id))),
            (None, Ok(_)) => {}
            (None, Err(error)) => drop(note(&error)),
        }
        // Others go on between two calls, also when none of them had to wait.
        tokio::task::yield_now().await;
    }
    if replies.is_empty() {
        return Answer { error: None, body: Bytes::new() };
    }
    success(app, &room, replies).await
}

/// Writes an answer once there is room for it: a large one is held until its client has taken it.
async fn success(app: &App, room: &Room, replies: impl Serialize + Send + 'static) -> Answer {
    let most = room.answer_bytes_max();
    let written = match app.memory().answer(most).await {
        Ok(None) => Ok(json_text(&replies).into()),
        Ok(held) => {
            let write = move || Bytes::from_owner(Held::new(json_text(&replies), held));
            app.memory().heavy(write).await
        }
        Err(error) => Err(error),
    };
    written.map_or_else(|error| flat(unanswered(error)), |body| Answer { error: None, body })
}

/// Says of a call that there is no room for its answer. It was carried out, so this is no invitation to try again.
pub(crate) fn unanswered(error: ApiError) -> ApiError {
    let text = format!("The call was carried out, but its answer cannot be given: {}", error.message);
    ApiError { code: ErrorCode::Failed, message: text, remedy: Some("let it print less".into()), ..error }
}

impl Reply {
    fn result(outcome: Outcome, id: Option<Box<RawValue>>) -> Reply {
        Reply { jsonrpc: VERSION, said: Said::Result(outcome), id }
    }

    fn error(error: ApiError, id: Option<Box<RawValue>>) -> Reply {
        let data = additions(&error);
        let error = ErrorObject { code: error.code.number(), message: error.message, data };
        Reply { jsonrpc: VERSION, said: Said::Error(error), id }
    }
}

/// Returns what an error carries beside its code and text.
///
/// The request id is given here, under which the log knows the error.
pub(crate) fn additions(error: &ApiError) -> Map<String, Value> {
    let mut members = error.data.clone();
    members.insert("request_id".to_owned(), note(error).into());
    for (key, value) in [("cause", &error.cause), ("remedy", &error.remedy)] {
        if let Some(value) = value {
            members.insert(key.to_owned(), value.as_ref().into());
        }
    }
    members
}

/// Gives an error its id, under which the log knows it.
fn note(error: &ApiError) -> String {
    let request_id =
        getrandom::u64().map_or_else(|_| "unknown".to_owned(), |number| format!("{number:016x}"));
    let code = error.code.number();
    let part = |text: &Option<Box<str>>| text.as_deref().map(quoted).unwrap_or_default();
    let (cause, detail, message) = (part(&error.cause), part(&error.detail), quoted(&error.message));
    match error.code {
        ErrorCode::Failed | ErrorCode::Store | ErrorCode::StartDeadline | ErrorCode::NoCapacity => {
            tracing::warn!(request_id, code, cause, detail, "{message}");
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
        | ErrorCode::NotRunning => tracing::debug!(request_id, code, cause, detail, "{message}"),
    }
    request_id
}

/// Returns as much of a text as the log repeats, in one line.
fn quoted(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn json_text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our answers have text keys only, so they are JSON")
}
