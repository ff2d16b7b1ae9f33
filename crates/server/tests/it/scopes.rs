// SPDX-License-Identifier: Apache-2.0
//! A key made for one namespace reaches that one and nothing else.

use serde_json::{Value, json};
use server::{Keys, Lifetime, scope};
use tempfile::TempDir;

use crate::client::{Answer, Server};

const METHODS: [&str; 6] = [
    "sandbox.start",
    "sandbox.stop",
    "sandbox.repl.run",
    "sandbox.command.run",
    "sandbox.get",
    "sandbox.metrics.get",
];

/// A server with keys, and one key for the namespace `mine`.
struct Shared {
    server: Server,
    mine: String,
    all: String,
    _home: TempDir,
}

impl Shared {
    async fn start() -> Shared {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().join("home");
        let server = Server::with_keys(&home).await;
        let keys = Keys::open(&home).unwrap();
        let make = |namespace| keys.make(scope(namespace).unwrap(), Lifetime::default()).unwrap().text;
        Shared { mine: make("mine"), all: make("*"), server, _home: base }
    }

    async fn post(&self, key: &str, body: &Value) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [("Content-Type", "application/json"), ("Authorization", authorization.as_str())];
        self.server.request("POST /api/v1/rpc", &headers, body.to_string().as_bytes()).await
    }

    async fn ask(&self, key: &str, method: &str, namespace: &str) -> Answer {
        self.post(key, &call(method, &self.params(namespace))).await
    }

    /// Asks with an idempotency key that is always the same.
    async fn repeat(&self, key: &str, namespace: &str) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Authorization", authorization.as_str()),
            ("Idempotency-Key", "k"),
        ];
        let body = call("sandbox.metrics.get", &json!({"namespace": namespace})).to_string();
        self.server.request("POST /api/v1/rpc", &headers, body.as_bytes()).await
    }

    /// Parameters with which every method can do something.
    fn params(&self, namespace: &str) -> Value {
        json!({
            "sandbox": "s", "namespace": namespace, "config": self.server.config(),
            "language": "python", "code": "out hello", "command": "true",
        })
    }
}

fn call(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
}

#[tokio::test]
async fn its_own_namespace_is_served() {
    let shared = Shared::start().await;
    for method in [
        "sandbox.start",
        "sandbox.repl.run",
        "sandbox.command.run",
        "sandbox.get",
        "sandbox.metrics.get",
        "sandbox.stop",
    ] {
        assert_eq!(shared.ask(&shared.mine, method, "mine").await.status, 200, "{method}");
    }
}

#[tokio::test]
async fn every_method_is_refused_elsewhere_whether_something_is_there_or_not() {
    let shared = Shared::start().await;
    assert_eq!(shared.ask(&shared.all, "sandbox.start", "theirs").await.status, 200);
    for method in METHODS {
        for namespace in ["theirs", "nobodys", "Mine", "mine2"] {
            let answer = shared.ask(&shared.mine, method, namespace).await;
            assert!(answer.flat(403, 3001).starts_with("Access denied"), "{method} {namespace}");
        }
    }
    assert_eq!(shared.server.fake.counts().requests, 0);
    assert_eq!(shared.server.fake.counts().live, 1, "nobody else's sandbox was stopped");
}

#[tokio::test]
async fn all_namespaces_at_once_are_for_keys_without_a_namespace() {
    let shared = Shared::start().await;
    shared.ask(&shared.mine, "sandbox.metrics.get", "*").await.flat(403, 3001);
    assert_eq!(shared.ask(&shared.all, "sandbox.metrics.get", "*").await.status, 200);
}

#[tokio::test]
async fn what_names_no_namespace_is_refused_unless_the_default_is_its_own() {
    let shared = Shared::start().await;
    for method in METHODS {
        let answer = shared.post(&shared.mine, &call(method, &Value::Null)).await;
        assert_eq!(answer.flat(400, 2001), "Missing 'params' field in JSON-RPC request", "{method}");
    }
    let run = call("sandbox.repl.run", &json!({"sandbox": "s", "language": "python", "code": "1"}));
    shared.post(&shared.mine, &run).await.flat(403, 3001);
}

#[tokio::test]
async fn a_batch_is_looked_at_call_by_call() {
    let shared = Shared::start().await;
    let ask = |namespace: &str| call("sandbox.metrics.get", &json!({"namespace": namespace}));
    let answer = shared.post(&shared.mine, &json!([ask("mine"), ask("theirs"), ask("*"), ask("mine")])).await;
    let codes: Vec<Option<i64>> =
        answer.json().as_array().unwrap().iter().map(|reply| reply["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, Some(3001), Some(3001), None]);
}

#[tokio::test]
async fn the_api_describes_itself_to_every_key() {
    let shared = Shared::start().await;
    let discover = json!({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1});
    assert_eq!(shared.post(&shared.mine, &discover).await.json()["result"]["openrpc"], "1.3.2");
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_caller() {
    let shared = Shared::start().await;
    assert_eq!(shared.repeat(&shared.all, "theirs").await.status, 200);
    assert_eq!(shared.repeat(&shared.mine, "mine").await.status, 200, "no word of another caller's key");
    shared.repeat(&shared.mine, "theirs").await.flat(422, 2001);
}
