// SPDX-License-Identifier: Apache-2.0
//! The protocol between the server and the agent of one sandbox.
//!
//! A connection (unix stream) serves one call at a time:
//!
//! ```text
//! server                      agent
//!   Hello{version, secret} ──▶
//!                          ◀── Welcome{version}           (or Refused or Unfit, and the end)
//!   Request ──────────────▶
//!                          ◀── Output*                    (bytes, in order of arrival)
//!                          ◀── Reply                      (then the next Request may follow)
//! ```
//!
//! Closing the connection cancels the call that is under way on it. A frame is
//! `length: u32 little endian`, the number of bytes that follow; `kind: u8`; payload. All payloads are JSON but that of
//! `Output`, which is one byte for the channel and then raw bytes.

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_BYTES_MAX;

/// The version of this protocol; both sides refuse any other.
pub const VERSION: u32 = 1;

/// A language that a kernel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3.8 and later.
    Python,
    /// JavaScript on Node.js 18 and later.
    Node,
}

/// Where a chunk of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Standard output of this call.
    Stdout,
    /// Standard error of this call.
    Stderr,
    /// Standard output that came between the execution before and this one.
    BackgroundStdout,
    /// Standard error that came between the execution before and this one.
    BackgroundStderr,
}

/// One message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Server: who I am.
    Hello(Hello),
    /// Agent: come in.
    Welcome(Welcome),
    /// Server: do this.
    Request(Request),
    /// Agent: some output of the call under way.
    Output(Channel, Vec<u8>),
    /// Agent: how the call ended.
    Reply(Reply),
    /// Agent: this connection or request is refused.
    Refused(Refused),
    /// Agent, instead of a welcome: what the sandbox was to be does not go with its image; it ends.
    Unfit(Refused),
}

/// The first message on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the server.
    pub version: u32,
    /// The sandbox's secret.
    pub secret: String,
}

/// The answer to a good [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`VERSION`] of the agent.
    pub version: u32,
}

/// A refusal, with its reason in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was wrong.
    pub message: String,
}

