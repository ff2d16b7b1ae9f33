// SPDX-License-Identifier: Apache-2.0
//! What is said of a method's parameters is what is read of them, and every method is in the document.

use protocol::calls::{Call, METHODS, Method, Scope, parse};
use protocol::errors::ErrorCode;
use protocol::openrpc::document;
use serde_json::{Map, Value, json};

/// Returns a value that a schema allows.
fn sample(name: &str, schema: &Value) -> Value {
    match (name, schema["type"].as_str()) {
        ("language", _) => schema["enum"][0].clone(),
        (_, Some("string")) => json!("sample"),
        (_, Some("object")) => json!({}),
        other => panic!("a required parameter of a kind that is not known here: {other:?}"),
    }
}

fn required(schema: &Value) -> Vec<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn minimal(method: &Method) -> Map<String, Value> {
    let schema = (method.params)().to_value();
    required(&schema)
        .into_iter()
        .map(|name| (name.to_owned(), sample(name, &schema["properties"][name])))
        .collect()
}

#[test]
fn what_is_required_is_enough_and_cannot_be_left_out() {
    for method in METHODS {
        let params = minimal(method);
        let call = parse(method.name, &Value::Object(params.clone()));
        assert!(call.is_ok(), "{}: {call:?}", method.name);
        for name in params.keys() {
            let mut without = params.clone();
            without.remove(name);
            let error = parse(method.name, &Value::Object(without)).unwrap_err().to_string();
            assert!(error.contains(&format!("'{name}'")), "{} without {name}: {error}", method.name);
        }
    }
}

#[test]
fn every_parameter_that_is_described_is_read() {
    for method in METHODS {
        let schema = (method.params)().to_value();
        let config = schema["properties"]["config"]["properties"].clone();
        let top = schema["properties"].as_object().cloned().unwrap_or_default();
        for name in top.keys() {
            let mut params = minimal(method);
            params.insert(name.clone(), json!(-1.5));
            let error = parse(method.name, &Value::Object(params)).unwrap_err().to_string();
            assert!(error.contains(&format!("'{name}'")), "{}: {name}: {error}", method.name);
        }
        for name in config.as_object().into_iter().flat_map(Map::keys) {
            let mut params = minimal(method);
            params.insert("config".to_owned(), json!({name.as_str(): -1.5}));
            let error = parse(method.name, &Value::Object(params)).unwrap_err().to_string();
            assert!(error.contains(&format!("'config.{name}'")), "{}: {name}: {error}", method.name);
        }
    }
}

#[test]
fn every_parameter_that_is_read_is_described() {
    let used = json!({
        "sandbox": "s", "namespace": "n", "language": "python", "code": "1", "timeout": 1, "timeout_ms": 1,
        "command": "c", "args": ["a"], "image": "i", "pull": "always",
        "config": {
            "image": "i", "pull": "never", "memory": 1, "cpus": 1, "cpu_millis": 10, "volumes": ["a:b"], "ports": ["0:2"],
            "network": "none", "envs": ["A=b"], "workdir": "/w", "pids": 32, "open_files": 512, "shm": 1, "io_weight": 1,
        },
    });
    for method in METHODS {
        let schema = (method.params)().to_value();
        let whole = parse(method.name, &used).unwrap();
        for (name, _) in used.as_object().unwrap() {
            let mut params = used.clone();
            params.as_object_mut().unwrap().remove(name);
            let matters = parse(method.name, &params).map_or(true, |call| call != whole);
            let described = schema["properties"].get(name).is_some();
            assert_eq!(matters, described, "{}: {name}", method.name);
        }
        for (name, _) in used["config"].as_object().unwrap() {
            let mut params = used.clone();
            params["config"].as_object_mut().unwrap().remove(name);
            let matters = parse(method.name, &params).unwrap() != whole;
            let described = schema["properties"]["config"]["properties"].get(name).is_some();
            assert_eq!(matters, described, "{}: config.{name}", method.name);
        }
    }
}

#[test]
fn the_document_has_every_method_with_its_parameters_result_and_errors() {
    let document = document();
    assert_eq!(document["openrpc"], "1.3.2");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let names: Vec<&str> =
        document["methods"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, METHODS.iter().map(|method| method.name).collect::<Vec<&str>>());
    for method in document["methods"].as_array().unwrap() {
        assert!(method["summary"].as_str().unwrap().ends_with('.'), "{method}");
        assert!(method["result"]["schema"].is_object());
        for param in method["params"].as_array().unwrap() {
            assert!(param["description"].as_str().is_some_and(|text| text.len() > 5), "{param}");
        }
        let names = method["params"].as_array().unwrap().iter().map(|param| param["required"] == true);
        assert!(names.is_sorted_by(|a, b| a >= b), "what is required comes first: {method}");
    }
    for code in ErrorCode::ALL {
        let errors = document["components"]["errors"].as_object().unwrap();
        assert!(errors.values().any(|error| error["code"] == code.number()), "{code:?}");
    }
    assert!(!document.to_string().contains("\"$ref\":\"#/$defs"), "nothing refers to what is not there");
}

#[test]
fn a_method_is_found_under_each_of_its_names() {
    for method in METHODS {
        let params = Value::Object(minimal(method));
        let call = parse(method.name, &params).unwrap();
        for older in method.older_names {
            assert_eq!(parse(older, &params).unwrap(), call);
        }
        let about = call.scope();
        assert_eq!(
            about.is_none(),
            matches!(call, Call::Discover(_) | Call::PullImage(_)),
            "{}",
            method.name
        );
    }
    let all = parse("sandbox.metrics.get", &json!({"namespace": "*"})).unwrap();
    assert_eq!(all.scope(), Some(Scope::All));
}

#[test]
fn the_documentation_has_the_table_of_errors() {
    let text = include_str!("../../../../docs/protocol.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, status, meaning, _, _] = cells[..] else { return None };
        Some((number.parse::<i32>().ok()?, status.parse::<u16>().ok()?, meaning.to_owned()))
    };
    let documented: Vec<(i32, u16, String)> = text.lines().filter_map(row).collect();
    let table: Vec<(i32, u16, String)> = ErrorCode::ALL
        .iter()
        .map(|code| (code.number(), code.http_status(), code.meaning().to_owned()))
        .collect();
    assert_eq!(documented, table);
}
