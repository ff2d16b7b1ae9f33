// SPDX-License-Identifier: Apache-2.0
//! Tools: the rows of the table of methods that are one, and what a model is told of a call.

use std::sync::Arc;

use protocol::calls::{Call, Effect, METHODS, Method, Outcome};
use protocol::errors::{ApiError, ErrorCode};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::exchange::Exchange;
use crate::api;
use crate::app::App;
use crate::output::Room;
use crate::rpc;

/// Returns every tool there is.
pub(super) fn list() -> Vec<Tool> {
    METHODS.iter().filter(|method| method.tool.is_some()).map(describe).collect()
}

/// Returns the method behind a tool.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.tool == Some(name))
}

/// Returns the names of all tools, for a text.
pub(super) fn names() -> String {
    let names: Vec<&str> = METHODS.iter().filter_map(|method| method.tool).collect();
    names.join(", ")
}

/// Returns what a model is told of a tool.
pub(super) fn describe(method: &'static Method) -> Tool {
    let name = method.tool.unwrap_or(method.name);
    let schema = match (method.params)().to_value() {
        Value::Object(schema) => schema,
        _ => unreachable!("the parameters of every method are an object"),
    };
    let summary = method.summary().trim_end_matches('.');
    Tool::new(name, method.text(), Arc::new(schema))
        .with_title(summary)
        .with_annotations(annotations(method.effect))
}

/// Says what a tool can do. Nothing in a sandbox reaches anything outside of it: its world is closed.
fn annotations(effect: Effect) -> ToolAnnotations {
    let (read_only, destructive, idempotent) = match effect {
        Effect::Reads => (true, false, true),
        Effect::Adds => (false, false, true),
        Effect::Removes => (false, true, true),
        Effect::Executes => (false, true, false),
    };
    ToolAnnotations::new()
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(false)
}

/// Makes the call that a tool stands for.
///
/// A call that could not be carried out is an error of the tool, in the words of [`explain`]. Code that raised, and a
/// program that exited with something else than 0, is none: the tool did what it was asked to do, and the result tells
/// how the code ended. `isError` would say that there is no result to look at; some clients then throw the text away.
pub(super) async fn call(
    app: &App,
    exchange: &Exchange,
    method: &'static Method,
    arguments: JsonObject,
) -> CallToolResult {
    let said = match api::read(exchange.caller(), method.name, &Value::Object(arguments)) {
        Ok(call) => carry_out(app, exchange, call).await,
        Err(error) => Err(explain(&error)),
    };
    match said {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
    }
}

/// Carries out a call in a task of its own, so that one that panics has an answer too.
async fn carry_out(app: &App, exchange: &Exchange, call: Call) -> Result<String, String> {
    let (app, exchange) = (app.clone(), exchange.clone());
    // The task is aborted when the set is dropped.
    let mut task = JoinSet::new();
    task.spawn(async move { perform(&app, &exchange, call).await });
    match task.join_next().await {
        Some(Ok(said)) => said,
        // It panicked, and what it said then is in the log.
        Some(Err(_)) | None => Err(explain(&ApiError::new(ErrorCode::Failed, "Internal server error"))),
    }
}

/// Carries out a call, and puts what came of it in words as soon as there is room for them.
async fn perform(app: &App, exchange: &Exchange, call: Call) -> Result<String, String> {
    let mut room = Room::for_model(app.memory());
    room.add(exchange.asked_bytes());
    let outcome = api::perform(app, call, &mut room).await;
    // The words are there once as they are and once more in the message, where they are escaped.
    let held = app.memory().answer(room.answer_bytes_max().saturating_mul(2)).await;
    let held = held.map_err(|error| explain(&rpc::unanswered(error)))?;
    if held.is_none() {
        return said(outcome);
    }
    exchange.keep(held);
    app.memory().heavy(move || said(outcome)).await.map_err(|error| explain(&error))?
}

fn said(outcome: Result<Outcome, ApiError>) -> Result<String, String> {
    outcome.map(|outcome| pretty(&outcome)).map_err(|error| explain(&error))
}

/// Says what went wrong, why, what to do about it, and what was printed until then.
fn explain(error: &ApiError) -> String {
    let mut details = rpc::additions(error);
    let mut text = format!("Error: {}", error.message);
    for (key, said) in [("cause", "Cause"), ("remedy", "What to do"), ("request_id", "Request id")] {
        if let Some(Value::String(value)) = details.remove(key) {
            let value = if key == "remedy" { in_tools(&value) } else { value };
            text.push_str(&format!("\n{said}: {value}"));
        }
    }
    if !details.is_empty() {
        let details = pretty(&details);
        text.push_str(&format!("\nDetails, with the output so far: {details}"));
    }
    text
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("our answers have text keys only, so they are JSON")
}

/// Calls the methods by their names as tools, for a model knows no others.
fn in_tools(text: &str) -> String {
    let named = |text: String, method: &Method| match method.tool {
        Some(tool) => text.replace(method.name, tool),
        None => text,
    };
    METHODS.iter().fold(text.to_owned(), named)
}
