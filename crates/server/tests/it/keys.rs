// SPDX-License-Identifier: Apache-2.0
//! Keys over the wire: where they are looked for, what is refused, how, and when.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use serde_json::json;
use server::{Keys, Lifetime, NewKey, scope};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, Server, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PING: &[u8] = br#"{"jsonrpc":"2.0","method":"sandbox.metrics.get","params":{"namespace":"n"},"id":1}"#;
const RPC: &str = "POST /api/v1/rpc";

/// A server that asks for keys, and the home where they are made.
struct Guarded {
    server: Server,
    home: PathBuf,
    _base: TempDir,
}

impl Guarded {
    async fn start() -> Guarded {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().join("home");
        Guarded { server: Server::with_keys(&home).await, home, _base: base }
    }

    /// Makes a key as another process would.
    fn make(&self) -> NewKey {
        Keys::open(&self.home).unwrap().make(scope("*").unwrap(), Lifetime::default()).unwrap()
    }

    /// Asks with a header, or with none.
    async fn ask(&self, header: &str, value: &str) -> Answer {
        self.server.request(RPC, &[JSON, (header, value)], PING).await
    }

    async fn lets_in(&self, key: &str) -> bool {
        let answer = self.ask("Authorization", &format!("Bearer {key}")).await;
        if answer.status != 200 {
            assert_refused(&answer, Refused::Bad);
        }
        answer.status == 200
    }

    /// Signs any token with the server's own secret.
    fn sign(&self, header: &str, payload: &str) -> String {
        let secret = fs_err::read(self.home.join("server.key")).unwrap();
        sign(&secret, header, payload)
    }

    /// Writes a key into the store as if it had been made.
    fn know(&self, id: &str, namespace: &str, made: i64, expires: i64) {
        let store = Connection::open(self.home.join("state.db")).unwrap();
        let add = "insert into keys (id, namespace, made, expires) values (?1, ?2, ?3, ?4)";
        store.execute(add, (id, namespace, made, expires)).unwrap();
    }
}

fn sign(secret: &[u8], header: &str, payload: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&text).finalize();
    format!("msb_{text}.{}", URL_SAFE_NO_PAD.encode(signature.into_bytes()))
}

const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;

