// SPDX-License-Identifier: Apache-2.0
//! The API as an OpenRPC document (OpenRPC Specification 1.3.2), made from the table of methods and the table of errors.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::calls::{METHODS, Method};
use crate::errors::ErrorCode;

/// Describes every method: its parameters, its result, and the errors it can answer with.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(build);
    &DOCUMENT
}

fn build() -> Value {
    let methods: Vec<Value> = METHODS.iter().map(describe).collect();
    let errors: Map<String, Value> = numbered_errors()
        .map(|code| (error_key(code), json!({"code": code.number(), "message": code.meaning()})))
        .collect();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "microsandbox",
            "description": "Runs untrusted code in sandboxes. Calls are sent to POST /api/v1/rpc.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0"},
        },
        "methods": methods,
        "components": {"errors": errors},
    })
}

fn describe(method: &Method) -> Value {
    let schema = (method.params)().to_value();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let mut params: Vec<Value> = properties
        .iter()
        .map(|(name, schema)| {
            json!({
                "name": name,
                "description": schema["description"],
                "required": required.contains(&name.as_str()),
                "schema": schema,
            })
        })
        .collect();
    // The specification wants those that must be there before the others; the sort keeps the order otherwise.
    params.sort_by_key(|param| param["required"] != true);
    let mut described = json!({
        "name": method.name,
        "summary": method.summary(),
        "description": method.text(),
        "paramStructure": "by-name",
        "params": params,
        "result": {"name": "result", "schema": (method.result)()},
        "errors": numbered_errors().map(|code| json!({"$ref": format!("#/components/errors/{}", error_key(code))})).collect::<Vec<Value>>(),
    });
    if !method.older_names.is_empty() {
        described["x-older-names"] = json!(method.older_names);
    }
    described
}

/// Returns one code for each number that a body can carry.
fn numbered_errors() -> impl Iterator<Item = ErrorCode> {
    let first =
        |code: &ErrorCode| ErrorCode::ALL.iter().find(|other| other.number() == code.number()) == Some(code);
    ErrorCode::ALL.into_iter().filter(first)
}

fn error_key(code: ErrorCode) -> String {
    format!("{code:?}")
}
