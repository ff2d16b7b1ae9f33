// SPDX-License-Identifier: Apache-2.0
//! Published ports: of the host's loopback interface, and each leads to one port of one sandbox's.
//!
//! The connection inside is made by a socket of the sandbox's own network namespace, to its own 127.0.0.1: whatever a
//! client sends, it ends there and nowhere else. No interface is needed, and no rule.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::limits::{PORT_CONNECT_WAIT, PORT_CONNECTIONS_MAX, PORT_RETRY_WAIT};
use protocol::network::PublishedPort;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

use super::visitor::{Place, Visitor};
use crate::backend::StartError;

/// Ports that are taken on the host, and lead nowhere yet: who connects waits.
#[derive(Debug)]
pub(crate) struct BoundPorts {
    listeners: Vec<(TcpListener, PublishedPort)>,
    visitor: Visitor,
}

/// Ports that lead into a sandbox, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    published: Vec<PublishedPort>,
    tasks: Vec<AbortHandle>,
}

impl BoundPorts {
    /// Takes them.
    pub(super) async fn bind(ports: &[PublishedPort], visitor: Visitor) -> Result<BoundPorts, StartError> {
        let mut listeners = Vec::new();
        for port in ports {
            let refused = |error: io::Error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    StartError::Unfit(format!("port {} of the host is in use already", port.host))
                }
                _ => StartError::Walls {
                    step: format!("take port {} of the host", port.host),
                    source: Some(error),
                },
            };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.host)).await.map_err(refused)?;
            let host = listener.local_addr().map_err(refused)?.port();
            listeners.push((listener, PublishedPort { host, guest: port.guest }));
        }
        Ok(BoundPorts { listeners, visitor })
    }

    /// Lets them lead into the sandbox of this process.
    pub(crate) fn open(self, process: &Arc<OwnedFd>) -> Ports {
        let turns = Arc::new(Semaphore::new(PORT_CONNECTIONS_MAX));
        let mut ports = Ports::default();
        for (listener, port) in self.listeners {
            let way = Way { process: Arc::clone(process), visitor: self.visitor.clone(), port: port.guest };
            ports.tasks.push(tokio::spawn(serve(listener, way, Arc::clone(&turns))).abort_handle());
            ports.published.push(port);
        }
        ports
    }
}

impl Ports {
    /// Returns them, the host's as they are.
    pub(crate) fn published(&self) -> Vec<PublishedPort> {
        self.published.clone()
    }
}

impl Drop for Ports {
    /// Ends the listeners, and with them their connections.
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The way to one port of a sandbox.
#[derive(Clone, Debug)]
struct Way {
    process: Arc<OwnedFd>,
    visitor: Visitor,
    port: u16,
}

async fn serve(listener: TcpListener, way: Way, turns: Arc<Semaphore>) {
    // Its connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(pass(stream, way.clone(), turn))),
            // No more descriptors, or a client that left at once.
            Err(_) => tokio::time::sleep(PORT_RETRY_WAIT).await,
        }
    }
}

/// Passes bytes both ways until both sides have ended, or one is broken.
async fn pass(mut outside: TcpStream, way: Way, _turn: OwnedSemaphorePermit) {
    if let Ok(mut inside) = way.connect().await {
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    }
}

impl Way {
    async fn connect(self) -> io::Result<TcpStream> {
        let port = self.port;
        let stream = self.visitor.visit(Place::Process(self.process), move || begin_connection(port)).await?;
        let stream = TcpStream::from_std(stream)?;
        let connected = tokio::time::timeout(PORT_CONNECT_WAIT, stream.writable()).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }
}

/// Begins a connection to this network namespace's own loopback address.
fn begin_connection(port: u16) -> io::Result<StdStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(StdStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
