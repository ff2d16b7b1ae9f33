// SPDX-License-Identifier: Apache-2.0
//! A name by which an operator lets the server be called.

use std::fmt;
use std::net::IpAddr;

/// A host name or an address, without a port; compared as host names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

/// Why a text is no name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// All names at once.
    #[error(
        "every name there is cannot be allowed: name those that are yours, each with its own --allowed-host"
    )]
    Wildcard,
    /// Something else.
    #[error("it must be a host name such as sandbox.example.com, without http:// and without a port")]
    Shape,
}

/// Longest host name, and longest part of one between dots, in characters.
const CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

impl HostName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`HostNameError`] saying what it must be.
    pub fn parse(text: &str) -> Result<HostName, HostNameError> {
        if text.contains('*') {
            return Err(HostNameError::Wildcard);
        }
        let is_name = text.len() <= CHARS_MAX && text.split('.').all(is_label);
        if !is_name && text.parse::<IpAddr>().is_err() {
            return Err(HostNameError::Shape);
        }
        Ok(HostName(text.to_ascii_lowercase()))
    }

    /// Says whether this is the host that a request names, its port cut off.
    pub(crate) fn is(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        self.0.eq_ignore_ascii_case(host)
            || matches!((self.0.parse::<IpAddr>(), host.parse::<IpAddr>()), (Ok(own), Ok(other)) if own == other)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty()
        && label.len() <= LABEL_CHARS_MAX
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_and_compared_as_such() {
        let is = |name: &str, host: &str| HostName::parse(name).unwrap().is(host);
        assert!(is("sandbox.example.com", "SANDBOX.example.com"));
        assert!(is("build_host-7", "build_host-7"));
        assert!(is("192.0.2.7", "192.0.2.7"));
        assert!(is("2001:db8::1", "[2001:DB8:0::1]"));
        assert!(!is("example.com", "sandbox.example.com"));
        assert!(!is("example.com", ""));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["*", "*.example.com"] {
            assert_eq!(HostName::parse(wrong), Err(HostNameError::Wildcard), "{wrong}");
        }
        let long = "a.".repeat(127) + "a";
        for wrong in [
            "",
            ".",
            "example.com:5555",
            "http://example.com",
            "example.com/",
            "example..com",
            "example.com.",
            "-a.com",
            "a-.com",
            "a b",
            "exämple.com",
            "[::1]",
            "user@host",
            &"a".repeat(64),
            &long,
        ] {
            assert_eq!(HostName::parse(wrong), Err(HostNameError::Shape), "{wrong}");
        }
    }
}