/// What the server asks of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Answer at once.
    Ping,
    /// Start one process, without a shell, and follow it to its end.
    Command {
        /// The program: a path, or a name that is looked up in `PATH`.
        command: String,
        /// Its arguments, without the program's own name.
        args: Vec<String>,
        /// After this many milliseconds the whole process tree is killed.
        timeout_ms: Option<u64>,
    },
    /// Execute source text in the kernel of a language.
    Run {
        /// The language.
        language: Language,
        /// The source.
        code: String,
        /// After this many milliseconds the execution is interrupted, and killed if that does not end it.
        timeout_ms: Option<u64>,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Ping`].
    Pong,
    /// To [`Request::Command`].
    Command {
        /// How the process ended.
        end: CommandEnd,
    },
    /// To [`Request::Run`].
    Run {
        /// How the execution ended.
        end: RunEnd,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum CommandEnd {
    /// The program ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Its time was up; it and all its descendants are dead.
    TimedOut,
    /// It could not be started.
    NotStarted {
        /// Why, in words.
        message: String,
    },
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum RunEnd {
    /// The code ran to its end.
    Success,
    /// The code raised; the traceback went to standard error.
    Error,
    /// Its time was up.
    TimedOut {
        /// Whether the interpreter lives on with its variables; otherwise it was killed.
        kept: bool,
    },
    /// It was interrupted from outside before its time was up, and the interpreter lives on.
    Interrupted,
    /// The interpreter died under it.
    Died {
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },
    /// There is no usable interpreter for the language, or too many executions wait for it.
    Unavailable {
        /// Why, in words.
        message: String,
    },
}

/// Why bytes are no frame of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is zero or beyond the limit.
    #[error("a frame of {0} bytes: 1 to {FRAME_BYTES_MAX} are allowed")]
    Length(u64),
    /// The kind is not one of ours, or not valid in its payload.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The payload is not what the kind says.
    #[error("a frame of kind {0} with a bad payload")]
    Payload(u8, #[source] Option<serde_json::Error>),
}

const HELLO: u8 = 1;
const REQUEST: u8 = 2;
const WELCOME: u8 = 17;
const OUTPUT: u8 = 18;
const REPLY: u8 = 19;
const REFUSED: u8 = 20;
const UNFIT: u8 = 21;

/// Bytes of the length field in front of every frame.
pub const LENGTH_BYTES: usize = 4;

impl Channel {
    fn to_byte(self) -> u8 {
        match self {
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::BackgroundStdout => 3,
            Channel::BackgroundStderr => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Channel> {
        match byte {
            1 => Some(Channel::Stdout),
            2 => Some(Channel::Stderr),
            3 => Some(Channel::BackgroundStdout),
            4 => Some(Channel::BackgroundStderr),
            _ => None,
        }
    }
}

impl Message {
    /// Returns the message as one whole frame, length field included.
    ///
    /// # Errors
    /// [`FrameError::Length`] when the message is too large for a frame.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let (kind, payload) = match self {
            Message::Hello(body) => (HELLO, json(HELLO, body)?),
            Message::Welcome(body) => (WELCOME, json(WELCOME, body)?),
            Message::Request(body) => (REQUEST, json(REQUEST, body)?),
            Message::Reply(body) => (REPLY, json(REPLY, body)?),
            Message::Refused(body) => (REFUSED, json(REFUSED, body)?),
            Message::Unfit(body) => (UNFIT, json(UNFIT, body)?),
            Message::Output(channel, bytes) => return encode_output(*channel, bytes),
        };
        frame(kind, &[], &payload)
    }

    /// Reads the message out of a frame's bytes, the length field left out.
    ///
    /// # Errors
    /// [`FrameError`] for an empty frame, an unknown kind or a payload that does not fit it.
    pub fn decode(bytes: &[u8]) -> Result<Message, FrameError> {
        let (&kind, payload) = bytes.split_first().ok_or(FrameError::Length(0))?;
        match kind {
            HELLO => parse(kind, payload).map(Message::Hello),
            WELCOME => parse(kind, payload).map(Message::Welcome),
            REQUEST => parse(kind, payload).map(Message::Request),
            REPLY => parse(kind, payload).map(Message::Reply),
            REFUSED => parse(kind, payload).map(Message::Refused),
            UNFIT => parse(kind, payload).map(Message::Unfit),
            OUTPUT => {
                let (&channel, bytes) = payload.split_first().ok_or(FrameError::Payload(kind, None))?;
                let channel = Channel::from_byte(channel).ok_or(FrameError::Payload(kind, None))?;
                Ok(Message::Output(channel, bytes.to_vec()))
            }
            other => Err(FrameError::Kind(other)),
        }
    }
}

/// Returns one chunk of output as a whole frame, without a copy through [`Message`].
///
/// # Errors
/// [`FrameError::Length`] when the chunk is too large for a frame.
pub fn encode_output(channel: Channel, bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    frame(OUTPUT, &[channel.to_byte()], bytes)
}

/// Checks a frame's length field and returns how many bytes follow it.
///
/// # Errors
/// [`FrameError::Length`] when that is zero or more than [`FRAME_BYTES_MAX`].
pub fn frame_length(field: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(field);
    match usize::try_from(length) {
        Ok(bytes) if (1..=FRAME_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(FrameError::Length(u64::from(length))),
    }
}

fn frame(kind: u8, head: &[u8], payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = 1 + head.len() + payload.len();
    let field = match u32::try_from(length) {
        Ok(field) if length <= FRAME_BYTES_MAX => field,
        _ => return Err(FrameError::Length(length as u64)),
    };
    let mut frame = Vec::with_capacity(LENGTH_BYTES + length);
    frame.extend_from_slice(&field.to_le_bytes());
    frame.push(kind);
    frame.extend_from_slice(head);
    frame.extend_from_slice(payload);
    Ok(frame)
}

fn json<T: Serialize>(kind: u8, body: &T) -> Result<Vec<u8>, FrameError> {
    serde_json::to_vec(body).map_err(|error| FrameError::Payload(kind, Some(error)))
}

fn parse<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|error| FrameError::Payload(kind, Some(error)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn check_round_trip(message: &Message) {
        let frame = message.encode().unwrap();
        let (field, body) = frame.split_at(LENGTH_BYTES);
        assert_eq!(frame_length(field.try_into().unwrap()).unwrap(), body.len());
        assert_eq!(&Message::decode(body).unwrap(), message);
    }

    #[test]
    fn every_message_survives_a_round_trip() {
        check_round_trip(&Message::Hello(Hello { version: VERSION, secret: "s".into() }));
        check_round_trip(&Message::Welcome(Welcome { version: VERSION }));
        check_round_trip(&Message::Request(Request::Ping));
        check_round_trip(&Message::Request(Request::Run {
            language: Language::Node,
            code: "1\n\u{1F980}".into(),
            timeout_ms: Some(5),
        }));
        check_round_trip(&Message::Output(Channel::BackgroundStderr, vec![0, 255, b'\n']));
        check_round_trip(&Message::Reply(Reply::Command { end: CommandEnd::Signaled { signal: 9 } }));
        check_round_trip(&Message::Refused(Refused { message: "no".into() }));
        check_round_trip(&Message::Unfit(Refused { message: "no user".into() }));
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        assert!(frame_length([0; 4]).is_err());
        assert!(frame_length([255; 4]).is_err());
        assert!(encode_output(Channel::Stdout, &vec![0; FRAME_BYTES_MAX]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_never_invents(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                let frame = message.encode().unwrap();
                prop_assert_eq!(Message::decode(&frame[LENGTH_BYTES..]).unwrap(), message);
            }
        }

        #[test]
        fn output_keeps_every_byte(bytes in proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|v| v)) {
            let frame = encode_output(Channel::Stderr, &bytes).unwrap();
            prop_assert!(Message::decode(&frame[LENGTH_BYTES..]).unwrap() == Message::Output(Channel::Stderr, bytes));
        }
    }
}
