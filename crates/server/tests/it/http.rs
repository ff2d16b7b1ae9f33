// SPDX-License-Identifier: Apache-2.0
//! Routes, bodies, origins and access.

use serde_json::json;
use server::Access;

use crate::client::Server;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PING: &[u8] = br#"{"jsonrpc":"2.0","method":"sandbox.metrics.get","params":{"namespace":"n"},"id":1}"#;

#[tokio::test]
async fn health_is_one_sentence() {
    let server = Server::start().await;
    let answer = server.request("GET /api/v1/health", &[], b"").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"message": "Service is healthy"})));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = Server::start().await;
    for line in ["GET /", "GET /api/v1/rpc/", "POST /api/v1/rpc/", "POST /mcp/", "GET /api/v1/health/"] {
        assert!(server.request(line, &[JSON], b"").await.flat(404, 4001).contains("No such path"), "{line}");
    }
    for line in ["GET /api/v1/rpc", "PUT /api/v1/rpc", "DELETE /api/v1/rpc", "POST /api/v1/health"] {
        server.request(line, &[JSON], b"").await.flat(405, 2001);
    }
}

#[tokio::test]
async fn no_browser_is_allowed_anything() {
    let server = Server::start().await;
    let origin = format!("http://{}", server.address);
    for origin in ["http://example.com", origin.as_str()] {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        let answer = server.request("OPTIONS /api/v1/rpc", &headers, b"").await;
        assert!(answer.status == 403 || answer.status == 405, "{answer:?}");
        assert!(!answer.head.to_lowercase().contains("access-control-allow"), "{answer:?}");
    }
}

#[tokio::test]
async fn foreign_origins_and_hosts_are_refused_everywhere() {
    let server = Server::start().await;
    for foreign in [
        ("Origin", "http://example.com"),
        ("Origin", "null"),
        ("Host", "example.com"),
        ("Host", "localhost.example.com:5555"),
    ] {
        for line in ["POST /api/v1/rpc", "GET /api/v1/health", "GET /"] {
            assert!(
                server
                    .request(line, &[JSON, foreign], PING)
                    .await
                    .flat(403, 3001)
                    .starts_with("Access denied")
            );
        }
        let upgrade =
            [foreign, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        server.request("GET /api/v1/rpc", &upgrade, b"").await.flat(403, 3001);
    }
    let own = format!("http://{}", server.address);
    assert_eq!(server.request("POST /api/v1/rpc", &[JSON, ("Origin", &own)], PING).await.status, 200);
    assert_eq!(server.request("POST /api/v1/rpc", &[JSON, ("Host", "localhost:1")], PING).await.status, 200);
}

#[tokio::test]
async fn a_body_must_be_json_and_say_so() {
    let server = Server::start().await;
    server.request("POST /api/v1/rpc", &[], PING).await.flat(415, 2001);
    server.request("POST /api/v1/rpc", &[("Content-Type", "text/plain")], PING).await.flat(415, 2001);
    for json in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        assert_eq!(
            server.request("POST /api/v1/rpc", &[("Content-Type", json)], PING).await.status,
            200,
            "{json}"
        );
    }
    for broken in ["", "{", "{\"jsonrpc\":", "\u{0}", &"[".repeat(100_000)] {
        assert!(server.post(broken).await.flat(400, 2001).contains("not valid JSON"));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not() {
    let server = Server::start().await;
    let large = format!("\"{}\"", "x".repeat(2 * 1024 * 1024));
    assert!(server.post(&large).await.flat(413, 2001).contains("2097152"));
    let mut chunked = format!(
        "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        large.len()
    );
    chunked.push_str(&large);
    chunked.push_str("\r\n0\r\n\r\n");
    server.raw(chunked.as_bytes()).await.flat(413, 2001);
    let just_fits = format!("\"{}\"", "x".repeat(2 * 1024 * 1024 - 2));
    server.post(&just_fits).await.flat(422, 2001);
}

#[tokio::test]
async fn a_name_that_the_operator_allowed_is_ours() {
    let server = Server::with_hosts(Access::Open, 10, &["sandbox.example.com"]).await;
    let own = ("Host", "sandbox.example.com");
    assert_eq!(server.request("POST /api/v1/rpc", &[JSON, own], PING).await.status, 200);
    let origin = ("Origin", "https://sandbox.example.com");
    assert_eq!(server.request("POST /api/v1/rpc", &[JSON, own, origin], PING).await.status, 200);
    let foreign = ("Origin", "https://example.com");
    server.request("POST /api/v1/rpc", &[JSON, own, foreign], PING).await.flat(403, 3001);
    let answer = server.request("POST /api/v1/rpc", &[JSON, ("Host", "example.com")], PING).await;
    answer.flat(403, 3001);
    assert!(answer.json()["remedy"].as_str().unwrap().contains("--allowed-host"));
}

#[tokio::test]
async fn a_key_on_a_development_server_is_ignored() {
    let server = Server::start().await;
    for header in [("Authorization", "Bearer msb_anything"), ("Proxy-Authorization", "nonsense")] {
        assert_eq!(server.request("POST /api/v1/rpc", &[JSON, header], PING).await.status, 200);
    }
}
