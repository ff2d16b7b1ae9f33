// SPDX-License-Identifier: Apache-2.0
//! The JSON-RPC envelope: ids, shapes of errors, batches.

use serde_json::{Value, json};

use crate::client::{Server, start_said};

fn ping(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "n"}, "id": id})
}

#[tokio::test]
async fn an_id_of_any_kind_comes_back_and_success_has_no_error() {
    let server = Server::start().await;
    for id in [json!(7), json!("a"), json!({"any": [1, null]}), json!(1.5)] {
        let answer = server.post(&ping(&id).to_string()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), json!({"jsonrpc": "2.0", "result": {"sandboxes": []}, "id": id}));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_single_call_without_an_id_is_answered_in_full_without_one() {
    let server = Server::start().await;
    let mut without = ping(&Value::Null);
    assert_eq!(
        server.post(&without.to_string()).await.json(),
        json!({"jsonrpc": "2.0", "result": {"sandboxes": []}})
    );
    without.as_object_mut().unwrap().remove("id");
    assert_eq!(
        server.post(&without.to_string()).await.json(),
        json!({"jsonrpc": "2.0", "result": {"sandboxes": []}})
    );
}

#[tokio::test]
async fn errors_of_the_envelope_are_json_rpc_and_the_others_flat() {
    let server = Server::start().await;
    let answer = server.post(r#"{"jsonrpc":"1.0","method":"sandbox.stop","id":3}"#).await;
    assert_eq!(answer.rpc_error(400, -32600), "Invalid or missing jsonrpc version field");
    assert_eq!(answer.json()["id"], 3);
    let answer = server.call("sandbox.fly", Value::Null).await;
    assert_eq!(answer.rpc_error(404, -32601), "Method not found: sandbox.fly");
    assert!(answer.json()["error"]["data"]["remedy"].as_str().unwrap().contains("sandbox.start"));
    let answer = server.call("sandbox.stop", json!({"namespace": "n"})).await;
    assert!(answer.flat(400, 2001).contains("'sandbox'"));
}

#[tokio::test]
async fn an_array_in_a_batch_is_no_call() {
    let server = Server::start().await;
    let answer = server.post(r#"[["2.0", "rpc.discover", null, 1]]"#).await;
    assert_eq!((answer.status, &answer.json()[0]["error"]["code"]), (200, &json!(-32600)));
}

#[tokio::test]
async fn json_that_is_no_call_is_unprocessable() {
    let server = Server::start().await;
    for body in [
        r#"{"method":"sandbox.stop"}"#,
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","method":5}"#,
        r#"{"jsonrpc":2.0,"method":"sandbox.stop"}"#,
        "5",
        "null",
        "\"text\"",
    ] {
        server.post(body).await.flat(422, 2001);
    }
}

#[tokio::test]
async fn a_batch_is_served_in_order_with_one_shape_and_silent_without_ids() {
    let server = Server::start().await;
    let call = |method: &str, params: Value, id: Value| json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
    let mut silent = call("sandbox.metrics.get", json!({"namespace": "n"}), Value::Null);
    silent.as_object_mut().unwrap().remove("id");
    let mut silent_failure = call("nope", Value::Null, Value::Null);
    silent_failure.as_object_mut().unwrap().remove("id");
    let run = json!({"sandbox": "b", "namespace": "default", "language": "python", "code": "out hi"});
    let batch = json!([
        call("sandbox.start", server.start_params("b"), json!("s")),
        call("sandbox.repl.run", run, json!(2)),
        silent,
        silent_failure,
        call("nope", Value::Null, json!(3)),
        call("sandbox.stop", json!({"sandbox": "", "namespace": "n"}), Value::Null),
        {"jsonrpc": "1.0", "method": "sandbox.stop", "id": 4},
        5,
    ]);
    let answer = server.post(&batch.to_string()).await;
    assert_eq!(answer.status, 200);
    let replies = answer.json();
    let ids: Vec<&Value> = replies.as_array().unwrap().iter().map(|reply| &reply["id"]).collect();
    assert_eq!(ids, [&json!("s"), &json!(2), &json!(3), &Value::Null, &json!(4), &Value::Null]);
    assert_eq!(replies[0]["result"], start_said("b"));
    assert_eq!(replies[1]["result"]["output"], json!([{"stream": "stdout", "text": "hi"}]));
    let codes: Vec<i64> = (2..6).map(|index| replies[index]["error"]["code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [-32601, 2001, -32600, -32600]);
    assert_eq!(replies[3]["error"]["message"], "Sandbox name cannot be empty");
}

#[tokio::test]
async fn a_batch_of_silent_calls_has_no_answer_and_an_empty_or_huge_one_is_refused() {
    let server = Server::start().await;
    let silent = r#"{"jsonrpc":"2.0","method":"sandbox.metrics.get","params":{"namespace":"n"}}"#;
    let answer = server.post(&format!("[{silent},{silent}]")).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    server.post("[]").await.rpc_error(400, -32600);
    let many = vec![silent; 101].join(",");
    assert!(server.post(&format!("[{many}]")).await.rpc_error(400, -32600).contains("1 to 100 calls"));
}

#[tokio::test]
async fn an_id_comes_back_as_the_text_that_was_sent() {
    let server = Server::start().await;
    for id in
        ["1e400", "-0", "12345678901234567890123", r#"{ "deep": [[[[]]]] }"#, r#""\u0000 \ud83d""#, "false"]
    {
        let call = format!(
            r#"{{"jsonrpc":"2.0","method":"sandbox.metrics.get","params":{{"namespace":"n"}},"id":{id}}}"#
        );
        let answer = server.post(&call).await;
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
        assert!(answer.text.contains(&format!("\"id\":{id}")), "{id}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_text_that_can_be_read_in_two_ways_is_refused() {
    let server = Server::start().await;
    for body in [
        r#"{"jsonrpc":"2.0","method":"sandbox.stop","method":"sandbox.metrics.get","params":{"namespace":"n"}}"#,
        r#"{"jsonrpc":"2.0","method":"sandbox.metrics.get","params":{"namespace":"n","namespace":"m"}}"#,
        r#"{"jsonrpc":"2.0","method":"sandbox.metrics.get","id":1,"params":{"namespace":"n"},"id":2}"#,
    ] {
        let text = server.post(body).await.flat(400, 2001);
        assert!(text.contains("twice") || text.contains("duplicate"), "{text}");
    }
}

#[tokio::test]
async fn depth_numbers_and_bytes_that_are_no_json_are_refused() {
    let server = Server::start().await;
    let deep = |text: &str| format!(r#"{{"jsonrpc":"2.0","method":"sandbox.stop","params":{text}}}"#);
    for body in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        deep(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
        deep("NaN"),
        deep(r#"{"namespace": 1e400}"#),
        deep("-"),
        "[1,".to_owned(),
        "{} {}".to_owned(),
    ] {
        let text = server.post(&body).await.flat(400, 2001);
        assert!(text.contains("not valid JSON"), "{text}");
    }
    let headers = [("Content-Type", "application/json")];
    let answer = server.request("POST /api/v1/rpc", &headers, b"{\"jsonrpc\":\"2.0\",\"\xff\":1}").await;
    assert!(answer.flat(400, 2001).contains("utf-8"), "{answer:?}");
}

#[tokio::test]
async fn the_api_describes_itself_to_whoever_may_call_it() {
    let server = Server::start().await;
    for params in [Value::Null, json!({})] {
        let document = server.result("rpc.discover", params).await;
        assert_eq!(document["openrpc"], "1.3.2");
        let names: Vec<&Value> = document["methods"].as_array().unwrap().iter().map(|m| &m["name"]).collect();
        assert!(names.contains(&&json!("sandbox.repl.run")), "{names:?}");
    }
    let call = server.post(r#"{"jsonrpc":"2.0","method":"rpc.discover","id":1}"#).await;
    assert_eq!(call.json()["result"]["info"]["title"], "microsandbox");
}
