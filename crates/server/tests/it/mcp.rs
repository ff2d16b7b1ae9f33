// SPDX-License-Identifier: Apache-2.0
//! The Model Context Protocol: what a client sends, and what it gets.

use serde_json::{Value, json};

use crate::client::{Answer, Server, command_params, run_params, start_said, target, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const ACCEPT: (&str, &str) = ("Accept", "application/json, text/event-stream");
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

impl Server {
    /// Posts a text to the path of MCP.
    async fn mcp_post(&self, body: &str) -> Answer {
        self.request("POST /mcp", &[JSON, ACCEPT], body.as_bytes()).await
    }

    /// Sends a request of MCP.
    async fn mcp(&self, method: &str, params: Value) -> Answer {
        self.mcp_post(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
            .await
    }

    /// Sends a request of MCP that must succeed; returns its result.
    async fn mcp_result(&self, method: &str, params: Value) -> Value {
        let answer = self.mcp(method, params).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{answer:?}"
        );
        let body = answer.json();
        assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(7)), "{body}");
        assert!(body.get("error").is_none(), "{body}");
        body["result"].clone()
    }

    /// Calls a tool; returns the text of its answer and whether that is an error.
    async fn tool(&self, name: &str, arguments: Value) -> (String, bool) {
        let result = self.mcp_result("tools/call", json!({"name": name, "arguments": arguments})).await;
        assert_eq!(result["content"].as_array().map(Vec::len), Some(1), "{result}");
        assert_eq!(result["content"][0]["type"], "text", "{result}");
        let text = result["content"][0]["text"].as_str().expect("a text").to_owned();
        (text, result["isError"].as_bool().expect("said either way"))
    }

    /// Calls a tool that must succeed; returns the JSON that is its text.
    async fn tool_result(&self, name: &str, arguments: Value) -> Value {
        let (text, is_error) = self.tool(name, arguments).await;
        assert!(!is_error, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Calls a tool that must fail; returns what the model reads.
    async fn tool_error(&self, name: &str, arguments: Value) -> String {
        let (text, is_error) = self.tool(name, arguments).await;
        assert!(is_error && text.starts_with("Error: "), "{text}");
        let id = text.split_once("\nRequest id: ").expect("a request id").1;
        assert_eq!(id.lines().next().map(str::len), Some(16), "{text}");
        text
    }
}

fn initialize(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
}

#[tokio::test]
async fn every_version_is_spoken_and_an_unknown_one_is_offered_another() {
    let server = Server::start().await;
    for version in VERSIONS {
        let result = server.mcp_result("initialize", initialize(version)).await;
        assert_eq!(result["protocolVersion"], version);
        assert_eq!(result["serverInfo"]["name"], "microsandbox-server");
        assert_eq!(result["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
        let capabilities = json!({"tools": {"listChanged": false}, "prompts": {"listChanged": false}});
        assert_eq!(result["capabilities"], capabilities);
        assert!(result["instructions"].as_str().unwrap().contains("sandbox_start"));
    }
    for unknown in ["1999-01-01", "2099-01-01", "nonsense"] {
        let result = server.mcp_result("initialize", initialize(unknown)).await;
        assert_eq!(result["protocolVersion"], "2025-11-25", "{unknown}");
    }
}

#[tokio::test]
async fn the_version_in_the_header_must_be_a_known_one() {
    let server = Server::start().await;
    let ping = br#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
    for version in VERSIONS {
        let headers = [JSON, ACCEPT, ("MCP-Protocol-Version", version)];
        let answer = server.request("POST /mcp", &headers, ping).await;
        assert_eq!((answer.status, answer.json()["result"].clone()), (200, json!({})), "{version}");
    }
    let headers = [JSON, ACCEPT, ("MCP-Protocol-Version", "1999-01-01")];
    let answer = server.request("POST /mcp", &headers, ping).await;
    assert!(answer.rpc_error(400, -32600).contains("1999-01-01"));
    assert_eq!(answer.json()["id"], "p");
}

#[tokio::test]
async fn the_version_without_a_handshake_is_spoken() {
    let server = Server::start().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    let ask = async |method: &str, name: Option<&str>, mut params: Value| {
        params["_meta"] = meta.clone();
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut headers = vec![JSON, ACCEPT, ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", method)];
        headers.extend(name.map(|name| ("Mcp-Name", name)));
        server.request("POST /mcp", &headers, body.as_bytes()).await
    };
    let answer = ask("server/discover", None, json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let versions = answer.json()["result"]["supportedVersions"].clone();
    assert_eq!(versions.as_array().map(Vec::len), Some(5), "{versions}");
    assert!(versions.as_array().unwrap().contains(&json!("2026-07-28")));
    let answer = ask("tools/list", None, json!({})).await;
    assert_eq!(answer.json()["result"]["tools"].as_array().map(Vec::len), Some(10), "{answer:?}");
    let call = json!({"name": "sandbox_get_metrics", "arguments": {"namespace": "empty"}});
    let answer = ask("tools/call", Some("sandbox_get_metrics"), call).await;
    assert_eq!(answer.json()["result"]["isError"], false, "{answer:?}");
    let answer = ask("tools/call", Some("another"), json!({"name": "sandbox_get_metrics"})).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test]
async fn one_post_is_one_answer_and_nothing_else_is_served() {
    let server = Server::start().await;
    for line in ["GET /mcp", "DELETE /mcp", "PUT /mcp"] {
        server.request(line, &[JSON, ACCEPT], b"").await.flat(405, 2001);
    }
    server.request("POST /mcp/", &[JSON, ACCEPT], b"").await.flat(404, 4001);
    for kind in ["initialized", "cancelled", "roots/list_changed", "something/else"] {
        let method = format!("notifications/{kind}");
        let note = json!({"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}}).to_string();
        let answer = server.mcp_post(&note).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, ""), "{kind}");
    }
}

#[tokio::test]
async fn what_a_client_accepts_does_not_matter() {
    let server = Server::start().await;
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for accept in ["application/json", "*/*", "text/event-stream", "text/html"] {
        let answer = server.request("POST /mcp", &[JSON, ("Accept", accept)], ping).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{accept}"
        );
    }
    assert_eq!(server.request("POST /mcp", &[JSON], ping).await.status, 200);
    let utf8 = ("Content-Type", "application/json; charset=utf-8");
    assert_eq!(server.request("POST /mcp", &[utf8], ping).await.status, 200);
    server.request("POST /mcp", &[("Content-Type", "text/plain")], ping).await.flat(415, 2001);
}

#[tokio::test]
async fn foreign_pages_and_large_bodies_are_refused_as_everywhere() {
    let server = Server::start().await;
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for foreign in [("Host", "example.com"), ("Origin", "http://example.com")] {
        server.request("POST /mcp", &[JSON, ACCEPT, foreign], ping).await.flat(403, 3001);
    }
    let named = [JSON, ACCEPT, ("Host", "localhost:1")];
    assert_eq!(server.request("POST /mcp", &named, ping).await.status, 200);
    let code = "x".repeat(2 * 1024 * 1024);
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": code}}).to_string();
    assert!(server.mcp_post(&call).await.flat(413, 2001).contains("2097152"));
}

#[tokio::test]
async fn a_key_is_needed_and_reaches_its_own_namespace() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("home");
    let server = Server::with_keys(&home).await;
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    server.request("POST /mcp", &[JSON, ACCEPT], ping).await.flat(401, 1001);
    let wrong = ("Authorization", "Bearer msb_x.y.z");
    server.request("POST /mcp", &[JSON, ACCEPT, wrong], ping).await.flat(401, 1004);
    let key = server::Keys::open(&home).unwrap();
    let key = key.make(server::scope("mine").unwrap(), server::Lifetime::default()).unwrap();
    let bearer = format!("Bearer {}", key.text);
    let headers = [JSON, ACCEPT, ("Authorization", bearer.as_str())];
    assert_eq!(server.request("POST /mcp", &headers, ping).await.status, 200);
    for (namespace, is_error) in [("mine", false), ("theirs", true), ("*", true)] {
        let params = json!({"name": "sandbox_get_metrics", "arguments": {"namespace": namespace}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let answer = server.request("POST /mcp", &headers, call.as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["result"]["isError"]),
            (200, &json!(is_error)),
            "{answer:?}"
        );
        assert_eq!(answer.text.contains("Access denied: this key is for another namespace"), is_error);
        assert!(!answer.text.contains(&key.text), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_message_is_an_error_of_json_rpc() {
    let server = Server::start().await;
    for broken in ["", "{", "nonsense", "{\"a\": NaN}", "{\"id\": 1, \"id\": 2}", &"[".repeat(100_000)] {
        let answer = server.mcp_post(broken).await;
        assert!(answer.rpc_error(400, -32700).starts_with("Parse error: "), "{broken:.20}");
        assert_eq!(answer.json()["id"], Value::Null);
    }
    assert!(
        server
            .request("POST /mcp", &[JSON, ACCEPT], b"\"\xff\"")
            .await
            .rpc_error(400, -32700)
            .contains("utf-8")
    );
    for (wrong, id) in [
        ("null", Value::Null),
        ("5", Value::Null),
        ("{}", Value::Null),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, json!(1)),
        (r#"{"id":"a","method":"ping"}"#, json!("a")),
        (r#"{"jsonrpc":"2.0","id":1}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Value::Null),
    ] {
        let answer = server.mcp_post(wrong).await;
        assert!(!answer.rpc_error(400, -32600).is_empty(), "{wrong}");
        assert_eq!(answer.json()["id"], id, "{wrong}");
    }
}

#[tokio::test]
async fn a_message_of_too_many_values_is_refused_and_the_longest_code_is_not() {
    let server = Server::start().await;
    server.up("s").await;
    let mut arguments = run_params("s", &format!("out {}", ",".repeat(2_000_000)));
    assert_eq!(server.tool_result("sandbox_run_code", arguments.clone()).await["status"], "success");
    arguments["code"] = json!(vec![json!([]); 50_000]);
    let answer = server.mcp("tools/call", json!({"name": "sandbox_run_code", "arguments": arguments})).await;
    assert!(answer.rpc_error(400, -32600).contains("at most 50000 values"), "{answer:?}");
}

#[tokio::test]
async fn a_batch_is_refused_whole() {
    let server = Server::start().await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for batch in [json!([]), json!([ping]), json!([ping, ping])] {
        let answer = server.mcp_post(&batch.to_string()).await;
        assert!(answer.rpc_error(400, -32600).contains("batches are not served"), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_not_found() {
    let server = Server::start().await;
    for method in [
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "completion/complete",
        "logging/setLevel",
        "tasks/list",
        "sandbox.start",
        "no/such/method",
    ] {
        let params = json!({"uri": "file:///etc/passwd", "level": "debug"});
        server.mcp(method, params).await.rpc_error(200, -32601);
    }
    assert_eq!(server.mcp_result("ping", json!({})).await, json!({}));
}

#[tokio::test]
async fn every_tool_says_what_it_takes_and_what_it_can_do() {
    let server = Server::start().await;
    let result = server.mcp_result("tools/list", json!({})).await;
    let tools = result["tools"].as_array().unwrap();
    let expected = [
        ("sandbox_start", vec!["namespace", "sandbox"], [false, false, true]),
        ("sandbox_stop", vec!["namespace", "sandbox"], [false, true, true]),
        ("sandbox_run_code", vec!["code", "language", "sandbox"], [false, true, false]),
        ("sandbox_run_command", vec!["command", "namespace", "sandbox"], [false, true, false]),
        ("sandbox_get", vec!["namespace", "sandbox"], [true, false, true]),
        ("sandbox_get_metrics", vec!["namespace"], [true, false, true]),
        ("image_pull", vec!["image"], [false, false, true]),
        ("image_list", vec![], [true, false, true]),
        ("image_inspect", vec!["image"], [true, false, true]),
        ("image_remove", vec!["image"], [false, true, true]),
    ];
    assert_eq!(tools.len(), expected.len());
    for (tool, (name, required, [read_only, destructive, idempotent])) in tools.iter().zip(expected) {
        assert_eq!(tool["name"], name);
        assert!(
            !tool["title"].as_str().unwrap().is_empty() && tool["description"].as_str().unwrap().len() > 20
        );
        let schema = &tool["inputSchema"];
        assert_eq!(schema["type"], "object");
        assert!(!tool["description"].as_str().unwrap().contains("\n "), "{tool}");
        let mut found: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, required, "{name}");
        assert!(required.iter().all(|key| schema["properties"][key]["type"] == "string"), "{schema}");
        assert!(!schema.to_string().contains("$ref"), "{schema}");
        let hints = json!({
            "readOnlyHint": read_only, "destructiveHint": destructive,
            "idempotentHint": idempotent, "openWorldHint": false,
        });
        assert_eq!(tool["annotations"], hints, "{name}");
    }
    let config = &tools[0]["inputSchema"]["properties"]["config"]["properties"];
    for key in ["image", "memory", "cpus", "volumes", "ports", "envs"] {
        assert!(config.get(key).is_some(), "{key}: {config}");
    }
    assert!(
        tools[2]["inputSchema"]["properties"]["language"]["enum"]
            .as_array()
            .unwrap()
            .contains(&json!("nodejs"))
    );
}

#[tokio::test]
async fn the_tools_do_what_the_methods_do() {
    let server = Server::start().await;
    let (text, is_error) = server.tool("sandbox_start", server.start_params("s")).await;
    assert_eq!((text, is_error), (format!("\"{}\"", start_said("s")), false));
    let mut result = server.tool_result("sandbox_run_code", run_params("s", "out hello")).await;
    assert_eq!(result, server.result("sandbox.repl.run", run_params("s", "out hello")).await);
    let (text, _) = server.tool("sandbox_run_code", run_params("s", "out hello")).await;
    assert!(text.starts_with("{\n  \"status\": \"success\",\n  \"language\": \"python\",\n"), "{text}");
    result = server.tool_result("sandbox_run_command", command_params("s", "echo", &["a", "b"])).await;
    assert_eq!(result, server.result("sandbox.command.run", command_params("s", "echo", &["a", "b"])).await);
    result = server.tool_result("sandbox_get_metrics", json!({"namespace": "default", "sandbox": "s"})).await;
    assert_eq!(
        (&result["sandboxes"][0]["name"], &result["sandboxes"][0]["running"]),
        (&json!("s"), &json!(true))
    );
    let (text, is_error) = server.tool("sandbox_stop", target("s")).await;
    assert_eq!((text.as_str(), is_error), ("\"Sandbox s stopped successfully\"", false));
    assert_eq!(server.fake.counts().requests, 5);
}

#[tokio::test]
async fn code_that_fails_is_a_result_that_says_so() {
    let server = Server::start().await;
    server.up("s").await;
    for (code, status) in [("err Traceback\nraise", "error"), ("exit 3", "crashed"), ("oom", "out_of_memory")]
    {
        let result = server.tool_result("sandbox_run_code", run_params("s", code)).await;
        assert_eq!(result["status"], status);
        assert!(
            result["output"].as_array().unwrap().iter().any(|line| line["stream"] == "stderr"),
            "{result}"
        );
    }
    let mut params = run_params("s", "out so far\nhang");
    params["timeout"] = json!(1);
    let result = server.tool_result("sandbox_run_code", params).await;
    assert_eq!((&result["status"], &result["output"][0]["text"]), (&json!("timeout"), &json!("so far")));
    let result = server.tool_result("sandbox_run_command", command_params("s", "false", &[])).await;
    assert_eq!((&result["exit_code"], &result["success"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn output_comes_whole_up_to_its_bound() {
    let server = Server::start().await;
    server.up("s").await;
    let result = server.tool_result("sandbox_run_code", run_params("s", "bytes 1000000")).await;
    assert_eq!(result["output"][0]["text"].as_str().map(str::len), Some(1_000_000));
    let result = server.tool_result("sandbox_run_code", run_params("s", "bytes 10000000")).await;
    assert_eq!(result["truncated"], true);
    assert!(result["output"][0]["text"].as_str().map(str::len) > Some(1_000_000));
}

#[tokio::test]
async fn an_error_of_a_tool_tells_the_model_what_to_do() {
    let server = Server::start().await;
    let text = server.tool_error("sandbox_run_code", run_params("nobody", "1")).await;
    assert!(text.contains("no sandbox 'nobody' in namespace 'default'"), "{text}");
    assert!(text.contains("\nWhat to do: start it with sandbox_start"), "{text}");
    server.up("s").await;
    let text = server.tool_error("sandbox_run_command", command_params("s", "missing", &[])).await;
    assert!(text.contains("cannot start 'missing': No such file or directory"), "{text}");
    let mut params = command_params("s", "script", &["out so far", "hang"]);
    params["timeout"] = json!(1);
    let text = server.tool_error("sandbox_run_command", params).await;
    assert!(text.contains("timed out after 1 second") && text.contains("\"so far\""), "{text}");
    assert!(text.contains("\nWhat to do: it and all processes it started were killed"), "{text}");
    server.tool_result("sandbox_stop", target("s")).await;
    let text = server.tool_error("sandbox_run_code", run_params("s", "1")).await;
    assert!(text.contains("is not running: it was stopped"), "{text}");
    let mut params = server.start_params("big");
    params["config"]["memory"] = json!(1_000_000_000);
    assert!(server.tool_error("sandbox_start", params).await.contains("4096"));
    server.tool_error("sandbox_stop", target("never")).await;
}

#[tokio::test]
async fn wrong_arguments_are_errors_of_the_tool_and_name_the_argument() {
    let server = Server::start().await;
    for (tool, arguments, said) in [
        ("sandbox_start", json!({}), "'sandbox'"),
        ("sandbox_start", json!({"sandbox": "s"}), "'namespace'"),
        ("sandbox_start", json!({"sandbox": "-", "namespace": "n"}), "must start with"),
        ("sandbox_start", json!({"sandbox": "s", "namespace": "*"}), "Wildcard"),
        (
            "sandbox_start",
            json!({"sandbox": "s", "namespace": "n", "config": {"cpus": 1.5}}),
            "'config.cpus'",
        ),
        ("sandbox_stop", json!({"sandbox": 5, "namespace": "n"}), "'sandbox'"),
        ("sandbox_run_code", json!({"sandbox": "s", "namespace": "n", "code": "1"}), "'language'"),
        ("sandbox_run_code", json!({"sandbox": "s", "language": "cobol", "code": "1"}), "cobol"),
        ("sandbox_run_code", json!({"sandbox": "s", "language": "python"}), "'code'"),
        ("sandbox_run_command", json!({"sandbox": "s", "namespace": "n"}), "'command'"),
        (
            "sandbox_run_command",
            json!({"sandbox": "s", "namespace": "n", "command": "x", "args": "y"}),
            "'args'",
        ),
        ("sandbox_get_metrics", json!({}), "'namespace'"),
    ] {
        let text = server.tool_error(tool, arguments).await;
        assert!(text.contains(said), "{tool}: {text}");
    }
    let result = server.mcp_result("tools/call", json!({"name": "sandbox_stop"})).await;
    assert_eq!(result["isError"], true, "{result}");
}

#[tokio::test]
async fn a_call_of_no_tool_is_an_error_of_the_protocol() {
    let server = Server::start().await;
    let text =
        server.mcp("tools/call", json!({"name": "rm_rf", "arguments": {}})).await.rpc_error(200, -32602);
    assert!(text.contains("rm_rf") && text.contains("sandbox_run_code"), "{text}");
    let text = server.mcp("tools/call", json!({"name": "sandbox.start"})).await.rpc_error(200, -32602);
    assert!(text.starts_with("Unknown tool: sandbox.start"), "{text}");
    for params in [json!({}), json!({"name": 5}), json!({"name": "sandbox_stop", "arguments": []})] {
        server.mcp("tools/call", params).await.rpc_error(200, -32602);
    }
    server.mcp("initialize", json!({})).await.rpc_error(200, -32602);
}

#[tokio::test]
async fn the_prompts_are_recipes_for_one_sandbox() {
    let server = Server::start().await;
    let result = server.mcp_result("prompts/list", json!({})).await;
    let names: Vec<&Value> =
        result["prompts"].as_array().unwrap().iter().map(|prompt| &prompt["name"]).collect();
    assert_eq!(names, ["create_python_sandbox", "create_node_sandbox"]);
    for prompt in result["prompts"].as_array().unwrap() {
        let arguments = prompt["arguments"].as_array().unwrap();
        let required: Vec<_> =
            arguments.iter().map(|a| (a["name"].as_str().unwrap(), &a["required"])).collect();
        assert_eq!(required, [("sandbox_name", &json!(true)), ("namespace", &json!(true))]);
    }
    for (name, image) in
        [("create_python_sandbox", "microsandbox/python"), ("create_node_sandbox", "microsandbox/node")]
    {
        let arguments = json!({"sandbox_name": "mine", "namespace": "ours"});
        let result = server.mcp_result("prompts/get", json!({"name": name, "arguments": arguments})).await;
        assert_eq!(result["messages"][0]["role"], "user");
        let text = result["messages"][0]["content"]["text"].as_str().unwrap();
        for said in [image, "mine", "ours", "sandbox_start", "sandbox_run_code", "sandbox_stop"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        let ask = async |arguments: Value| {
            let answer = server.mcp("prompts/get", json!({"name": name, "arguments": arguments})).await;
            answer.rpc_error(200, -32602)
        };
        assert!(ask(json!({"namespace": "n"})).await.contains("'sandbox_name'"));
        assert!(ask(json!({"sandbox_name": "s"})).await.contains("'namespace'"));
        assert!(ask(json!({"sandbox_name": "s", "namespace": "\n\nIgnore"})).await.contains("Namespace"));
        assert!(ask(json!({"sandbox_name": "s\"}", "namespace": "n"})).await.contains("Sandbox name"));
    }
    let text = server.mcp("prompts/get", json!({"name": "nothing"})).await.rpc_error(200, -32602);
    assert!(text.contains("create_node_sandbox"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_tool_and_no_other() {
    let server = Server::start().await;
    server.up("s").await;
    let begin = async |name: &str, arguments: Value| {
        let params = json!({"name": name, "arguments": arguments});
        server.begin_at("/mcp", "tools/call", params).await
    };
    let leaving = begin("sandbox_run_code", run_params("s", "hang")).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    let staying = begin("sandbox_run_code", run_params("s", "sleep 300\nout stayed")).await;
    within(server.fake.wait_until(|counts| counts.requests == 2)).await;
    drop(leaving);
    within(server.fake.wait_until(|counts| counts.cancelled == 1)).await;
    let body = Answer::of(staying).await.json();
    assert!(body["result"]["content"][0]["text"].as_str().unwrap().contains("stayed"), "{body}");
    let leaving = begin("sandbox_run_command", command_params("s", "hang", &[])).await;
    within(server.fake.wait_until(|counts| counts.requests == 3)).await;
    drop(leaving);
    within(server.fake.wait_until(|counts| counts.cancelled == 2)).await;
}

#[tokio::test]
async fn a_client_takes_back_its_own_request_by_number() {
    let server = Server::start().await;
    server.up("s").await;
    let session = async || {
        let answer = server.mcp("initialize", initialize("2025-06-18")).await;
        answer.header("mcp-session-id").expect("a session").to_owned()
    };
    let (mine, other) = (session().await, session().await);
    let params = json!({"name": "sandbox_run_code", "arguments": run_params("s", "hang")});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let call = [JSON, ACCEPT, ("Mcp-Session-Id", mine.as_str())];
    let call = server.request("POST /mcp", &call, body.as_bytes());
    let cancel = async {
        within(server.fake.wait_until(|counts| counts.requests == 1)).await;
        let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
        for session in [other.as_str(), mine.as_str()] {
            assert_eq!(server.fake.counts().cancelled, 0);
            let headers = [JSON, ACCEPT, ("Mcp-Session-Id", session)];
            assert_eq!(server.request("POST /mcp", &headers, note.to_string().as_bytes()).await.status, 202);
        }
        within(server.fake.wait_until(|counts| counts.cancelled == 1)).await;
    };
    let (answer, ()) = tokio::join!(call, cancel);
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}

#[tokio::test]
async fn one_client_cannot_cancel_by_number_what_another_runs() {
    let server = Server::start().await;
    server.up("s").await;
    let params = json!({"name": "sandbox_run_code", "arguments": run_params("s", "sleep 300\nout stayed")});
    let staying = server.begin_at("/mcp", "tools/call", params).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(server.mcp_post(&note.to_string()).await.status, 202);
    let body = Answer::of(staying).await.json();
    assert!(body["result"]["content"][0]["text"].as_str().unwrap().contains("stayed"), "{body}");
}
