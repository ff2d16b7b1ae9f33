// SPDX-License-Identifier: Apache-2.0
//! A server that says whatever a test wants, byte by byte, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// How a body is sent.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// With its length.
    Whole(Vec<u8>),
    /// With its length, but the connection breaks before that.
    Cut(Vec<u8>, usize),
    /// Without its length.
    Unmeasured(Vec<u8>),
    /// Byte after byte.
    Drip(Vec<u8>, Duration),
    /// Without an end.
    Endless,
    /// After a while.
    Late(Vec<u8>, Duration),
}

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::sent(Body::Whole(body.into()))
    }

    pub(super) fn sent(body: Body) -> Reply {
        Reply { status: 200, headers: Vec::new(), body }
    }

    pub(super) fn status(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::Whole(b"t0ken s3cret".to_vec()) }
    }

    pub(super) fn redirect(to: impl Into<String>) -> Reply {
        Reply::status(307).with("location", to)
    }

    pub(super) fn with_body(self, body: Body) -> Reply {
        Reply { body, ..self }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    sent_bytes: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// Runs until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(handler: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_at("127.0.0.1", handler).await
    }

    /// Starts at an address; the handler gets each request and how many came before it.
    pub(super) async fn start_at(
        host: &str,
        handler: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, handler): (Arc<Seen>, Arc<Handler>) = (Arc::default(), Arc::new(handler));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, handler) = (Arc::clone(&shared), Arc::clone(&handler));
                tokio::spawn(async move {
                    let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.most_open.fetch_max(open, Ordering::SeqCst);
                    // A client that hangs up is what many tests are about.
                    let _ = serve(stream, &seen, &*handler).await;
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Server { address, seen, task }
    }

    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }

    pub(super) fn sent_bytes(&self) -> usize {
        self.seen.sent_bytes.load(Ordering::SeqCst)
    }

    pub(super) fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, seen: &Seen, handler: &Handler) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Some(asked) = read(&mut stream).await? else { return Ok(()) };
    let before = {
        let mut all = seen.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    let reply = handler(&asked, before);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &reply.body {
        Body::Whole(bytes) | Body::Cut(bytes, _) | Body::Late(bytes, _) => {
            head.push_str(&format!("content-length: {}\r\n", bytes.len()));
        }
        Body::Unmeasured(_) | Body::Drip(..) | Body::Endless => {
            head.push_str("transfer-encoding: chunked\r\n")
        }
    }
    head.push_str("\r\n");
    if let Body::Late(_, wait) = &reply.body {
        tokio::time::sleep(*wait).await;
    }
    stream.write_all(head.as_bytes()).await?;
    write_body(&mut stream, &reply.body, seen).await?;
    stream.shutdown().await
}

async fn write_body(stream: &mut BufReader<TcpStream>, body: &Body, seen: &Seen) -> std::io::Result<()> {
    match body {
        Body::Whole(bytes) | Body::Late(bytes, _) => stream.write_all(bytes).await,
        Body::Cut(bytes, after) => stream.write_all(&bytes[..*after]).await,
        Body::Unmeasured(bytes) => {
            for piece in bytes.chunks(64 * 1024) {
                write_chunk(stream, piece, seen).await?;
            }
            stream.write_all(b"0\r\n\r\n").await
        }
        Body::Drip(bytes, every) => {
            for byte in bytes {
                write_chunk(stream, &[*byte], seen).await?;
                tokio::time::sleep(*every).await;
            }
            stream.write_all(b"0\r\n\r\n").await
        }
        Body::Endless => loop {
            write_chunk(stream, &[b' '; 16 * 1024], seen).await?;
        },
    }
}

async fn write_chunk(stream: &mut BufReader<TcpStream>, bytes: &[u8], seen: &Seen) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await?;
    seen.sent_bytes.fetch_add(bytes.len(), Ordering::SeqCst);
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Asked { method, path, headers, body: String::from_utf8(body).unwrap() }))
}
