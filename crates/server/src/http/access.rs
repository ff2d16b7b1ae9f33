// SPDX-License-Identifier: Apache-2.0
//! Who may call.

use axum::http::{HeaderMap, header};
use protocol::errors::{ApiError, ErrorCode};

use crate::app::Access;

/// What every key begins with.
const KEY_PREFIX: &str = "msb_";

const REMEDY: &str = "this server has no keys yet: start it with --dev to use it without one";

/// Lets a caller in, or says why not.
///
/// No key exists on this server, so none can be right; what a caller is told depends on whether it sent one.
pub(crate) fn check(access: Access, headers: &HeaderMap) -> Result<(), ApiError> {
    match access {
        Access::Open => Ok(()),
        Access::Keys if sent_key(headers) => {
            Err(ApiError::new(ErrorCode::BadCredential, "Invalid or expired token").remedy(REMEDY))
        }
        Access::Keys => Err(ApiError::new(ErrorCode::NoCredential, "Invalid credentials").remedy(REMEDY)),
    }
}

fn sent_key(headers: &HeaderMap) -> bool {
    let value = headers.get(header::PROXY_AUTHORIZATION).or_else(|| headers.get(header::AUTHORIZATION));
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    text.strip_prefix("Bearer ").unwrap_or(text).trim().starts_with(KEY_PREFIX)
}
