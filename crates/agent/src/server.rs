// SPDX-License-Identifier: Apache-2.0
//! The listener: checks who connects, and serves each connection in a task of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use protocol::agent::{Message, Refused};
use protocol::limits::{ACCEPT_RETRY_WAIT, AGENT_CONNECTIONS_MAX, WALLS_WAIT};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::environment::UnfitError;
use crate::kernels::Kernels;
use crate::startup::StartupError;
use crate::{Agent, connection, log};

/// Makes a listener of the descriptor that was handed over, which must be one already.
pub(crate) fn listen(listener: OwnedFd) -> io::Result<UnixListener> {
    if !rustix::net::sockopt::socket_acceptconn(&listener)? {
        return Err(io::Error::other("it does not listen"));
    }
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves connections for ever.
pub(crate) async fn serve(
    listener: UnixListener,
    agent: Arc<Agent>,
    kernels: Kernels,
) -> Result<(), StartupError> {
    let places = Arc::new(Semaphore::new(AGENT_CONNECTIONS_MAX));
    let kernels = Arc::new(kernels);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::error("cannot accept a connection", &error);
                sleep(ACCEPT_RETRY_WAIT).await;
                continue;
            }
        };
        if !comes_from_outside(&stream) {
            log::note("a process inside the sandbox tried to connect");
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            refuse_at_once(&stream);
            continue;
        };
        let (agent, kernels) = (Arc::clone(&agent), Arc::clone(&kernels));
        tokio::spawn(async move {
            if let Err(error) = connection::serve(&agent, &kernels, stream).await {
                log::error("a connection ended", &error);
            }
            drop(place);
        });
    }
}

/// Tells the first server that greets us why the sandbox cannot be used.
pub(crate) async fn decline(listener: &UnixListener, secret: &str, unfit: &UnfitError) {
    let telling = async {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) if comes_from_outside(&stream) => {
                    match connection::decline(&mut stream, secret, unfit.to_string()).await {
                        Ok(()) => return,
                        Err(error) => log::error("a connection ended", &error),
                    }
                }
                Ok(_) => log::note("a process inside the sandbox tried to connect"),
                Err(error) => {
                    log::error("cannot accept a connection", &error);
                    sleep(ACCEPT_RETRY_WAIT).await;
                }
            }
        }
    };
    // Nothing runs here that could be waited for: without a server there is only the end.
    let _ = timeout(WALLS_WAIT, telling).await;
}

/// A peer outside our pid namespace has no number in it, so the kernel says 0.
fn comes_from_outside(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.pid() == 0)
}

fn refuse_at_once(stream: &UnixStream) {
    let message = format!("{AGENT_CONNECTIONS_MAX} connections are open already");
    if let Ok(frame) = Message::Refused(Refused { message }).encode() {
        // A fresh socket has room for it; waiting for a peer is what must not happen here.
        let _ = stream.try_write(&frame);
    }
}
