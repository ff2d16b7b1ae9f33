// SPDX-License-Identifier: Apache-2.0
//! Tells our own address from a foreign one.
//!
//! A page of a foreign origin names it in `Origin`. A page whose host name was made to point here names that in `Host`.
//! Ours are the loopback names, the address at which the connection came in, and the names that the operator allowed; the
//! port does not matter, so that a forwarded one works.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header;
use protocol::errors::{ApiError, ErrorCode};

use super::HostName;

/// Lets a request pass that names no foreign host and no foreign origin.
pub(crate) fn check(
    request: &Request,
    local: Option<SocketAddr>,
    allowed: &[HostName],
) -> Result<(), ApiError> {
    let (headers, uri) = (request.headers(), request.uri());
    let is_ours = |host| is_ours(host, local, allowed);
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok()).unwrap_or("");
    let one = hosts.next().is_none();
    let target = uri.authority().is_none_or(|authority| is_ours(authority.as_str()));
    if !one || !target || !is_ours(host) {
        let text = "Access denied: the request's Host is not an address of this server";
        return Err(forbidden(text).remedy(
            "use http://127.0.0.1 or the address that the server listens on; further names are allowed with: msb server \
             start --allowed-host NAME",
        ));
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

fn is_ours(host: &str, local: Option<SocketAddr>, allowed: &[HostName]) -> bool {
    let name = without_port(host);
    if name.eq_ignore_ascii_case("localhost") || allowed.iter().any(|own| own.is(name)) {
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
    use axum::body::Body;

    use super::*;

    fn request(uri: &str, hosts: &[&str], origin: Option<&str>) -> Request {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.body(Body::empty()).unwrap()
    }

    fn passes(host: &str, origin: Option<&str>, local: &str) -> bool {
        check(&request("/", &[host], origin), Some(local.parse().unwrap()), &[]).is_ok()
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
        let passes = |uri, hosts: &[&str]| check(&request(uri, hosts, None), None, &[]).is_ok();
        assert!(!passes("/", &[]));
        assert!(passes("/", &["localhost"]));
        assert!(!passes("http://example.com/", &["localhost"]));
        assert!(!passes("/", &["localhost", "localhost"]));
    }

    #[test]
    fn names_that_the_operator_allowed_are_ours_and_nothing_below_them() {
        let names = ["sandbox.example.com", "192.0.2.7"].map(|name| HostName::parse(name).unwrap());
        let passes =
            |host, origin| check(&request("/", &[host], origin), "127.0.0.1:1".parse().ok(), &names).is_ok();
        for host in ["sandbox.example.com", "Sandbox.Example.COM:8443", "192.0.2.7:80", "localhost"] {
            assert!(passes(host, None), "{host}");
        }
        for host in ["example.com", "x.sandbox.example.com", "sandbox.example.com.evil", "192.0.2.70", ""] {
            assert!(!passes(host, None), "{host}");
        }
        assert!(passes("sandbox.example.com", Some("https://sandbox.example.com")));
        assert!(!passes("sandbox.example.com", Some("https://example.com")));
        assert!(!passes("localhost", Some("https://sandbox.example.com")));
    }
}
