// SPDX-License-Identifier: Apache-2.0
//! Who may call.
//!
//! All that is wrong with a key looks the same from outside: nobody learns which keys there are or were.

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use protocol::errors::{ApiError, ErrorCode};

use crate::app::Access;
use crate::caller::Caller;
use crate::keys::Refusal;

/// Says whether a request is answered for everybody.
pub(crate) fn is_public(request: &Request) -> bool {
    request.method() == Method::GET && request.uri().path() == super::HEALTH
}

/// Lets a caller in, or says why not.
pub(crate) fn check(access: &Access, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let keys = match access {
        Access::Open => return Ok(Caller::open()),
        Access::Keys(keys) => keys,
    };
    match shown(headers).ok_or(Refusal::NoKey).and_then(|key| keys.check(key)) {
        Ok(caller) => Ok(caller),
        Err(Refusal::NoKey) => {
            let remedy = "send a key in the header 'Authorization: Bearer msb_...'; make one on the server's machine \
                          with: msb server keygen";
            Err(ApiError::new(ErrorCode::NoCredential, "Invalid credentials").remedy(remedy))
        }
        Err(Refusal::Invalid(why)) => {
            tracing::debug!(why, "a key was refused");
            let remedy = "make another key on the server's machine, for the home of the server that you call, with: \
                          msb server keygen";
            Err(ApiError::new(ErrorCode::BadCredential, "Invalid or expired token").remedy(remedy))
        }
        Err(Refusal::Store(error)) => {
            // The text of the database names files of the host: it is for the log.
            tracing::error!(%error, "keys cannot be checked");
            let remedy = "try again; if it stays so, the server's operator finds the reason in its log";
            Err(ApiError::new(ErrorCode::Store, "The key cannot be checked at the moment").remedy(remedy))
        }
    }
}

/// Finds what may be a key. Who sends one header twice shows nothing: which of the two is meant cannot be known.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let sent = |name| headers.contains_key(&name).then_some(name);
    let name = sent(header::PROXY_AUTHORIZATION).or_else(|| sent(header::AUTHORIZATION))?;
    let mut values = headers.get_all(name).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    Some(text.strip_prefix("Bearer ").unwrap_or(text).trim())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn shown_by(lines: &[(HeaderName, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        shown(&headers).map(str::to_owned)
    }

    #[test]
    fn a_key_is_found_in_both_headers_and_both_forms() {
        let (own, proxy) = (header::AUTHORIZATION, header::PROXY_AUTHORIZATION);
        let key = Some("msb_k".to_owned());
        for name in [&own, &proxy] {
            for value in ["msb_k", "Bearer msb_k", "Bearer  msb_k"] {
                assert_eq!(shown_by(&[(name.clone(), value)]), key, "{name} {value}");
            }
        }
        assert_eq!(shown_by(&[(own.clone(), "msb_other"), (proxy.clone(), "msb_k")]), key);
        assert_eq!(shown_by(&[(own.clone(), "msb_k"), (own.clone(), "msb_k")]), None);
        assert_eq!(shown_by(&[]), None);
        assert_eq!(shown_by(&[(own.clone(), "bearer msb_k")]), Some("bearer msb_k".to_owned()));
        let mut headers = HeaderMap::new();
        headers.insert(own, HeaderValue::from_bytes(b"msb_\xff").unwrap());
        assert_eq!(shown(&headers), None);
    }
}
