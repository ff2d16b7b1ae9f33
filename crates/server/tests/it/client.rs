// SPDX-License-Identifier: Apache-2.0
//! A server on a free port with the fake backend, and a client of a few lines: HTTP is spoken by hand, so that the tests
//! see what is really sent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::registry::RegistryConfig;
use image::{Allowed, Images};
use protocol::isolation::Level;
use runtime::Demanding;
use runtime::fake::Fake;
use serde_json::{Value, json};
use server::{Access, App, Host, HostName, Keys};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine that tests run on, as the server believes.
pub(crate) const MACHINE: Host = Host { memory_mib: 4096, cpus: 4 };

/// Returns what is said of a start.
pub(crate) fn start_said(name: &str) -> String {
    format!("Sandbox {name} started successfully (image: a directory of this machine)")
}

/// A running server.
pub(crate) struct Server {
    pub(crate) fake: Fake,
    pub(crate) address: SocketAddr,
    /// A directory that may be used as image.
    pub(crate) image: PathBuf,
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) serving: JoinHandle<()>,
    _home: tempfile::TempDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(Access::Open, 100).await
    }

    /// Starts one that asks for the keys of a home.
    pub(crate) async fn with_keys(home: &Path) -> Server {
        Server::with(Access::Keys(Arc::new(Keys::open(home).unwrap())), 100).await
    }

    pub(crate) async fn with(access: Access, sandboxes_max: usize) -> Server {
        Server::with_hosts(access, sandboxes_max, &[]).await
    }

    /// Starts one that demands a level of isolation.
    pub(crate) async fn demanding(level: Level) -> Server {
        Server::build(Access::Open, 100, &[], level).await
    }

    pub(crate) async fn with_hosts(access: Access, sandboxes_max: usize, hosts: &[&str]) -> Server {
        Server::build(access, sandboxes_max, hosts, Level::Any).await
    }

    async fn build(access: Access, sandboxes_max: usize, hosts: &[&str], level: Level) -> Server {
        let home = tempfile::tempdir().unwrap();
        let image = home.path().join("rootfs");
        fs_err::create_dir(&image).unwrap();
        let allowed = Allowed { host: false, rootfs: vec![image.clone()] };
        let images = Images::open(home.path(), allowed, RegistryConfig::default(), false).unwrap();
        let fake = Fake::new();
        let backend = Demanding::new(Arc::new(fake.clone()), level);
        let app = App::with_capacity(Arc::new(backend), images, MACHINE, access, sandboxes_max);
        let app = app.allow_hosts(hosts.iter().map(|name| HostName::parse(name).unwrap()).collect());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                let _ = receiver.await;
            };
            app.serve(listener, shutdown).await;
        });
        Server { fake, address, image, shutdown: Some(sender), serving, _home: home }
    }

    /// Sends bytes as they are and reads until the server closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The server may answer before it has read all: that is no failure of the test.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            Answer::parse(&answer)
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// Sends a request with further header lines.
    pub(crate) async fn request(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request =
            format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.raw(&[request.as_bytes(), body].concat()).await
    }

    /// Posts a JSON text to the RPC path.
    pub(crate) async fn post(&self, body: &str) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.request("POST /api/v1/rpc", &headers, body.as_bytes()).await
    }

    /// Makes a call.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Answer {
        let call = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        self.post(&call.to_string()).await
    }

    /// Makes a call that must succeed, and returns its result.
    pub(crate) async fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        assert!(body.get("error").is_none(), "{body}");
        body["result"].clone()
    }

    /// A configuration that starts.
    pub(crate) fn config(&self) -> Value {
        json!({"image": self.image, "memory": 512, "cpus": 1})
    }

    /// Parameters that start a sandbox.
    pub(crate) fn start_params(&self, name: &str) -> Value {
        json!({"sandbox": name, "namespace": "default", "config": self.config()})
    }

    /// Starts a sandbox.
    pub(crate) async fn up(&self, name: &str) -> String {
        let result = self.result("sandbox.start", self.start_params(name)).await;
        result.as_str().unwrap().to_owned()
    }

    /// Runs a script in a sandbox.
    pub(crate) async fn run(&self, name: &str, code: &str) -> Answer {
        self.call("sandbox.repl.run", run_params(name, code)).await
    }

    /// Begins a call without waiting for its answer; dropping the stream is a client that goes away.
    pub(crate) async fn begin(&self, method: &str, params: Value) -> TcpStream {
        self.begin_at("/api/v1/rpc", method, params).await
    }

    /// Begins a call at a path.
    pub(crate) async fn begin_at(&self, path: &str, method: &str, params: Value) -> TcpStream {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
        stream
    }

    /// Tells the server to end.
    pub(crate) fn tell_to_end(&mut self) {
        self.shutdown.take().expect("told once").send(()).unwrap();
    }

    /// Ends the server and waits for it.
    pub(crate) async fn end(mut self) {
        self.tell_to_end();
        within(self.serving).await.unwrap();
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
        Answer { status, head: head.to_owned(), text: body.to_owned() }
    }

    /// Reads what is left of an answer.
    pub(crate) async fn of(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        Answer::parse(&bytes)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Checks that this is a flat error; returns its text.
    #[track_caller]
    pub(crate) fn flat(&self, status: u16, code: i64) -> String {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_i64()), (status, Some(code)), "{self:?}");
        assert!(body.get("result").is_none() && body.get("jsonrpc").is_none(), "{body}");
        assert_eq!(body["request_id"].as_str().map(str::len), Some(16), "{body}");
        body["error"].as_str().expect("a flat error's text").to_owned()
    }

    /// Checks that this is a JSON-RPC error; returns its text.
    #[track_caller]
    pub(crate) fn rpc_error(&self, status: u16, code: i64) -> String {
        let body = self.json();
        assert_eq!((self.status, body["error"]["code"].as_i64()), (status, Some(code)), "{self:?}");
        assert_eq!(body["jsonrpc"], "2.0");
        assert!(body.get("result").is_none(), "{body}");
        body["error"]["message"].as_str().expect("an error's text").to_owned()
    }
}

/// Parameters of a run.
pub(crate) fn run_params(name: &str, code: &str) -> Value {
    json!({"sandbox": name, "namespace": "default", "language": "python", "code": code})
}

/// Parameters of a command.
pub(crate) fn command_params(name: &str, command: &str, args: &[&str]) -> Value {
    json!({"sandbox": name, "namespace": "default", "command": command, "args": args})
}

/// The name of a sandbox in the default namespace.
pub(crate) fn target(name: &str) -> Value {
    json!({"sandbox": name, "namespace": "default"})
}

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
