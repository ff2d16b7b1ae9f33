// SPDX-License-Identifier: Apache-2.0
//! Reads a body that is neither too large nor too slow, and throws away what is not wanted.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{
    BODY_BYTES_MAX, HTTP_BODY_DRAIN_BYTES_MAX, HTTP_BODY_WAIT, HTTP_REFUSED_BODY_WAIT,
    MEMORY_SHARE_FREE_BYTES,
};

use crate::connections::{Busy, Presence};
use crate::memory::{Memory, Share};

/// A body that arrived whole.
#[derive(Debug)]
pub(crate) struct Received {
    /// Its bytes; as long as they are held, their memory is counted.
    pub(crate) bytes: Bytes,
    /// Says that a call is under way on its connection.
    pub(crate) busy: Option<Busy>,
}

struct Counted {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body of a request.
///
/// One that is too large is read on and thrown away, within bounds, before it is refused: a client that is still sending
/// would otherwise see a broken connection instead of the answer.
pub(crate) async fn read(memory: &Memory, request: Request) -> Result<Received, ApiError> {
    let (head, mut body) = request.into_parts();
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let encoding: String = String::from_utf8_lossy(encoding.as_bytes()).chars().take(32).collect();
        let text =
            format!("The body must not be compressed, and it is sent with Content-Encoding '{encoding}'");
        return Err(ApiError::new(ErrorCode::WrongContentType, text).remedy("send it as it is"));
    }
    let declared =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut share = memory.body();
    let bytes = match tokio::time::timeout(HTTP_BODY_WAIT, collect(&mut body, declared, &mut share)).await {
        Ok(result) => result?,
        Err(_) => {
            let text = format!("The body did not arrive within {} seconds", HTTP_BODY_WAIT.as_secs());
            return Err(ApiError::new(ErrorCode::BodyTooSlow, text));
        }
    };
    let busy = match head.extensions.get::<Presence>() {
        Some(presence) => Some(presence.busy().ok_or_else(|| {
            let text = "The connection is closed to make room for others";
            ApiError::new(ErrorCode::NoCapacity, text).remedy("try again on a new one")
        })?),
        None => None,
    };
    Ok(Received { bytes: Bytes::from_owner(Counted { bytes, _share: share }), busy })
}

/// Lets the body of a refused request arrive and throws it away, while the answer is on its way.
///
/// A connection that is closed with unread bytes breaks for the other side, which then may not see why it was refused.
/// This is for clients whose requests are as they should be but for the key: what declares no length or a large one, or
/// waits for a go-ahead, is cut off.
pub(crate) fn discard(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut body = request.into_body();
    let expected = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    if expected.is_none_or(|bytes| bytes == 0 || bytes > BODY_BYTES_MAX) {
        return;
    }
    tokio::spawn(async move {
        let rest = async { while let Ok(Some(_)) = next(&mut body).await {} };
        // Slow ones are cut off as well.
        let _ = tokio::time::timeout(HTTP_REFUSED_BODY_WAIT, rest).await;
    });
}

async fn collect(body: &mut Body, declared: Option<usize>, share: &mut Share) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::with_capacity(declared.unwrap_or(0).min(MEMORY_SHARE_FREE_BYTES));
    let mut seen = 0_usize;
    while let Some(chunk) = next(body).await? {
        seen = seen.saturating_add(chunk.len());
        if seen > HTTP_BODY_DRAIN_BYTES_MAX {
            break;
        }
        if seen > BODY_BYTES_MAX {
            bytes = Vec::new();
            continue;
        }
        if !share.take(chunk.len()) {
            let text = "The body is too large for now: the server holds as many large bodies as it may";
            return Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("try again later"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if seen > BODY_BYTES_MAX {
        let text = format!("The body is too large: at most {BODY_BYTES_MAX} bytes are read");
        return Err(ApiError::new(ErrorCode::BodyTooLarge, text));
    }
    Ok(bytes)
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
            Some(Err(error)) => {
                let text = "The body did not arrive whole";
                return Err(ApiError::new(ErrorCode::BadParameters, text).cause(error.to_string()));
            }
        }
    }
}
