// SPDX-License-Identifier: Apache-2.0
//! One file for each method: it checks what the parser could not, converts, delegates, and maps errors.

mod command;
mod get;
mod images;
mod metrics;
mod run;
mod start;
mod stop;

use protocol::calls::{
    Call, Discover, Document, ListImages, METHODS, Outcome, OutputLine, ParseError, Target, parse,
};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::QUOTED_CHARS_MAX;
use protocol::openrpc::document;
use serde_json::Value;

use crate::app::App;
use crate::caller::Caller;
use crate::output::{Printed, Room};
use crate::sandbox::{Broken, Running, Unusable};

/// What helps when the reason is for the operator alone.
const LOOK_INTO_LOG: &str = "the server's operator finds the reason in its log, by the request id";

/// What the description of the API costs an answer, in bytes; about its size.
const DOCUMENT_BYTES: usize = 16 * 1024;

/// Reads a call and checks that its caller may make it.
pub(crate) fn read(caller: &Caller, method: &str, params: &Value) -> Result<Call, ApiError> {
    if params.is_null() && caller.is_scoped() && method != "rpc.discover" {
        let text = "Missing 'params' field in JSON-RPC request";
        return Err(ApiError::new(ErrorCode::BadParameters, text));
    }
    let call = parse(method, params).map_err(|error| {
        let text = error.to_string();
        match error {
            ParseError::Method(_) => {
                let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
                ApiError::new(ErrorCode::UnknownMethod, text)
                    .remedy(format!("the methods are {}", names.join(", ")))
            }
            ParseError::Params(_) | ParseError::Name(_) | ParseError::Wildcard(_) => {
                ApiError::new(ErrorCode::BadParameters, text)
            }
        }
    })?;
    match call.scope() {
        Some(scope) if !caller.may(&scope) => {
            let text = "Access denied: this key is for another namespace";
            Err(ApiError::new(ErrorCode::Forbidden, text)
                .remedy("use the namespace that the key was made for"))
        }
        Some(_) | None => Ok(call),
    }
}

/// Carries out one call. Dropping the future cancels it.
pub(crate) async fn perform(app: &App, call: Call, room: &mut Room) -> Result<Outcome, ApiError> {
    match call {
        Call::Start(start) => start::start(app, start).await.map(Outcome::Start),
        Call::Stop(stop) => stop::stop(app, &stop.target).await.map(Outcome::Stop),
        Call::Run(run) => run::run(app, run, room).await.map(Outcome::Run),
        Call::Command(command) => command::command(app, command, room).await.map(Outcome::Command),
        Call::Get(get) => get::get(app, get).await.map(Outcome::Get),
        Call::Metrics(metrics) => metrics::metrics(app, metrics).await.map(Outcome::Metrics),
        Call::PullImage(pull) => images::pull(app, pull).await.map(Outcome::PullImage),
        Call::ListImages(ListImages {}) => images::list(app).await.map(Outcome::ListImages),
        Call::InspectImage(inspect) => images::inspect(app, inspect).await.map(Outcome::InspectImage),
        Call::RemoveImage(remove) => images::remove(app, remove).await.map(Outcome::RemoveImage),
        Call::Discover(Discover {}) => {
            room.add(DOCUMENT_BYTES);
            Ok(Outcome::Discover(Document(document())))
        }
    }
}

fn running(app: &App, target: &Target) -> Result<Running, ApiError> {
    app.registry().running(target).map_err(|unusable| match unusable {
        Unusable::Unknown => unknown(target),
        Unusable::NotRunning(how) => {
            let text = format!("Sandbox '{}' is not running: it {how}", target.sandbox);
            ApiError::new(ErrorCode::NotRunning, text).remedy("start it with sandbox.start")
        }
    })
}

fn unknown(target: &Target) -> ApiError {
    let text =
        format!("Sandbox not found: no sandbox '{}' in namespace '{}'", target.sandbox, target.namespace);
    ApiError::new(ErrorCode::NotFound, text).remedy("start it with sandbox.start")
}

/// The error of a call whose sandbox or agent went away under it, with the output so far.
fn broken(act: &str, broken: &Broken, printed: Printed) -> ApiError {
    let text = format!("{act} failed: {}", broken.what);
    with_output(ApiError::new(ErrorCode::Failed, text), printed)
}

fn with_output(error: ApiError, printed: Printed) -> ApiError {
    let error = error.with("output", lines(printed.output));
    if printed.truncated { error.with("truncated", true) } else { error }
}

fn lines(output: Vec<OutputLine>) -> Value {
    serde_json::to_value(output).expect("lines of text are JSON")
}

/// Returns as much of a client's text as an error repeats.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
