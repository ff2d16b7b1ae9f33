// SPDX-License-Identifier: Apache-2.0
//! The server's end of the agent protocol ([`protocol::agent`]). What an agent sends is parsed like a stranger's.

use std::io;
use std::time::Duration;

use protocol::agent::{
    Channel, FrameError, Hello, LENGTH_BYTES, Message, Reply, Request, VERSION, frame_length,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// One connection to an agent; serves one call at a time. Dropping it cancels the call under way.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

/// Something that an agent says during a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Some output.
    Output(Channel, Vec<u8>),
    /// The end of the call; the connection can be used again.
    Reply(Reply),
}

/// Why no connection to an agent could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the stream broke.
    #[error("cannot reach the agent")]
    Io(#[from] io::Error),
    /// The agent refused, or is not the one we started.
    #[error("the agent refused the connection: {0}")]
    Refused(String),
    /// It ended, because what the sandbox was to be does not go with its image.
    #[error("{0}")]
    Unfit(String),
    /// It sent something that is not the protocol, or took too long.
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
}

/// Why a call on an open connection failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The stream broke: most often because the sandbox ended.
    #[error("the connection to the agent broke")]
    Io(#[from] io::Error),
    /// The agent sent a frame that is not the protocol.
    #[error("the agent broke the protocol")]
    Frame(#[from] FrameError),
    /// The agent refused the request or sent a message that does not belong here.
    #[error("the agent refused the request: {0}")]
    Refused(String),
}

impl Connection {
    /// Greets the agent behind a fresh stream.
    ///
    /// # Errors
    /// [`ConnectError`] when it does not answer as our agent would within `wait`.
    pub async fn greet(stream: UnixStream, secret: &str, wait: Duration) -> Result<Connection, ConnectError> {
        let mut connection = Connection { stream: BufReader::with_capacity(64 * 1024, stream) };
        let greeting = async {
            let hello = Message::Hello(Hello { version: VERSION, secret: secret.to_owned() });
            connection.send(&hello).await.map_err(call_to_connect)?;
            match connection.receive().await.map_err(call_to_connect)? {
                Message::Welcome(welcome) if welcome.version == VERSION => Ok(()),
                Message::Welcome(welcome) => Err(ConnectError::Refused(format!(
                    "it speaks version {}, this server {VERSION}",
                    welcome.version
                ))),
                Message::Refused(refused) => Err(ConnectError::Refused(refused.message)),
                Message::Unfit(refused) => Err(ConnectError::Unfit(refused.message)),
                _ => Err(ConnectError::Protocol("an answer that is no welcome".to_owned())),
            }
        };
        match tokio::time::timeout(wait, greeting).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::Protocol(format!("no welcome within {wait:?}"))),
        }
    }

    /// Sends a request; its events follow by [`Connection::next`].
    ///
    /// # Errors
    /// [`CallError`] when the stream is broken or the request is too large for a frame.
    pub async fn request(&mut self, request: Request) -> Result<(), CallError> {
        self.send(&Message::Request(request)).await
    }

    /// Waits for the next event of the call under way.
    ///
    /// # Errors
    /// [`CallError`] when the stream ends or what came is not the protocol; the connection is then of no more use.
    pub async fn next(&mut self) -> Result<Event, CallError> {
        match self.receive().await? {
            Message::Output(channel, bytes) => Ok(Event::Output(channel, bytes)),
            Message::Reply(reply) => Ok(Event::Reply(reply)),
            Message::Refused(refused) | Message::Unfit(refused) => Err(CallError::Refused(refused.message)),
            Message::Hello(_) | Message::Welcome(_) | Message::Request(_) => {
                Err(CallError::Refused("it sent a message that only opens a call".to_owned()))
            }
        }
    }

    async fn send(&mut self, message: &Message) -> Result<(), CallError> {
        let frame = message.encode()?;
        self.stream.write_all(&frame).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Message, CallError> {
        let mut field = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut field).await?;
        let mut body = vec![0; frame_length(field)?];
        self.stream.read_exact(&mut body).await?;
        Ok(Message::decode(&body)?)
    }
}

fn call_to_connect(error: CallError) -> ConnectError {
    match error {
        CallError::Io(error) => ConnectError::Io(error),
        CallError::Frame(error) => ConnectError::Protocol(error.to_string()),
        CallError::Refused(message) => ConnectError::Refused(message),
    }
}
