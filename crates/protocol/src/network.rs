// SPDX-License-Identifier: Apache-2.0
//! Whom a sandbox may reach, and who may reach it: the words of a client, read strictly.
//!
//! What cannot be read is an error and never a wider policy. Addresses are four decimal numbers and nothing else: the
//! other forms that C libraries take (octal, hexadecimal, fewer dots) are refused, so that there is one reading of each.

use std::fmt;
use std::net::Ipv4Addr;

use crate::limits::{DOMAIN_CHARS_MAX, LABEL_CHARS_MAX};

/// Whom the programs of a sandbox may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nobody: there is the loopback interface, and no name service.
    None,
    /// The internet: every address that is not [`FORBIDDEN`] and not one of the host's own.
    Public,
    /// These and nobody else; of them, never what is [`FORBIDDEN`].
    Allow(Vec<Allowed>),
}

/// One entry of an allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Who.
    pub to: Destination,
    /// The only port; all of them if none is named.
    pub port: Option<u16>,
}

/// Whom an entry of an allow-list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A domain, in small letters.
    Domain(String),
    /// Every name below a domain, at any depth, but not the domain itself.
    Below(String),
    /// A range of addresses.
    Range(Range),
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    first: Ipv4Addr,
    bits: u8,
}

/// A port of the host's loopback interface that leads to one of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublishedPort {
    /// The host's; 0 takes a free one.
    pub host: u16,
    /// The sandbox's.
    pub guest: u16,
}

/// Why a text names nobody, or nobody who may be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither a domain nor a range of addresses.
    #[error("'{text}' {why}")]
    Entry {
        /// The entry, cut.
        text: String,
        /// What is wrong with it, and what would be right.
        why: &'static str,
    },
    /// It names addresses that no sandbox may reach.
    #[error("'{text}' holds addresses that no sandbox may reach ({range}: {what})")]
    Forbidden {
        /// The entry, cut.
        text: String,
        /// The range of them.
        range: Range,
        /// What it is.
        what: &'static str,
    },
    /// It names one of the ports that are for programs of the host's administrator.
    #[error("'{0}' names a port of the host below 1024, and those are for the host's own programs")]
    HostPort(String),
    /// It is no pair of ports.
    #[error(
        "'{0}' is no \"host:guest\" pair of ports, such as \"8080:80\" (0 as the first takes a free one)"
    )]
    Ports(String),
}

/// What no sandbox may reach, whatever its policy: the IPv4 special-purpose registry of IANA, multicast, and
/// a public address at which a cloud serves its metadata.
pub const FORBIDDEN: [(Range, &str); 19] = [
    (range([0, 0, 0, 0], 8), "this host"),
    (range([10, 0, 0, 0], 8), "private"),
    (range([100, 64, 0, 0], 10), "shared by carriers"),
    (range([127, 0, 0, 0], 8), "loopback"),
    (range([168, 63, 129, 16], 32), "metadata of Azure"),
    (range([169, 254, 0, 0], 16), "link-local, and metadata of clouds"),
    (range([172, 16, 0, 0], 12), "private"),
    (range([192, 0, 0, 0], 24), "protocols"),
    (range([192, 0, 2, 0], 24), "documentation"),
    (range([192, 31, 196, 0], 24), "name servers that sink queries"),
    (range([192, 52, 193, 0], 24), "multicast tunnels"),
    (range([192, 88, 99, 0], 24), "relays to IPv6"),
    (range([192, 168, 0, 0], 16), "private"),
    (range([192, 175, 48, 0], 24), "name servers that sink queries"),
    (range([198, 18, 0, 0], 15), "benchmarks"),
    (range([198, 51, 100, 0], 24), "documentation"),
    (range([203, 0, 113, 0], 24), "documentation"),
    (range([224, 0, 0, 0], 4), "multicast"),
    (range([240, 0, 0, 0], 4), "reserved, and broadcast"),
];

