// SPDX-License-Identifier: Apache-2.0
//! Connections: accepted up to a bound, served, and closed when the server ends.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::limits::{
    HTTP_ACCEPT_RETRY_WAIT, HTTP_CLOSE_WAIT, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_SHARE,
    HTTP_HEAD_BYTES_MAX, HTTP_HEAD_WAIT, HTTP_HEADERS_MAX,
};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
use crate::connections::{Connection, Connections, Presence};
use crate::http::{self, Local};
use crate::metrics;
use crate::stream::ImpatientStream;

impl App {
    /// Serves a listener until `shutdown` is done; then stops every sandbox, and returns when nothing is left of them.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let (closing, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        let sampling = tokio::spawn(metrics::sample_forever(self.clone()));
        self.accept_until(&listener, &closing, &mut connections, pin!(shutdown)).await;
        drop(listener);
        tracing::info!("ending: every sandbox is stopped");
        closing.send_replace(true);
        self.registry().close().await;
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(HTTP_CLOSE_WAIT, finished).await.is_err() {
            tracing::debug!("some connections are cut");
        }
        sampling.abort();
    }

    async fn accept_until(
        &self,
        listener: &TcpListener,
        closing: &watch::Sender<bool>,
        connections: &mut JoinSet<()>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) {
        let router = http::router(self.clone());
        let open = Connections::new(connections_max());
        loop {
            let (stream, connection) = tokio::select! {
                biased;
                () = &mut shutdown => return,
                accepted = accept(listener, &open) => accepted,
            };
            // Only here: what waits for room above holds a connection, and must not be dropped because another ended.
            while connections.try_join_next().is_some() {}
            let Ok(local) = stream.local_addr() else { continue };
            let service = Service { router: router.clone(), local, presence: connection.presence() };
            connections.spawn(serve_connection(stream, service, closing.subscribe(), connection));
        }
    }
}

/// Returns how many connections may be open, so that descriptors are left for sandboxes.
fn connections_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (descriptors / HTTP_CONNECTIONS_SHARE).clamp(1, HTTP_CONNECTIONS_MAX)
}

/// Accepts a connection, and makes room for it.
async fn accept(listener: &TcpListener, open: &Connections) -> (TcpStream, Connection) {
    loop {
        match listener.accept().await.and_then(prepare) {
            Ok(stream) => return (stream, open.admit().await),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(HTTP_ACCEPT_RETRY_WAIT).await;
            }
        }
    }
}

fn prepare((stream, _): (TcpStream, std::net::SocketAddr)) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The routes, as requests of one connection reach them.
#[derive(Clone)]
struct Service {
    router: Router,
    local: SocketAddr,
    presence: Presence,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Local(self.local));
        request.extensions_mut().insert(self.presence.clone());
        tower_service::Service::call(&mut self.router.clone(), request)
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: Service,
    mut closing: watch::Receiver<bool>,
    open: Connection,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_WAIT);
    builder.max_buf_size(HTTP_HEAD_BYTES_MAX).max_headers(HTTP_HEADERS_MAX);
    let Ok(gone) = ClientGone::watch(&stream) else { return };
    let io = TokioIo::new(ImpatientStream::new(stream));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut ending = pin!(async {
        tokio::select! {
            () = open.cut() => tracing::debug!("a connection is closed to make room for another"),
            () = gone.wait() => {}
        }
    });
    let closed = tokio::select! {
        biased;
        // Dropping a connection drops its call, which cancels it.
        () = &mut ending => return,
        result = connection.as_mut() => Some(result),
        () = wait_for_closing(&mut closing) => None,
    };
    let result = match closed {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                () = &mut ending => return,
                result = connection.as_mut() => result,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Notices that a client has closed its connection, also while bytes that it sent before are not read yet: the parser
/// of HTTP looks at the socket only when it has read those. A half-closed connection is a closed one.
struct ClientGone(TcpStream);

impl ClientGone {
    /// Watches a descriptor of its own, which is never read from.
    fn watch(stream: &TcpStream) -> io::Result<ClientGone> {
        let descriptor = stream.as_fd().try_clone_to_owned()?;
        TcpStream::from_std(descriptor.into()).map(ClientGone)
    }

    async fn wait(&self) {
        // An error means that the runtime ends.
        while let Ok(ready) = self.0.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            // Until more comes: the kernel tells of each arrival once.
            let nothing_read = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.0.try_io(Interest::READABLE, nothing_read);
        }
    }
}

async fn wait_for_closing(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which closes as well.
    drop(closing.wait_for(|closing| *closing).await);
}
