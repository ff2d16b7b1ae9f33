// SPDX-License-Identifier: Apache-2.0
//! What clients send that mean harm, one connection at a time; floods are tried against the real programs.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Server, command_params, run_params, within};

const HEAD: &str = "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let server = Server::start().await;
    let long = format!("{HEAD}X-Long: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many: String = (0..100).map(|number| format!("X-{number}: y\r\n")).collect();
    for request in
        [long, format!("{HEAD}{many}\r\n"), format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000))]
    {
        let answer = server.raw(request.as_bytes()).await;
        assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let server = Server::start().await;
    for request in [
        "\0\0\0\0\r\n\r\n",
        "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /api/v1/rpc HTTP/1.1\r\nHost : localhost\r\n\r\n",
    ] {
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
    }
}

#[tokio::test]
async fn http_2_is_not_spoken() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed with or without a reset, for what was sent is not read to its end.
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn a_length_and_chunks_together_cannot_smuggle_a_second_request() {
    let server = Server::start().await;
    let inner = "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let request = format!("{HEAD}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    within(stream.read_to_string(&mut answers)).await.unwrap();
    assert!(!answers.contains("Service is healthy"), "{answers}");
}

#[tokio::test]
async fn a_compressed_body_is_refused_unread() {
    let server = Server::start().await;
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip"] {
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
        let text = server.request("POST /api/v1/rpc", &headers, b"\x1f\x8b").await.flat(415, 2001);
        assert!(text.contains("must not be compressed"), "{text}");
    }
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "identity")];
    server.request("POST /api/v1/rpc", &headers, b"{}").await.flat(422, 2001);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    server.up("s").await;
    let request = |id: u32, last: bool| {
        let code = if id == 0 { "sleep 200\nout slow" } else { "out quick" };
        let body = json!({"jsonrpc": "2.0", "method": "sandbox.repl.run", "params": run_params("s", code), "id": id});
        let (body, close) = (body.to_string(), if last { "Connection: close\r\n" } else { "" });
        format!("{HEAD}{close}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let all: String = (0..20).map(|id| request(id, id == 19)).collect();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = String::new();
    within(stream.read_to_string(&mut answers)).await.unwrap();
    let ids: Vec<&str> =
        answers.split("\"id\":").skip(1).map(|rest| rest.split('}').next().unwrap_or("")).collect();
    assert_eq!(ids, (0..20).map(|id| id.to_string()).collect::<Vec<String>>());
}

#[tokio::test]
async fn a_client_that_vanishes_at_any_byte_leaves_nothing() {
    let server = Server::start().await;
    server.up("s").await;
    let body =
        json!({"jsonrpc": "2.0", "method": "sandbox.repl.run", "params": run_params("s", "hang"), "id": 1});
    let body = body.to_string();
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    for length in (0..request.len()).step_by(7) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&request.as_bytes()[..length]).await.unwrap();
    }
    // What came before this is read by now.
    assert_eq!(server.run("s", "out between").await.status, 200);
    assert_eq!(server.fake.counts().requests, 1);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let before = server.fake.counts().requests;
        within(server.fake.wait_until(|counts| counts.requests > before)).await;
    }
    within(server.fake.wait_until(|counts| counts.cancelled == 20)).await;
    server.end().await;
}

#[tokio::test]
async fn a_client_that_sent_more_than_its_call_and_vanishes_is_noticed() {
    let server = Server::start().await;
    server.up("s").await;
    let body =
        json!({"jsonrpc": "2.0", "method": "sandbox.repl.run", "params": run_params("s", "hang"), "id": 1});
    let body = body.to_string();
    for (number, more) in ["G", "\r\n", "GET / HTTP/1.1\r\n\r\n", &"x".repeat(100_000)].iter().enumerate() {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}{more}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        within(server.fake.wait_until(|counts| counts.requests == number + 1)).await;
        drop(stream);
        within(server.fake.wait_until(|counts| counts.cancelled == number + 1)).await;
    }
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_up_large_ones_at_most() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.up(name).await;
    }
    // Twelve answers that could be 48 MiB each, none of which is read: more than may be written at once.
    let mut stuck = Vec::new();
    for number in 0..12 {
        let name = ["a", "b", "c"][number % 3];
        stuck.push(server.begin("sandbox.command.run", command_params(name, "bytes", &["8000000"])).await);
    }
    within(server.fake.wait_until(|counts| counts.requests == 12)).await;
    assert_eq!(server.run("a", "out small ones go on").await.status, 200);
    drop(stuck);
    assert_eq!(
        server.call("sandbox.command.run", command_params("a", "bytes", &["8000000"])).await.status,
        200
    );
}

#[tokio::test]
async fn a_reader_that_stops_hinders_nobody() {
    let server = Server::start().await;
    server.up("s").await;
    let stuck = server.begin("sandbox.command.run", command_params("s", "bytes", &["4000000"])).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    for _ in 0..50 {
        assert_eq!(server.run("s", "out quick").await.status, 200);
    }
    drop(stuck);
}