const fn range(first: [u8; 4], bits: u8) -> Range {
    Range { first: Ipv4Addr::new(first[0], first[1], first[2], first[3]), bits }
}

/// Says why no sandbox may reach an address; `None` when it may be reached.
pub fn forbidden(address: Ipv4Addr) -> Option<&'static str> {
    FORBIDDEN.iter().find(|(range, _)| range.contains(address)).map(|(_, what)| *what)
}

impl Range {
    /// Returns the first address.
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// Returns the last address.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !self.mask())
    }

    /// Says whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.first.to_bits()
    }

    /// Says whether two ranges share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Says whether every address of another range is in this one.
    pub fn covers(&self, other: &Range) -> bool {
        self.bits <= other.bits && self.contains(other.first)
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    fn parse(text: &str) -> Result<Range, &'static str> {
        const WRONG: &str = "is no address of four decimal numbers, or range such as 192.0.2.0/24";
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let first: Ipv4Addr = address.parse().map_err(|_| WRONG)?;
        let plain = !bits.is_empty() && bits.len() <= 2 && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u8 = bits.parse().ok().filter(|bits| plain && *bits <= 32).ok_or(WRONG)?;
        let range = Range { first, bits };
        if range.first.to_bits() & !range.mask() != 0 {
            return Err("is no range: bits beyond its length are set");
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl Allowed {
    /// Reads one entry: a domain, `*.` and a domain, an address or a range, each with `:port` after it or without.
    ///
    /// # Errors
    /// [`NetworkError`] saying what is wrong.
    pub fn parse(text: &str) -> Result<Allowed, NetworkError> {
        let wrong = |why| NetworkError::Entry { text: shown(text), why };
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => (name, Some(parse_port(port).filter(|port| *port != 0))),
        };
        if port == Some(None) {
            return Err(wrong(
                "has a port that is no number from 1 to 65535 (IPv6 addresses cannot be named)",
            ));
        }
        let port = port.flatten();
        if name.contains('/') || looks_like_address(name) {
            let range = Range::parse(name).map_err(wrong)?;
            if let Some((range, what)) = FORBIDDEN.into_iter().find(|(other, _)| other.overlaps(&range)) {
                return Err(NetworkError::Forbidden { text: shown(text), range, what });
            }
            return Ok(Allowed { to: Destination::Range(range), port });
        }
        let below = name.strip_prefix("*.");
        let domain = domain(below.unwrap_or(name)).map_err(wrong)?;
        let to = if below.is_some() { Destination::Below(domain) } else { Destination::Domain(domain) };
        Ok(Allowed { to, port })
    }
}

impl Destination {
    /// Says whether it names this domain, given in small letters and without a dot at its end.
    pub fn names(&self, domain: &str) -> bool {
        match self {
            Destination::Domain(own) => own == domain,
            Destination::Below(own) => {
                domain.strip_suffix(own.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Destination::Range(_) => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Network::None => "none",
            Network::Public => "public",
            Network::Allow(_) => "allow",
        })
    }
}

impl PublishedPort {
    /// Reads `host:guest`.
    ///
    /// # Errors
    /// [`NetworkError::Ports`], or [`NetworkError::HostPort`].
    pub fn parse(text: &str) -> Result<PublishedPort, NetworkError> {
        let pair =
            text.split_once(':').and_then(|(host, guest)| Some((parse_port(host)?, parse_port(guest)?)));
        match pair {
            Some((1..1024, 1..)) => Err(NetworkError::HostPort(shown(text))),
            Some((host, guest @ 1..)) => Ok(PublishedPort { host, guest }),
            _ => Err(NetworkError::Ports(shown(text))),
        }
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

/// Reads a decimal number without sign or zeroes in front.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Says whether some program would take it for an address: the last label begins with a digit, or there is only one.
fn looks_like_address(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()))
}

fn domain(text: &str) -> Result<String, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.len() > DOMAIN_CHARS_MAX {
        return Err("is longer than a domain can be");
    }
    if text.split('.').count() < 2 {
        return Err("is no domain such as example.com (for everything, there is \"public\")");
    }
    if !text.split('.').all(is_label) {
        return Err(
            "is no domain: its parts are letters, digits, - and _, at most 63; only the first may be *",
        );
    }
    Ok(text)
}

/// Says whether a text can be one label of a name that we ask others for.
pub fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_CHARS_MAX).contains(&label.len()) && label.bytes().all(plain)
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        Allowed::parse(text)
            .map(|allowed| format!("{:?} {:?}", allowed.to, allowed.port))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn entries_are_domains_wildcards_and_ranges_each_with_a_port_or_without() {
        for (text, expected) in [
            ("Example.COM", "Domain(\"example.com\") None"),
            ("example.com.:443", "Domain(\"example.com\") Some(443)"),
            ("*.example.com", "Below(\"example.com\") None"),
            ("xn--bcher-kva.example", "Domain(\"xn--bcher-kva.example\") None"),
            ("1.1.1.1:53", "Range(Range { first: 1.1.1.1, bits: 32 }) Some(53)"),
            ("8.8.8.0/24", "Range(Range { first: 8.8.8.0, bits: 24 }) None"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            "*",
            ".",
            "*.",
            "com",
            "localhost",
            "a..b",
            "*.*.example.com",
            "a.*.com",
            "exa mple.com",
            "a.b\0",
            "a.b\r\nc.d",
            "a.b:0",
            "a.b:",
            "a.b:65536",
            "a.b:080",
            "a.b:+80",
            "::1",
            "[::1]:80",
            "fe80::1%eth0",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "1.1",
            "01.1.1.1",
            "1.1.1.1/33",
            "1.1.1.1/-1",
            "1.1.1.1/+8",
            "1.1.1.1/24",
            "1.1.1.0/024",
            "1.1.1.1/24/8",
            "example.com/24",
            "https://example.com",
            "a.b/c",
        ] {
            let error = read(text).expect_err(text);
            assert!(error.len() < 400, "{error}");
        }
        assert!(read(&format!("{}.example.com", "a".repeat(64))).is_err());
        assert!(read(&format!("{}.com", ["a"; 130].join("."))).is_err());
    }

    #[test]
    fn ranges_that_hold_a_forbidden_address_are_refused() {
        for text in [
            "0.0.0.0/0",
            "127.0.0.1",
            "10.1.2.3:80",
            "192.168.0.0/16",
            "169.254.169.254",
            "128.0.0.0/1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "172.31.0.0/24",
            "160.0.0.0/3",
        ] {
            assert!(read(text).expect_err(text).contains("no sandbox may reach"), "{text}");
        }
        for (range, _) in FORBIDDEN {
            assert_eq!(Range::parse(&range.to_string()), Ok(range), "it begins at its first address");
            assert!(forbidden(range.first()).is_some() && forbidden(range.last()).is_some());
        }
        for open in [[1, 1, 1, 1], [9, 255, 255, 255], [11, 0, 0, 0], [172, 32, 0, 0], [223, 255, 255, 255]] {
            assert_eq!(forbidden(Ipv4Addr::from(open)), None, "{open:?}");
        }
    }

    #[test]
    fn wildcards_name_what_is_below_and_nothing_else() {
        let below = Allowed::parse("*.example.com").unwrap().to;
        for (name, expected) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("badexample.com", false),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(below.names(name), expected, "{name}");
        }
        assert!(!Allowed::parse("example.com").unwrap().to.names("a.example.com"));
    }

    #[test]
    fn ports_are_pairs_of_plain_numbers() {
        let read = |text| PublishedPort::parse(text).map(|port| (port.host, port.guest)).ok();
        assert_eq!(read("8080:80"), Some((8080, 80)));
        assert_eq!(read("0:80"), Some((0, 80)));
        for text in [
            "80", "80:0", ":80", "80:", "1:2:3", "+1:2", "-1:2", "080:80", "65536:1", "a:b", "1: 2",
            "8-9:8-9", "22:22", "1023:1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
