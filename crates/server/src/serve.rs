// SPDX-License-Identifier: Apache-2.0
//! Connections: accepted up to a bound, served, and closed when the server ends.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocol::limits::{HTTP_ACCEPT_RETRY_WAIT, HTTP_CLOSE_WAIT, HTTP_CONNECTIONS_MAX, HTTP_HEAD_WAIT};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::http::{self, Local};
use crate::metrics;

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
        let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        loop {
            let (stream, permit) = tokio::select! {
                biased;
                () = &mut shutdown => return,
                accepted = accept(listener, &room) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok(local) = stream.local_addr() else { continue };
            let router = router.clone().layer(Extension(Local(local)));
            connections.spawn(serve_connection(stream, router, closing.subscribe(), permit));
        }
    }
}

/// Accepts a connection, as soon as there is room for one more.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(room).acquire_owned().await.expect("this semaphore is never closed");
    loop {
        match listener.accept().await.and_then(prepare) {
            Ok(stream) => return (stream, permit),
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

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    mut closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // A client that closes its connection has its call dropped, which cancels it: half-closed ones are not kept.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_WAIT).half_close(false);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let closed = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = wait_for_closing(&mut closing) => None,
    };
    let result = match closed {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn wait_for_closing(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which closes as well.
    drop(closing.wait_for(|closing| *closing).await);
}
