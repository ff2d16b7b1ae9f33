// SPDX-License-Identifier: Apache-2.0
//! The Model Context Protocol at `/mcp`: the same calls as over JSON-RPC, as tools that a model can use.
//!
//! Streamable HTTP, the plain half of it: one POST, one JSON answer, no event stream. A session is a name and nothing
//! more (see [`calls`]), so any server behind the same address can answer the next request.
//!
//! ```text
//! http ── who calls, whole body ──▶ Mcp::answer ──▶ rmcp: messages, versions ──▶ handler ──▶ tools ──▶ api
//!                                        └── what is no message ──▶ refuse         └──▶ prompts
//! ```
//!
//! A request is cancelled by closing the connection that waits for its answer, as the newest version of the protocol has
//! it, or by `notifications/cancelled` in its session, as the older ones have it. A batch, which version 2025-03-26 alone
//! had, is refused as an invalid request.

mod calls;
mod exchange;
mod handler;
mod prompts;
mod refuse;
mod tools;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use protocol::limits::{BODY_BYTES_MAX, MEMORY_SHARE_FREE_BYTES};
use rmcp::ErrorData;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use crate::app::App;
use crate::caller::Caller;
use calls::Calls;
use exchange::Exchange;
use handler::Handler;
use refuse::Message;

/// The MCP side of a server: a cheap handle.
#[derive(Clone)]
pub(crate) struct Mcp {
    app: App,
    service: StreamableHttpService<Handler, NeverSessionManager>,
    calls: Calls,
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
        let handler = Handler::new(app.clone());
        let sessions = Arc::new(NeverSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(handler.clone()), sessions, config);
        Mcp { app, service, calls: Calls::default() }
    }

    /// Answers one request, whose body was read. Dropping the future cancels the call in it.
    pub(crate) async fn answer(&self, head: &HeaderMap, caller: Caller, body: Bytes) -> Response {
        let message = match self.look_at(body.clone()).await {
            Ok(message) => message,
            Err(error) => return refuse::answer(StatusCode::BAD_REQUEST, error, &Value::Null),
        };
        if let Some(id) = &message.takes_back {
            self.calls.cancel(&caller, head, id);
        }
        let mut request = Request::new(Body::from(body.clone()));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = told(head);
        let mut ticket = self.calls.enter(&caller, head, &message.id);
        let exchange = Exchange::new(caller, body);
        request.extensions_mut().insert(exchange.clone());
        let mut response = tokio::select! {
            biased;
            () = ticket.cancelled() => return taken_back(),
            response = self.service.handle(request) => response.map(Body::new),
        };
        let is_message =
            response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        if !is_message && !response.status().is_success() {
            return refuse::in_json(response, &message.id).await;
        }
        if message.is_handshake
            && let Some(session) = calls::new_session()
        {
            response.headers_mut().insert(calls::SESSION, session);
        }
        exchange.tie(response).await
    }

    async fn look_at(&self, body: Bytes) -> Result<Message, ErrorData> {
        if body.len() <= MEMORY_SHARE_FREE_BYTES {
            return refuse::check(&body);
        }
        let looked = self.app.memory().heavy(move || refuse::check(&body)).await;
        looked.unwrap_or_else(|error| Err(ErrorData::internal_error(error.message, None)))
    }
}

/// The answer to a request that was taken back: its client must not get one, so there is nothing in it.
fn taken_back() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Returns the headers that concern the protocol.
///
/// Keys and cookies stay out: what they prove is known already. What a client accepts is not asked, because there is
/// one kind of answer, and not every client names both kinds that the specification wants it to name.
fn told(head: &HeaderMap) -> HeaderMap {
    let of_protocol = |name: &HeaderName| name.as_str().starts_with("mcp-");
    let mut told: HeaderMap =
        head.iter().filter(|(name, _)| of_protocol(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    told.insert(header::HOST, HeaderValue::from_static("localhost"));
    told.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    told.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    told
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use image::registry::RegistryConfig;
    use image::{Allowed, Images};
    use protocol::calls::Scope;
    use protocol::names::NamespaceName;
    use runtime::fake::Fake;
    use serde_json::json;

    use super::*;
    use crate::{Access, Host};

    async fn call(mcp: &Mcp, caller: &Caller, tool: &str, namespace: &str) -> (bool, String) {
        let arguments = json!({"sandbox": "s", "namespace": namespace, "language": "python", "code": "1"});
        let params = json!({"name": tool, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let answer = mcp.answer(&HeaderMap::new(), caller.clone(), message.to_string().into()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body = to_bytes(answer.into_body(), BODY_BYTES_MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let result = &body["result"];
        (result["isError"].as_bool().unwrap(), result["content"][0]["text"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_scoped_caller_reaches_its_own_namespace_and_is_told_so_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        let images = Images::open(home.path(), Allowed::default(), RegistryConfig::default(), false).unwrap();
        let host = Host { memory_mib: 4096, cpus: 4 };
        let mcp = Mcp::new(App::new(Arc::new(Fake::new()), images, host, Access::Open));
        let caller = Caller::with_key("k", Scope::One(NamespaceName::parse("mine").unwrap()));
        for tool in ["sandbox_start", "sandbox_stop", "sandbox_run_code", "sandbox_get_metrics"] {
            for foreign in ["theirs", "Mine"] {
                let (is_error, text) = call(&mcp, &caller, tool, foreign).await;
                assert!(
                    is_error && text.starts_with("Error: Access denied: this key is for another"),
                    "{text}"
                );
            }
        }
        let (is_error, text) = call(&mcp, &caller, "sandbox_get_metrics", "*").await;
        assert!(is_error && text.contains("Access denied"), "{text}");
        let (is_error, text) = call(&mcp, &caller, "sandbox_run_code", "mine").await;
        assert!(is_error && text.contains("no sandbox 's' in namespace 'mine'"), "{text}");
        assert!(call(&mcp, &caller, "sandbox_get_metrics", "mine").await.1.contains("not found"));
        assert!(!call(&mcp, &Caller::open(), "sandbox_start", "theirs").await.1.contains("Access denied"));
    }
}
