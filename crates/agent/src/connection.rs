// SPDX-License-Identifier: Apache-2.0
//! One connection: the greeting, then one call after the other, each cancelled when the server leaves.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use protocol::agent::{
    FrameError, LENGTH_BYTES, Message, Refused, Reply, Request, VERSION, Welcome, encode_output, frame_length,
};
use protocol::limits::{FRAME_BYTES_MAX, FRAME_WAIT, GREETING_BYTES_MAX, GREETING_WAIT, TIMEOUT_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Agent;
use crate::command::{self, Command};
use crate::kernels::{Kernels, Run};
use crate::outbox::{self, Chunk, Ends, Gone, Outbox};

/// Why a connection was ended by us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[from] io::Error),
    /// What came is not the protocol.
    #[error("a bad frame came")]
    Frame(#[from] FrameError),
    /// The peer was refused, and told so.
    #[error("the server was refused: {0}")]
    Refused(&'static str),
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    agent: &Agent,
    kernels: &Kernels,
    mut stream: UnixStream,
) -> Result<(), ConnectionError> {
    let outcome = converse(agent, kernels, &mut stream).await;
    let message = match &outcome {
        Err(ConnectionError::Refused(reason)) => (*reason).to_owned(),
        Err(ConnectionError::Frame(error)) => error.to_string(),
        Err(ConnectionError::Io(_)) | Ok(()) => return outcome,
    };
    let refusal = Message::Refused(Refused { message });
    // It need not want to know; then that is its affair.
    let _ = timeout(GREETING_WAIT, send(&mut stream, &refusal)).await;
    outcome
}

async fn converse(agent: &Agent, kernels: &Kernels, stream: &mut UnixStream) -> Result<(), ConnectionError> {
    if !greeted(stream, &agent.secret).await? {
        return Ok(());
    }
    send(stream, &Message::Welcome(Welcome { version: VERSION })).await?;
    while let Some(message) = receive(stream, FRAME_BYTES_MAX).await? {
        let Message::Request(request) = message else {
            return Err(ConnectionError::Refused("only requests may follow the greeting"));
        };
        let Some(reply) = call(agent, kernels, stream, request).await else { return Ok(()) };
        send(stream, &Message::Reply(reply)).await?;
    }
    Ok(())
}

/// Answers a good greeting with the reason why there is nothing to be welcome to.
pub(crate) async fn decline(
    stream: &mut UnixStream,
    secret: &str,
    message: String,
) -> Result<(), ConnectionError> {
    if !greeted(stream, secret).await? {
        return Err(ConnectionError::Refused("the server left before it greeted"));
    }
    send(stream, &Message::Unfit(Refused { message })).await
}

/// Waits for a good greeting; false when the server left before it.
async fn greeted(stream: &mut UnixStream, secret: &str) -> Result<bool, ConnectionError> {
    match timeout(GREETING_WAIT, receive(stream, GREETING_BYTES_MAX)).await {
        Ok(Ok(Some(first))) => check_greeting(&first, secret).map(|()| true),
        Ok(Ok(None)) => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ConnectionError::Refused("no greeting came in time")),
    }
}

fn check_greeting(first: &Message, secret: &str) -> Result<(), ConnectionError> {
    let Message::Hello(hello) = first else {
        return Err(ConnectionError::Refused("the first message must be the greeting"));
    };
    if !same_secret(hello.secret.as_bytes(), secret.as_bytes()) {
        return Err(ConnectionError::Refused("wrong secret"));
    }
    if hello.version != VERSION {
        return Err(ConnectionError::Refused("this agent speaks another version of the protocol"));
    }
    Ok(())
}

/// Compares without letting the time tell where the first difference is.
fn same_secret(presented: &[u8], secret: &[u8]) -> bool {
    let differences = presented.iter().zip(secret).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    presented.len() == secret.len() && differences == 0
}

/// Serves one call; `None` when the server left meanwhile and the call was cancelled.
async fn call(agent: &Agent, kernels: &Kernels, stream: &mut UnixStream, request: Request) -> Option<Reply> {
    let (outbox, gone, ends) = outbox::open();
    let (reply, stays) = tokio::join!(answer(agent, kernels, request, outbox, gone), attend(stream, ends));
    stays.then_some(reply)
}

async fn answer(agent: &Agent, kernels: &Kernels, request: Request, outbox: Outbox, gone: Gone) -> Reply {
    match request {
        Request::Ping => Reply::Pong,
        Request::Command { command, args, timeout_ms } => {
            let command = Command { command, args, timeout: timeout_ms.map(bounded) };
            Reply::Command { end: command::run(agent, command, outbox, gone).await }
        }
        Request::Run { language, code, timeout_ms } => {
            let run = Run { code, timeout: timeout_ms.map(bounded), outbox, gone };
            Reply::Run { end: kernels.run(language, run).await }
        }
    }
}

fn bounded(timeout_ms: u64) -> Duration {
    Duration::from_millis(timeout_ms).min(TIMEOUT_MAX)
}

/// Sends the call's output until the call has ended; false when the server left before.
async fn attend(stream: &mut UnixStream, mut ends: Ends) -> bool {
    let (reader, mut writer) = stream.split();
    let stays = tokio::select! {
        () = leaves(&reader) => false,
        sent = forward(&mut writer, &mut ends.chunks) => sent,
    };
    if !stays {
        ends.left.send_replace(true);
        // The call must not wait for a reader that is no more.
        while ends.chunks.recv().await.is_some() {}
    }
    stays
}

/// Waits until the server leaves; a frame before the reply is no better than that, since it breaks the protocol.
async fn leaves(reader: &ReadHalf<'_>) {
    loop {
        if reader.readable().await.is_err() {
            return;
        }
        match reader.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}

async fn forward(writer: &mut WriteHalf<'_>, chunks: &mut mpsc::Receiver<Chunk>) -> bool {
    while let Some((channel, bytes)) = chunks.recv().await {
        let Ok(frame) = encode_output(channel, &bytes) else { return false };
        if writer.write_all(&frame).await.is_err() {
            return false;
        }
    }
    true
}

async fn send(stream: &mut UnixStream, message: &Message) -> Result<(), ConnectionError> {
    stream.write_all(&message.encode()?).await?;
    Ok(())
}

/// Receives a frame; `None` when the server has left between two of them.
async fn receive(stream: &mut UnixStream, bytes_max: usize) -> Result<Option<Message>, ConnectionError> {
    let mut field = [0; LENGTH_BYTES];
    if stream.read(&mut field[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        stream.read_exact(&mut field[1..]).await?;
        let length = frame_length(field)?;
        if length > bytes_max {
            return Err(FrameError::Length(length as u64).into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Some(Message::decode(&body)?))
    };
    timeout(FRAME_WAIT, rest).await.unwrap_or(Err(ConnectionError::Refused("a frame did not end in time")))
}

#[cfg(test)]
mod tests {
    use super::same_secret;

    #[test]
    fn only_the_same_secret_is_the_same() {
        assert!(same_secret(b"abc", b"abc"));
        for other in [&b""[..], b"ab", b"abd", b"xbc", b"abcd"] {
            assert!(!same_secret(other, b"abc"), "{other:?}");
        }
    }
}