fn payload(id: &str, made: i64, expires: i64) -> String {
    json!({"exp": expires, "iat": made, "namespace": "*", "jti": id}).to_string()
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[derive(Clone, Copy)]
enum Refused {
    None,
    Bad,
}

/// Checks that an answer is a refusal in every part of it.
#[track_caller]
fn assert_refused(answer: &Answer, how: Refused) {
    let (code, text) = match how {
        Refused::None => (1001, "Invalid credentials"),
        Refused::Bad => (1004, "Invalid or expired token"),
    };
    assert_eq!(answer.flat(401, code), text);
    assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
    let body = answer.json();
    assert!(body["remedy"].as_str().unwrap().contains("msb server keygen"), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 4, "error, code, remedy, request_id: {body}");
}

#[tokio::test]
async fn a_key_opens_by_both_headers_bare_or_as_bearer() {
    let guarded = Guarded::start().await;
    let key = guarded.make().text;
    for header in ["Authorization", "Proxy-Authorization"] {
        for value in [key.clone(), format!("Bearer {key}")] {
            assert_eq!(guarded.ask(header, &value).await.status, 200, "{header}: {value}");
        }
        for wrong in [
            format!("bearer {key}"),
            format!("BEARER {key}"),
            format!("Basic {key}"),
            key.replace("msb_", ""),
        ] {
            assert_refused(&guarded.ask(header, &wrong).await, Refused::None);
        }
    }
}

#[tokio::test]
async fn the_proxy_header_is_looked_at_first() {
    let guarded = Guarded::start().await;
    let key = guarded.make().text;
    let both = async |proxy: &str, own: &str| {
        let headers = [JSON, ("Authorization", own), ("Proxy-Authorization", proxy)];
        guarded.server.request(RPC, &headers, PING).await
    };
    assert_eq!(both(&key, "nonsense").await.status, 200);
    assert_refused(&both("msb_a.b.c", &key).await, Refused::Bad);
    assert_refused(&both("nonsense", &key).await, Refused::None);
    let twice = [JSON, ("Authorization", key.as_str()), ("Authorization", key.as_str())];
    assert_refused(&guarded.server.request(RPC, &twice, PING).await, Refused::None);
}

#[tokio::test]
async fn without_a_key_there_is_health_and_nothing_else() {
    let guarded = Guarded::start().await;
    let health = guarded.server.request("GET /api/v1/health", &[], b"").await;
    assert_eq!((health.status, health.json()), (200, json!({"message": "Service is healthy"})));
    for line in [
        RPC,
        "GET /api/v1/rpc",
        "POST /api/v1/health",
        "DELETE /api/v1/health",
        "GET /api/v1/health/",
        "GET /api/v1//health",
        "GET /",
        "POST /mcp",
        "GET /nothing",
        "OPTIONS /api/v1/rpc",
        "TRACE /api/v1/rpc",
    ] {
        assert_refused(&guarded.server.request(line, &[JSON], PING).await, Refused::None);
        let bad = ("Authorization", "Bearer msb_x.y.z");
        assert_refused(&guarded.server.request(line, &[JSON, bad], PING).await, Refused::Bad);
    }
    let key = guarded.make().text;
    let with_key = [JSON, ("Authorization", key.as_str())];
    guarded.server.request("GET /nothing", &with_key, b"").await.flat(404, 4001);
    guarded.server.request("GET /api/v1/rpc", &with_key, b"").await.flat(405, 2001);
}

#[tokio::test]
async fn what_is_no_key_is_no_credential() {
    let guarded = Guarded::start().await;
    assert_refused(&guarded.server.request(RPC, &[JSON], PING).await, Refused::None);
    for value in
        ["", "Bearer", "Bearer ", "nonsense", "Bearer nonsense", "Basic bXNiOg==", "eyJ.eyJ.x", "msb"]
    {
        assert_refused(&guarded.ask("Authorization", value).await, Refused::None);
    }
    let bytes = [b"POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: msb_\xff\xfe\r\nContent-Length: 0\r\n\r\n".as_slice()].concat();
    assert_refused(&guarded.server.raw(&bytes).await, Refused::None);
}

#[tokio::test]
async fn a_key_with_anything_changed_is_refused() {
    let guarded = Guarded::start().await;
    let key = guarded.make().text;
    assert!(guarded.lets_in(&key).await);
    let parts: Vec<&str> = key.strip_prefix("msb_").unwrap().split('.').collect();
    for changed in 0..3 {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let replacement = if parts[changed].as_bytes()[5] == b'A' { "B" } else { "A" };
        parts[changed].replace_range(5..6, replacement);
        assert!(!guarded.lets_in(&format!("msb_{}", parts.join("."))).await, "part {changed}");
    }
    let [header, payload, signature] = parts[..] else { panic!("{key}") };
    for broken in [
        "msb_".to_owned(),
        format!("msb_{header}.{payload}"),
        format!("msb_{header}.{payload}."),
        format!("msb_{header}.{payload}.{signature}="),
        format!("msb_{header}.{payload}.{signature}.{signature}"),
        format!("msb_{}", "x".repeat(8000)),
    ] {
        assert!(!guarded.lets_in(&broken).await, "{broken}");
    }
}

#[tokio::test]
async fn other_algorithms_and_other_secrets_are_refused() {
    let guarded = Guarded::start().await;
    let (id, made, expires) = ("00000000000000aa", now(), now() + 1000);
    guarded.know(id, "*", made, expires);
    let payload = payload(id, made, expires);
    assert!(guarded.lets_in(&guarded.sign(HEADER, &payload)).await, "the way to make one by hand works");
    for header in
        [r#"{"typ":"JWT","alg":"none"}"#, r#"{"typ":"JWT","alg":"None"}"#, r#"{"typ":"JWT","alg":"HS384"}"#]
    {
        assert!(!guarded.lets_in(&guarded.sign(header, &payload)).await, "{header}");
        let unsigned = guarded.sign(header, &payload);
        let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
        assert!(!guarded.lets_in(&format!("{unsigned}.")).await, "{header}");
    }
    for secret in [b"".as_slice(), b"another secret of thirty-two char"] {
        assert!(!guarded.lets_in(&sign(secret, HEADER, &payload)).await);
    }
    let without_id = json!({"exp": expires, "iat": made, "namespace": "*"}).to_string();
    assert!(!guarded.lets_in(&guarded.sign(HEADER, &without_id)).await);
}

#[tokio::test]
async fn a_key_works_a_minute_longer_than_it_says_and_not_much_more() {
    let guarded = Guarded::start().await;
    for (id, ago, good) in [
        ("00000000000000a1", 30, true),
        ("00000000000000a2", 70, false),
        ("00000000000000a3", 100_000, false),
    ] {
        let expires = now() - ago;
        guarded.know(id, "*", 1, expires);
        assert_eq!(
            guarded.lets_in(&guarded.sign(HEADER, &payload(id, 1, expires))).await,
            good,
            "{ago} s ago"
        );
    }
}

#[tokio::test]
async fn keys_made_and_revoked_elsewhere_count_at_once() {
    let guarded = Guarded::start().await;
    let elsewhere = Keys::open(&guarded.home).unwrap();
    let (first, second) = (guarded.make(), guarded.make());
    assert!(guarded.lets_in(&first.text).await && guarded.lets_in(&second.text).await);
    elsewhere.revoke(first.info.id).unwrap();
    assert!(!guarded.lets_in(&first.text).await);
    assert!(guarded.lets_in(&second.text).await);
}

#[tokio::test]
async fn unknown_expired_and_revoked_keys_are_told_the_same() {
    let guarded = Guarded::start().await;
    let revoked = guarded.make();
    Keys::open(&guarded.home).unwrap().revoke(revoked.info.id).unwrap();
    guarded.know("00000000000000b1", "*", 1, 2);
    let expired = guarded.sign(HEADER, &payload("00000000000000b1", 1, 2));
    let unknown = guarded.sign(HEADER, &payload("00000000000000b2", 1, now() + 1000));
    let mut bodies = Vec::new();
    for key in [revoked.text.as_str(), &expired, &unknown, "msb_a.b.c"] {
        let answer = guarded.ask("Authorization", key).await;
        assert_refused(&answer, Refused::Bad);
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id");
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_there_or_looked_at() {
    let guarded = Guarded::start().await;
    for rest in ["Content-Length: 9000000000", "Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(guarded.server.address).await.unwrap();
        let head = format!(
            "POST /api/v1/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{rest}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Not to the end of the connection: the answer must not wait for the rest of the request.
        let mut start = [0; 12];
        within(stream.read_exact(&mut start)).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 401", "{rest}");
    }
    let wrong = guarded.server.request(RPC, &[("Content-Type", "text/plain")], b"{").await;
    assert_refused(&wrong, Refused::None);
}

#[tokio::test]
async fn a_stranger_whose_body_is_under_way_sees_the_refusal() {
    let guarded = Guarded::start().await;
    let body = vec![b' '; 2 * 1024 * 1024];
    for _ in 0..10 {
        assert_refused(&guarded.server.request(RPC, &[JSON], &body).await, Refused::None);
    }
}

#[tokio::test]
async fn a_store_that_fails_is_our_fault_and_tells_nothing_of_the_host() {
    let guarded = Guarded::start().await;
    let key = guarded.make().text;
    Connection::open(guarded.home.join("state.db")).unwrap().execute("drop table keys", ()).unwrap();
    let answer = guarded.ask("Authorization", &key).await;
    assert_eq!(answer.flat(500, 5001), "The key cannot be checked at the moment");
    assert!(
        !answer.text.contains("state.db") && !answer.text.contains("keys (") && !answer.text.contains('/')
    );
    assert_refused(&guarded.ask("Authorization", "msb_a.b.c").await, Refused::Bad);
    assert_eq!(guarded.server.request("GET /api/v1/health", &[], b"").await.status, 200);
}

#[tokio::test]
async fn the_namespace_of_a_key_is_the_callers() {
    let guarded = Guarded::start().await;
    let keys = Keys::open(&guarded.home).unwrap();
    let ask = async |key: &NewKey, namespace: &str| {
        let params = json!({"namespace": namespace});
        let call = json!({"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": params, "id": 1});
        let headers = [JSON, ("Authorization", key.text.as_str())];
        guarded.server.request(RPC, &headers, call.to_string().as_bytes()).await
    };
    let scoped = keys.make(scope("own").unwrap(), Lifetime::default()).unwrap();
    assert_eq!(ask(&scoped, "own").await.status, 200);
    for other in ["other", "*"] {
        let text = ask(&scoped, other).await.flat(403, 3001);
        assert!(text.starts_with("Access denied"), "{other}: {text}");
    }
    let all = guarded.make();
    for namespace in ["own", "other", "*"] {
        assert_eq!(ask(&all, namespace).await.status, 200, "{namespace}");
    }
}

#[tokio::test]
async fn foreign_pages_are_refused_with_and_without_a_key() {
    let guarded = Guarded::start().await;
    let key = guarded.make().text;
    for key in [Some(("Authorization", key.as_str())), None] {
        let headers: Vec<_> = [Some(("Origin", "http://example.com")), key].into_iter().flatten().collect();
        guarded.server.request(RPC, &headers, PING).await.flat(403, 3001);
    }
}
