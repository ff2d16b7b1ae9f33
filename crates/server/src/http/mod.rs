// SPDX-License-Identifier: Apache-2.0
//! Routes, who may use them, and bodies of bounded size.
//!
//! A web page must not reach a server on its visitor's machine: no CORS headers are ever sent, and a request whose
//! `Origin` or `Host` is foreign is refused before anything else is looked at. Next comes the key, where one is needed:
//! whoever has none learns neither which paths there are nor what is wrong with the rest of the request, and no byte of
//! its body is looked at.

mod access;
mod body;
mod host_name;
mod origin;

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::RETRY_AFTER_SECONDS;

pub use self::host_name::{HostName, HostNameError};

use crate::app::App;
use crate::rpc::{self, Answer};

/// The one path that needs no key.
const HEALTH: &str = "/api/v1/health";

/// The address at which a connection reached us; put into every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local(pub(crate) SocketAddr);

/// Returns the routes of a server.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route(HEALTH, get(health))
        .route("/api/v1/rpc", post(call))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), refuse_strangers))
        .layer(middleware::from_fn_with_state(app.clone(), refuse_foreign))
        .with_state(app)
}

async fn health() -> Response {
    respond(StatusCode::OK, br#"{"message":"Service is healthy"}"#.to_vec())
}

async fn call(State(app): State<App>, request: Request) -> Response {
    if !is_json(request.headers()) {
        let text = "The body must be sent as JSON, with the header 'Content-Type: application/json'";
        return refuse(ApiError::new(ErrorCode::WrongContentType, text));
    }
    match body::read(request).await {
        Ok(body) => dress(rpc::answer(&app, &body).await),
        Err(error) => refuse(error),
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

async fn refuse_foreign(State(app): State<App>, request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().map(|local| local.0);
    match origin::check(&request, local, app.allowed_hosts()) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(error),
    }
}

/// Lets in who may call, as a [`crate::keys::Caller`] in the request's extensions.
async fn refuse_strangers(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if access::is_public(&request) {
        return next.run(request).await;
    }
    match access::check(app.access(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            body::discard(request);
            refuse(error)
        }
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
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response {
    let typed = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if typed {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}
