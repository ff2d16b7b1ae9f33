// SPDX-License-Identifier: Apache-2.0
//! The Model Context Protocol at `/mcp`: the same calls as over JSON-RPC, as tools that a model can use.
//!
//! Streamable HTTP, the plain half of it: one POST, one JSON answer. There are no sessions and no event streams, so a
//! client that is told something here finds nothing remembered, and any server behind the same address can answer it.
//!
//! ```text
//! http ── who calls, whole body ──▶ Mcp::answer ──▶ rmcp: message, versions ──▶ handler ──▶ tools ──▶ api
//!                                        └──────────── whatever is no message ── refuse    └──▶ prompts
//! ```
//!
//! What is left out, and why: `notifications/cancelled` is accepted and changes nothing, because a request's number is
//! only known within a session, and two clients that count from 1 must not end each other's calls. A client cancels a
//! call by closing the connection that waits for it; later versions of the protocol say so too. A batch, which only
//! version 2025-03-26 had, is refused as an invalid request.

mod handler;
mod prompts;
mod refuse;
mod tools;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use protocol::limits::BODY_BYTES_MAX;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use crate::app::App;
use crate::caller::Caller;
use handler::Handler;

/// The MCP side of a server: a cheap handle.
#[derive(Clone)]
pub(crate) struct Mcp {
    service: StreamableHttpService<Handler, NeverSessionManager>,
}

impl Mcp {
    pub(crate) fn new(app: App) -> Mcp {
        // `Host` and `Origin` were looked at before anything gets here, by rules of our own.
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(BODY_BYTES_MAX)
            .disable_allowed_hosts()
            .disable_allowed_origins();
        let handler = Handler::new(app);
        let sessions = Arc::new(NeverSessionManager::default());
        Mcp { service: StreamableHttpService::new(move || Ok(handler.clone()), sessions, config) }
    }

    /// Answers one request, whose body was read. Dropping the future cancels the call in it.
    pub(crate) async fn answer(&self, head: &HeaderMap, caller: Caller, body: Vec<u8>) -> Response {
        let id = match refuse::check(&body) {
            Ok(id) => id,
            Err(error) => return refuse::answer(StatusCode::BAD_REQUEST, error, &Value::Null),
        };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = told(head);
        request.extensions_mut().insert(caller);
        let (parts, answer) = self.service.handle(request).await.into_parts();
        let is_message =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        if is_message || parts.status.is_success() {
            return Response::from_parts(parts, Body::new(answer));
        }
        refuse::in_json(parts.status, Body::new(answer), &id).await
    }
}

/// Returns the headers that concern the protocol.
///
/// Keys and cookies stay out: what they prove is known already. What a client accepts is not asked, because there is
/// one kind of answer, and not every client names both kinds that the specification wants it to name.
fn told(headers: &HeaderMap) -> HeaderMap {
    let of_protocol = |name: &HeaderName| name.as_str().starts_with("mcp-");
    let mut told: HeaderMap =
        headers.iter().filter(|(name, _)| of_protocol(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    told.insert(header::HOST, HeaderValue::from_static("localhost"));
    told.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    told.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    told
}
