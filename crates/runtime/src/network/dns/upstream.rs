// SPDX-License-Identifier: Apache-2.0
//! The host's name servers, asked as a program of the host would ask them.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use protocol::limits::{
    NAME_ANSWER_BYTES_MAX, NAME_DATAGRAM_BYTES_MAX, NAME_SERVER_WAIT, NAME_SERVERS_MAX, RESOLV_CONF_BYTES_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::answers;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Asks the host's name servers, one after the other, until one answers.
pub(super) async fn ask(query: &Query) -> io::Result<Message> {
    // Read each time: it changes with the network that the host is in.
    let servers = tokio::task::spawn_blocking(servers).await.map_err(io::Error::other)??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no name server");
    for server in servers {
        match tokio::time::timeout(NAME_SERVER_WAIT, ask_one(server, query)).await {
            Ok(Ok(message)) => return Ok(message),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A socket, a port and a number of its own for each question: who wants to answer instead must guess both.
async fn ask_one(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let id = u16::try_from(getrandom::u32().map_err(io::Error::other)? & 0xffff).unwrap_or(0);
    let bytes = message(id, query)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; NAME_ANSWER_BYTES_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..count]) {
            Ok(message) if !answers(&message, id, query) => {}
            Ok(message) if message.metadata.truncation => {
                return ask_at_length(server, id, &bytes, query).await;
            }
            Ok(message) => return Ok(message),
            Err(_) => {}
        }
    }
}

/// Asks over a connection, for an answer that is too large for a datagram.
async fn ask_at_length(server: SocketAddr, id: u16, bytes: &[u8], query: &Query) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > NAME_ANSWER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too large"));
    }
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    let message = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(&message, id, query) { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn message(id: u16, query: &Query) -> io::Result<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(u16::try_from(NAME_DATAGRAM_BYTES_MAX).unwrap_or(u16::MAX));
    message.set_edns(edns);
    message.to_vec().map_err(io::Error::other)
}

fn servers() -> io::Result<Vec<SocketAddr>> {
    let mut text = String::new();
    File::open(RESOLV_CONF)?.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text)?;
    Ok(named_servers(&text))
}

/// Reads a `resolv.conf(5)`: without a word of it, the name server is this machine's own.
fn named_servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    });
    let mut servers: Vec<SocketAddr> = named.take(NAME_SERVERS_MAX).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_those_of_the_file() {
        let text =
            "# nameserver 9.9.9.9\nsearch a b\nnameserver 1.1.1.1\n nameserver ::1 # x\nnameserver x\n";
        assert_eq!(named_servers(text), ["1.1.1.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(named_servers(""), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(named_servers(&"nameserver 1.1.1.1\n".repeat(100)).len(), NAME_SERVERS_MAX);
    }
}
