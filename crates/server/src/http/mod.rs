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
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::RETRY_AFTER_SECONDS;

pub use self::host_name::{HostName, HostNameError};

use self::body::Received;
use crate::app::App;
use crate::caller::Caller;
use crate::mcp::Mcp;
use crate::repeats::{self, RepeatKey};
use crate::rpc::{self, Answer};

/// The one path that needs no key.
const HEALTH: &str = "/api/v1/health";
/// The header of an idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The address at which a connection reached us; put into every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local(pub(crate) SocketAddr);

/// Returns the routes of a server.
pub(crate) fn router(app: App) -> Router {
    let mcp = Mcp::new(app.clone());
    Router::new()
        .route(HEALTH, get(health))
        .route("/api/v1/rpc", post(call))
        .route("/mcp", post(move |app, caller, request| message(mcp.clone(), app, caller, request)))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), refuse_strangers))
        .layer(middleware::from_fn_with_state(app.clone(), refuse_foreign))
        .layer(middleware::from_fn(take_turns))
        .with_state(app)
}

async fn health() -> Response {
    respond(StatusCode::OK, &br#"{"message":"Service is healthy"}"#[..])
}

async fn call(State(app): State<App>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    let work = |caller: Caller, _: HeaderMap, body: Bytes| {
        let app = app.clone();
        async move { dress(rpc::answer(&app, &caller, body).await) }
    };
    answer(&app, caller, request, work).await.unwrap_or_else(refuse)
}

async fn message(
    mcp: Mcp,
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let work =
        |caller: Caller, head: HeaderMap, body: Bytes| async move { mcp.answer(&head, caller, body).await };
    answer(&app, caller, request, work).await.unwrap_or_else(refuse)
}

/// Reads a request and does its work: once for each idempotency key, if the client sent one.
async fn answer<F>(
    app: &App,
    caller: Caller,
    request: Request,
    work: impl FnOnce(Caller, HeaderMap, Bytes) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Response> + Send + 'static,
{
    let _served = app.crowd().enter(&caller)?;
    must_be_json(request.headers())?;
    let key = repeat_key(request.headers())?;
    let (path, head) = (request.uri().path().to_owned(), request.headers().clone());
    let Received { bytes, busy: _busy } = body::read(app.memory(), request).await?;
    let Some(key) = key else {
        return Ok(work(caller, head, bytes).await);
    };
    let fingerprint = repeats::fingerprint(&path, &bytes);
    // It goes on without the client, so it has its own of everything.
    let call = work(caller.clone(), head, bytes);
    let once =
        app.repeats().once(&caller, key, fingerprint, || async { repeats::Answer::of(call.await).await });
    Ok(once.await?.into_response())
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
    refuse(
        ApiError::new(ErrorCode::NotFound, text)
            .remedy("calls are sent to POST /api/v1/rpc, MCP to POST /mcp"),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("{} does not take {method}", uri.path());
    refuse(ApiError::new(ErrorCode::WrongHttpMethod, text))
}

/// Lets others go first after each request: a client that sent hundreds at once would be served in one go otherwise.
async fn take_turns(request: Request, next: Next) -> Response {
    tokio::task::yield_now().await;
    next.run(request).await
}

async fn refuse_foreign(State(app): State<App>, request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().map(|local| local.0);
    match origin::check(&request, local, app.allowed_hosts()) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(error),
    }
}

/// Lets in who may call, as a [`Caller`] in the request's extensions.
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

fn must_be_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_json(headers) {
        return Ok(());
    }
    let text = "The body must be sent as JSON, with the header 'Content-Type: application/json'";
    Err(ApiError::new(ErrorCode::WrongContentType, text))
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
