// SPDX-License-Identifier: Apache-2.0
//! Tells our own address from a foreign one.
//!
//! A page of a foreign origin names it in `Origin`. A page whose host name was made to point here names that in `Host`.
//! Ours are the loopback names, and the address at which the connection came in; the port does not matter, so that a
//! forwarded one works.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Uri, header};
use protocol::errors::{ApiError, ErrorCode};

/// Lets a request pass that names no foreign host and no foreign origin.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, local: Option<SocketAddr>) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok()).unwrap_or("");
    let one = hosts.next().is_none();
    let target = uri.authority().is_none_or(|authority| is_ours(authority.as_str(), local));
    if !one || !target || !is_ours(host, local) {
        let text = "Access denied: the request's Host is not an address of this server";
        return Err(forbidden(text).remedy("use http://127.0.0.1 or the address that the server listens on"));
    }
    let foreign = |origin: &axum::http::HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
    };
    if headers.get_all(header::ORIGIN).iter().any(foreign) {
        return Err(forbidden("Access denied: the request comes from a web page of a foreign origin"));
    }
    Ok(())
}

fn forbidden(text: &str) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, text)
}

fn is_ours(host: &str, local: Option<SocketAddr>) -> bool {
    let name = without_port(host);
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let address = address.to_canonical();
    address.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == address)
}

/// Cuts the port off; a host with anything else behind its name is left as it is, and so is none.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let bare_ipv6 = name.contains(':') && !name.ends_with(']');
            if bare_ipv6 { host } else { name }
        }
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn passes(host: &str, origin: Option<&str>, local: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(&headers, &Uri::from_static("/"), Some(local.parse().unwrap())).is_ok()
    }

    #[test]
    fn our_own_hosts_pass_and_others_do_not() {
        let local = "127.0.0.1:5555";
        for host in
            ["localhost", "LocalHost:5555", "127.0.0.1", "127.0.0.1:1", "127.1.2.3:80", "[::1]:5555", "[::1]"]
        {
            assert!(passes(host, None, local), "{host}");
        }
        for host in [
            "",
            "example.com",
            "example.com:5555",
            "localhost.example.com",
            "192.0.2.7:5555",
            "127.0.0.1.nip.io",
            "localhost:",
            "localhost:x",
            "user@localhost",
            "[::2]:5555",
            "0.0.0.0:5555",
        ] {
            assert!(!passes(host, None, local), "{host}");
        }
        assert!(passes("192.0.2.7:5555", None, "192.0.2.7:5555"));
        assert!(passes("[2001:db8::1]:5555", None, "[2001:db8::1]:5555"));
        assert!(passes("192.0.2.7", None, "[::ffff:192.0.2.7]:5555"));
    }

    #[test]
    fn only_the_servers_own_origin_passes() {
        let origin = |origin| passes("localhost:5555", Some(origin), "127.0.0.1:5555");
        assert!(origin("http://localhost:5555"));
        for foreign in [
            "http://localhost:3000",
            "https://example.com",
            "null",
            "http://127.0.0.1:5555",
            "localhost:5555",
        ] {
            assert!(!origin(foreign), "{foreign}");
        }
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/");
        assert!(check(&headers, &uri, None).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&headers, &uri, None).is_ok());
        assert!(check(&headers, &Uri::from_static("http://example.com/"), None).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&headers, &uri, None).is_err());
    }
}
