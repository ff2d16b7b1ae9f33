// SPDX-License-Identifier: Apache-2.0
//! Idempotency keys: however often a call is sent, it is carried out once.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Server, run_params, target, within};

fn run(code: &str) -> Vec<u8> {
    call("sandbox.repl.run", run_params("s", code))
}

fn call(method: &str, params: Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string().into_bytes()
}

async fn started() -> Server {
    let server = Server::start().await;
    server.up("s").await;
    server
}

impl Server {
    async fn keyed(&self, key: &str, body: &[u8]) -> Answer {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        self.request("POST /api/v1/rpc", &headers, body).await
    }
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_another_key_another_call() {
    let server = started().await;
    let first = server.keyed("k1", &run("out hello")).await;
    assert_eq!(first.status, 200);
    for _ in 0..3 {
        let again = server.keyed("k1", &run("out hello")).await;
        assert_eq!((again.status, &again.text), (200, &first.text));
    }
    assert_eq!(server.fake.counts().requests, 1);
    server.keyed("k2", &run("out hello")).await;
    server.request("POST /api/v1/rpc", &[("Content-Type", "application/json")], &run("out hello")).await;
    assert_eq!(server.fake.counts().requests, 3);
}

#[tokio::test]
async fn a_failure_is_an_answer_too_and_comes_again_as_it_was() {
    let server = started().await;
    let failed = server.keyed("k", &run("unavailable")).await;
    let text = failed.flat(500, 5002);
    let again = server.keyed("k", &run("unavailable")).await;
    assert_eq!((again.flat(500, 5002), &again.text), (text, &failed.text));
    assert_eq!(server.fake.counts().requests, 1);
}

#[tokio::test]
async fn whoever_sends_it_again_while_it_runs_waits_for_the_same_answer() {
    let server = started().await;
    let body = run("sleep 300\nout once");
    let answers = tokio::join!(
        server.keyed("k", &body),
        server.keyed("k", &body),
        server.keyed("k", &body),
        server.keyed("k", &body)
    );
    assert_eq!(server.fake.counts().requests, 1);
    for answer in [&answers.1, &answers.2, &answers.3] {
        assert_eq!(answer.text, answers.0.text);
        assert_eq!(answer.json()["result"]["output"][0]["text"], "once");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_can_come_back_for_its_answer() {
    let server = started().await;
    let body = run("sleep 300\nout kept");
    let mut leaving = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v1/rpc HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    leaving.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    drop(leaving);
    let answer = server.keyed("k", &body).await;
    assert_eq!(answer.json()["result"]["output"][0]["text"], "kept");
    let counts = server.fake.counts();
    assert_eq!((counts.requests, counts.cancelled), (1, 0));
}

#[tokio::test]
async fn a_key_that_was_used_with_another_call_is_refused() {
    let server = started().await;
    server.keyed("k", &run("out one")).await;
    let text = server.keyed("k", &run("out two")).await.flat(422, 2001);
    assert!(text.contains("another call"), "{text}");
    assert_eq!(server.fake.counts().requests, 1);
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_nothing_is_done() {
    let server = started().await;
    for bad in ["", "with space", "é", &"k".repeat(256)] {
        let text = server.keyed(bad, &run("out one")).await.flat(400, 2001);
        assert!(text.contains("1 to 255 visible ASCII"), "{text}");
    }
    let twice = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    server.request("POST /api/v1/rpc", &twice, &run("out one")).await.flat(400, 2001);
    assert_eq!(server.fake.counts().requests, 0);
    assert_eq!(server.keyed(&"k".repeat(255), &run("out one")).await.status, 200);
}

#[tokio::test]
async fn starts_stops_and_batches_can_have_keys() {
    let server = Server::start().await;
    let start = call("sandbox.start", server.start_params("s"));
    let first = server.keyed("start", &start).await;
    assert_eq!(server.keyed("start", &start).await.text, first.text, "it was not running already");
    let stop = call("sandbox.stop", target("s"));
    let batch = [b"[".as_slice(), &stop, b",", &start, b"]"].concat();
    let first = server.keyed("batch", &batch).await;
    assert_eq!(server.keyed("batch", &batch).await.text, first.text);
    assert_eq!(server.fake.counts().starts, 2);
}

#[tokio::test]
async fn a_full_server_is_asked_anew() {
    let server = Server::with(server::Access::Open, 1).await;
    server.up("other").await;
    let start = call("sandbox.start", server.start_params("s"));
    server.keyed("k", &start).await.flat(429, 4290);
    server.result("sandbox.stop", target("other")).await;
    assert_eq!(server.keyed("k", &start).await.status, 200);
}

#[tokio::test]
async fn the_oldest_answers_are_forgotten_and_the_newest_kept() {
    let server = Server::start().await;
    let ask = |namespace: usize| call("sandbox.metrics.get", json!({"namespace": format!("n{namespace}")}));
    server.keyed("first", &ask(0)).await;
    for number in 1..=1024 {
        server.keyed(&format!("k{number}"), &ask(number)).await;
    }
    server.keyed("k1024", &ask(0)).await.flat(422, 2001);
    assert_eq!(server.keyed("first", &ask(1)).await.status, 200, "its key is free again");
}

#[tokio::test]
async fn a_tool_of_mcp_can_have_a_key_and_a_path_is_part_of_the_call() {
    let server = started().await;
    let arguments = run_params("s", "out once");
    let body = call("tools/call", json!({"name": "sandbox_run_code", "arguments": arguments}));
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let first = server.request("POST /mcp", &headers, &body).await;
    assert_eq!((first.status, &first.json()["result"]["isError"]), (200, &json!(false)), "{first:?}");
    let again = server.request("POST /mcp", &headers, &body).await;
    assert_eq!(again.text, first.text);
    assert_eq!(server.fake.counts().requests, 1);
    server.request("POST /api/v1/rpc", &headers, &body).await.flat(422, 2001);
}
