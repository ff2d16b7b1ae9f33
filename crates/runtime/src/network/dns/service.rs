// SPDX-License-Identifier: Apache-2.0
//! The two sockets of the name service, and what happens to a question between them and the host's name servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use protocol::limits::{
    NAME_CONNECTION_QUERIES_MAX, NAME_CONNECTION_WAIT, NAME_CONNECTIONS_MAX, NAME_QUERIES_MAX,
    NAME_QUERY_BYTES_MAX, PORT_RETRY_WAIT,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::answer::{Told, tell};
use super::question::{Decision, Malformed, Question};
use super::upstream;
use crate::network::router::Shared;
use crate::network::session::{Ports, Session};

/// What all questions share.
struct Service {
    shared: Arc<Shared>,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Serves both sockets, for as long as the tasks are there.
pub(in crate::network) fn serve(
    datagrams: std::net::UdpSocket,
    connections: std::net::TcpListener,
    shared: &Arc<Shared>,
) -> io::Result<[AbortHandle; 2]> {
    datagrams.set_nonblocking(true)?;
    connections.set_nonblocking(true)?;
    let (datagrams, connections) = (UdpSocket::from_std(datagrams)?, TcpListener::from_std(connections)?);
    let service = Arc::new(Service {
        shared: Arc::clone(shared),
        questions: Arc::new(Semaphore::new(NAME_QUERIES_MAX)),
        connections: Arc::new(Semaphore::new(NAME_CONNECTIONS_MAX)),
    });
    let first = tokio::spawn(serve_datagrams(Arc::new(datagrams), Arc::clone(&service)));
    Ok([first.abort_handle(), tokio::spawn(serve_connections(connections, service)).abort_handle()])
}

async fn serve_datagrams(socket: Arc<UdpSocket>, service: Arc<Service>) {
    let mut buffer = vec![0; NAME_QUERY_BYTES_MAX + 1];
    loop {
        // An error is news about a datagram that could not be delivered.
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(session) = service.session(from).filter(|_| count <= NAME_QUERY_BYTES_MAX) else { continue };
        let turns = (
            Arc::clone(&service.questions).try_acquire_owned(),
            Arc::clone(&session.queries).try_acquire_owned(),
        );
        // Beyond the bounds nobody is answered: who asks so much asks again.
        let (Ok(one), Ok(other)) = turns else { continue };
        let (bytes, socket, service) = (buffer[..count].to_vec(), Arc::clone(&socket), Arc::clone(&service));
        tokio::spawn(async move {
            let (_one, _other) = (one, other);
            if let Some(answer) = service.answer(&session, &bytes, Way::Datagram).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_connections(listener: TcpListener, service: Arc<Service>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PORT_RETRY_WAIT).await;
            continue;
        };
        let Some(session) = service.session(from) else { continue };
        let turns = (
            Arc::clone(&service.connections).try_acquire_owned(),
            Arc::clone(&session.connections).try_acquire_owned(),
        );
        let (Ok(one), Ok(other)) = turns else { continue };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let (_one, _other) = (one, other);
            let _ = service.converse(stream, &session).await;
        });
    }
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Datagram,
    Connection,
}

impl Service {
    fn session(&self, from: SocketAddr) -> Option<Arc<Session>> {
        match from.ip() {
            IpAddr::V4(address) => self.shared.session(address),
            IpAddr::V6(_) => None,
        }
    }

    /// Answers the questions of one connection, one after the other.
    async fn converse(&self, mut stream: TcpStream, session: &Arc<Session>) -> io::Result<()> {
        for _ in 0..NAME_CONNECTION_QUERIES_MAX {
            let question = tokio::time::timeout(NAME_CONNECTION_WAIT, read_question(&mut stream)).await??;
            let Ok(_one) = self.questions.acquire().await else { return Ok(()) };
            let Ok(_other) = session.queries.acquire().await else { return Ok(()) };
            let Some(answer) = self.answer(session, &question, Way::Connection).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let whole = [&length.to_be_bytes()[..], &answer].concat();
            tokio::time::timeout(NAME_CONNECTION_WAIT, stream.write_all(&whole)).await??;
        }
        Ok(())
    }

    /// Answers one question; `None` where silence is the answer.
    async fn answer(&self, session: &Arc<Session>, bytes: &[u8], way: Way) -> Option<Vec<u8>> {
        let question = match Question::read(bytes) {
            Ok(question) => question,
            Err(Malformed::Silent) => return None,
            Err(Malformed::Told(id, code)) => {
                return Message::error_msg(id, OpCode::Query, code).to_vec().ok();
            }
        };
        let message = self.message(session, &question).await;
        let whole = message.to_vec().ok()?;
        if way == Way::Connection || whole.len() <= question.datagram_bytes {
            return Some(whole);
        }
        let mut cut = question.answer(message.metadata.response_code);
        cut.metadata.truncation = true;
        cut.to_vec().ok()
    }

    async fn message(&self, session: &Arc<Session>, question: &Question) -> Message {
        let ports = match question.decide(&session.policy) {
            Decision::Ask(ports) => ports,
            Decision::Nothing => return question.answer(ResponseCode::NoError),
            Decision::Refuse => return question.answer(ResponseCode::Refused),
            Decision::Deny(why) => {
                session.refuse_name(&question.name, why);
                return question.answer(ResponseCode::NXDomain);
            }
        };
        let told = match upstream::ask(&question.query).await {
            Ok(message) => tell(message, &question.query),
            Err(error) => {
                tracing::debug!(sandbox = %session.id, %error, "network: no name server answers");
                return question.answer(ResponseCode::ServFail);
            }
        };
        if let Some(address) = told.withheld.first() {
            session
                .refuse_name(&question.name, &format!("it leads to {address}, which no sandbox may reach"));
        }
        if !self.open(session, &told, ports).await {
            return question.answer(ResponseCode::ServFail);
        }
        let mut message = question.answer(told.code);
        message.add_answers(told.records);
        message
    }

    /// Opens the addresses of an answer before it is told.
    async fn open(&self, session: &Arc<Session>, told: &Told, ports: Ports) -> bool {
        if told.addresses.is_empty() || ports == Ports::Open {
            return true;
        }
        let (shared, session) = (Arc::clone(&self.shared), Arc::clone(session));
        let (addresses, life): (Vec<Ipv4Addr>, _) = (told.addresses.clone(), told.life);
        let id = session.id.clone();
        let pinned =
            tokio::task::spawn_blocking(move || shared.pin(&session, &addresses, &ports, life)).await;
        match pinned {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                tracing::error!(sandbox = %id, %error, "cannot open the addresses of an allowed name");
                false
            }
            Err(_) => false,
        }
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > NAME_QUERY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
