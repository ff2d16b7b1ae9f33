// SPDX-License-Identifier: Apache-2.0
//! Routes, who may use them, and bodies of bounded size.
//!
//! A web page must not reach a server on its visitor's machine: no CORS headers are ever sent, and a request whose
//! `Origin` or `Host` is foreign is refused before anything else is looked at.

mod access;
mod body;
mod origin;

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::RETRY_AFTER_SECONDS;

use crate::app::App;
use crate::caller::Caller;
use crate::repeats::RepeatKey;
use crate::rpc::{self, Answer};

/// The header of an idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The address at which a connection reached us; put into every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local(pub(crate) SocketAddr);

/// Returns the routes of a server.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/api/v1/health", get(health))
        .route("/api/v1/rpc", post(call))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(refuse_foreign))
        .with_state(app)
}

async fn health() -> Response {
    respond(StatusCode::OK, &br#"{"message":"Service is healthy"}"#[..])
}

async fn call(State(app): State<App>, request: Request) -> Response {
    if let Err(error) = access::check(app.access(), request.headers()) {
        return refuse(error);
    }
    if !is_json(request.headers()) {
        let text = "The body must be sent as JSON, with the header 'Content-Type: application/json'";
        return refuse(ApiError::new(ErrorCode::WrongContentType, text));
    }
    let caller = Caller::open();
    match repeat_key(request.headers()) {
        Ok(key) => dress(answer(app, caller, key, request).await),
        Err(error) => refuse(error),
    }
}

async fn answer(app: App, caller: Caller, key: Option<RepeatKey>, request: Request) -> Answer {
    let body = match body::read(app.memory(), request).await {
        Ok(body) => body,
        Err(error) => return rpc::flat(error),
    };
    let Some(key) = key else {
        return rpc::answer(&app, &caller, &body).await;
    };
    let call = || {
        // It may go on without the client, so it has its own of everything.
        let (app, caller, body) = (app.clone(), caller.clone(), body.to_vec());
        async move { rpc::answer(&app, &caller, &body).await }
    };
    app.repeats().once(&caller, key, &body, call).await.unwrap_or_else(rpc::flat)
}

/// Reads the key with which a client marks a call that it may send again.
fn repeat_key(headers: &HeaderMap) -> Result<Option<RepeatKey>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => RepeatKey::parse(key.as_bytes()).map(Some),
        (Some(_), Some(_)) => {
            let text = "Invalid 'Idempotency-Key' header: a request has at most one";
            Err(ApiError::new(ErrorCode::BadParameters, text))
        }
    }
}

async fn no_such_path(uri: Uri) -> Response {
    let text = format!("No such path: {}", uri.path());
    refuse(ApiError::new(ErrorCode::NotFound, text).remedy("calls are sent to POST /api/v1/rpc"))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("{} does not take {method}", uri.path());
    refuse(ApiError::new(ErrorCode::WrongHttpMethod, text))
}

async fn refuse_foreign(request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().map(|local| local.0);
    match origin::check(request.headers(), request.uri(), local) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(error),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn refuse(error: ApiError) -> Response {
    dress(rpc::flat(error))
}

fn dress(answer: Answer) -> Response {
    let Some(code) = answer.error else {
        let silent = answer.body.is_empty();
        return respond(if silent { StatusCode::NO_CONTENT } else { StatusCode::OK }, answer.body);
    };
    let status = StatusCode::from_u16(code.http_status()).expect("the table has HTTP statuses only");
    let mut response = respond(status, answer.body);
    if code == ErrorCode::NoCapacity {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let typed = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if typed {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}
