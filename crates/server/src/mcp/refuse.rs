// SPDX-License-Identifier: Apache-2.0
//! Looks at a body before it is handed on, and says as a JSON-RPC error what is wrong with one that is no message.

use std::error::Error;

use axum::body::{self, Body};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use protocol::errors::{ApiError, ErrorCode};
use protocol::json;
use protocol::limits::MCP_VALUES_MAX;
use rmcp::ErrorData;
use serde_json::{Value, json};

use crate::rpc;

/// Most bytes of a refusal's text that are passed on.
const TEXT_BYTES_MAX: usize = 16 * 1024;

const SHAPE: &str = "Invalid Request: a message is a JSON object with jsonrpc \"2.0\", a method, params that are an \
                     object, and an id that is a string or a whole number, or no id for a notification";
const BATCH: &str = "Invalid Request: batches are not served here; send each message in a request of its own";

/// What has to be known of a message before it is looked at.
pub(super) struct Message {
    /// Its id; null if it has none that can be sent back.
    pub(super) id: Value,
    /// Whether it opens a session.
    pub(super) is_handshake: bool,
    /// The id of the request that it takes back.
    pub(super) takes_back: Option<Value>,
}

/// Refuses a body that is no JSON, a batch, or out of measure.
pub(super) fn check(body: &[u8]) -> Result<Message, ErrorData> {
    let broken = |error: &dyn Error| ErrorData::parse_error(format!("Parse error: {error}"), None);
    let text = std::str::from_utf8(body).map_err(|error| broken(&error))?;
    let message = json::read(text).map_err(|error| broken(&error))?;
    if message.is_array() {
        return Err(ErrorData::invalid_request(BATCH, None));
    }
    if count(&message) > MCP_VALUES_MAX {
        let text = format!("Invalid Request: a message has at most {MCP_VALUES_MAX} values");
        return Err(ErrorData::invalid_request(text, None));
    }
    let takes_back =
        (message["method"] == "notifications/cancelled").then(|| message["params"]["requestId"].clone());
    let id = Some(&message["id"]).filter(|id| id.is_string() || id.is_i64());
    let is_handshake = message["method"] == "initialize";
    Ok(Message { id: id.cloned().unwrap_or_default(), is_handshake, takes_back })
}

/// Counts the values in one, itself included; what was read nests 127 levels deep at most.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Turns a refusal in plain text into an answer that a client of JSON-RPC can read.
pub(super) async fn in_json(refusal: Response, id: &Value) -> Response {
    let status = refusal.status();
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        // The body was declared as JSON, and is; so what is refused is what it says.
        return answer(StatusCode::BAD_REQUEST, ErrorData::invalid_request(SHAPE, None), id);
    }
    let text = body::to_bytes(refusal.into_body(), TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.is_client_error() {
        return answer(status, ErrorData::invalid_request(text, None), id);
    }
    let error = ApiError::new(ErrorCode::Failed, "Internal server error").cause(text);
    let data = Value::Object(rpc::additions(&error));
    answer(status, ErrorData::internal_error(error.message, Some(data)), id)
}

/// Returns an error as the answer to the message of an id.
pub(super) fn answer(status: StatusCode, error: ErrorData, id: &Value) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
