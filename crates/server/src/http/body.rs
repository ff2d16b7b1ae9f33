// SPDX-License-Identifier: Apache-2.0
//! Reads a body that is neither too large nor too slow, and throws away what is not wanted.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{BODY_BYTES_MAX, HTTP_BODY_DRAIN_BYTES_MAX, HTTP_BODY_WAIT, HTTP_REFUSED_BODY_WAIT};

/// Reads the whole body of a request.
///
/// One that is too large is read on and thrown away, within bounds, before it is refused: a client that is still sending
/// would otherwise see a broken connection instead of the answer.
pub(crate) async fn read(request: Request) -> Result<Vec<u8>, ApiError> {
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = request.into_body();
    match tokio::time::timeout(HTTP_BODY_WAIT, collect(&mut body, declared.unwrap_or(0))).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("The body did not arrive within {} seconds", HTTP_BODY_WAIT.as_secs());
            Err(ApiError::new(ErrorCode::BadParameters, text))
        }
    }
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

async fn collect(body: &mut Body, declared: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::with_capacity(declared.min(BODY_BYTES_MAX));
    let mut seen = 0_usize;
    while let Some(chunk) = next(body).await? {
        seen = seen.saturating_add(chunk.len());
        if seen > HTTP_BODY_DRAIN_BYTES_MAX {
            break;
        }
        if seen <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
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
