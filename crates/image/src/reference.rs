// SPDX-License-Identifier: Apache-2.0
//! What names an image in a registry: `[registry/]repository[:tag][@digest]`, read once and canonical after that.
//!
//! The grammar is the one of the distribution project, which Docker uses. The first part is a registry when it can be
//! no repository: it has a dot, a colon, a capital letter, or it is `localhost`. Otherwise the default registry is
//! meant. A reference without tag and digest means the tag `latest`; with both, the digest alone decides.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm};
use protocol::limits::{
    QUOTE_CHARS_MAX, REFERENCE_REGISTRY_CHARS_MAX, REFERENCE_REPOSITORY_CHARS_MAX, REFERENCE_TAG_CHARS_MAX,
};

use crate::registry::RegistryConfig;

/// The registry that has official images in `library/`, as everybody calls it.
pub(crate) const HUB: &str = "docker.io";
/// Other names that it goes by.
const HUB_OTHER_NAMES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
const HUB_OFFICIAL: &str = "library/";
const TAG_DEFAULT: &str = "latest";

/// A checked reference; its text is canonical: the registry is always named, whatever the default one is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A part breaks its rule.
    #[error("the {part} `{text}` of the image reference is not allowed: {rule}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What was written, shortened.
        text: String,
        /// What is allowed there.
        rule: &'static str,
    },
    /// A part is too long.
    #[error("the {part} of the image reference has {chars} characters; at most {max} are allowed")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// How long it is.
        chars: usize,
        /// How long it may be.
        max: usize,
    },
}

const REGISTRY_RULE: &str = "write a host name or address (IPv6 in brackets), with a port from 1 to 65535 if it needs one, \
     such as registry.example:5000";
const REPOSITORY_RULE: &str = "write small letters and digits, inside of a part also single dots, one or two underscores \
     or dashes, and slashes between parts, such as team/app";
const TAG_RULE: &str =
    "write letters, digits, underscores, dots and dashes, beginning with none of the last two";
const DIGEST_RULE: &str = "write sha256: with 64, or sha512: with 128 small hexadecimal digits";

impl Reference {
    /// Reads a reference; a registry that is not written is the default one of `config`.
    ///
    /// # Errors
    /// [`ReferenceError`], which says which part is wrong and what is allowed there.
    pub fn parse(text: &str, config: &RegistryConfig) -> Result<Reference, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            // Without a slash, `[::1]` and `host:5000` alone are no names; the repository's rule says so.
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
            None => (rest, None),
        };
        let tag = tag.map(parse_tag).transpose()?;
        let (registry, repository) = match name.split_once('/') {
            Some((first, repository)) if is_registry(first) => (first, repository),
            _ => (config.default_registry.as_str(), name),
        };
        let registry = parse_registry(registry)?;
        let repository = parse_repository(repository, &registry)?;
        let tag = if digest.is_none() && tag.is_none() { Some(TAG_DEFAULT.to_owned()) } else { tag };
        Ok(Reference { registry, repository, tag, digest })
    }

    /// Returns the registry: host, and port where one was written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; with a digest beside it, it says nothing about the content.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest; where there is one, it decides.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns what the registry is asked for: the digest, else the tag.
    pub(crate) fn version(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag().unwrap_or(TAG_DEFAULT), |digest| digest.as_ref())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_registry(&self.registry) {
            f.write_str(&self.registry)?;
        } else {
            // A bare name would be read as a part of the repository; capitals say that it is none.
            f.write_str(&self.registry.to_ascii_uppercase())?;
        }
        write!(f, "/{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Shortens a stranger's text for an error, and shows what cannot be seen.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

fn malformed(part: &'static str, text: &str, rule: &'static str) -> ReferenceError {
    ReferenceError::Malformed { part, text: quote(text), rule }
}

fn check_length(part: &'static str, text: &str, max: usize) -> Result<(), ReferenceError> {
    match text.chars().count() {
        chars if chars > max => Err(ReferenceError::TooLong { part, chars, max }),
        _ => Ok(()),
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.chars().any(|c| c.is_ascii_uppercase())
}

/// Checks `host[:port]` and gives it back in small letters; the hub's other names become the one.
pub(crate) fn parse_registry(text: &str) -> Result<String, ReferenceError> {
    check_length("registry", text, REFERENCE_REGISTRY_CHARS_MAX)?;
    let wrong = || malformed("registry", text, REGISTRY_RULE);
    let port_start = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match text[port_start..].find(':') {
        Some(colon) => (&text[..port_start + colon], Some(&text[port_start + colon + 1..])),
        None => (text, None),
    };
    let good_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !is_host(host) || !port.is_none_or(good_port) {
        return Err(wrong());
    }
    // What the libraries of URLs make of it must be one host too, not something that only looks like a name.
    url::Host::parse(host).map_err(|_| wrong())?;
    let registry = text.to_ascii_lowercase();
    Ok(if HUB_OTHER_NAMES.contains(&registry.as_str()) { HUB.to_owned() } else { registry })
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
}

fn parse_repository(text: &str, registry: &str) -> Result<String, ReferenceError> {
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        let rule = "64 hexadecimal digits alone look like the id of an image: write a name before them";
        return Err(malformed("repository", text, rule));
    }
    let is_official = registry == HUB && !text.contains('/');
    let repository = if is_official { format!("{HUB_OFFICIAL}{text}") } else { text.to_owned() };
    check_length("repository", &repository, REFERENCE_REPOSITORY_CHARS_MAX)?;
    if repository.split('/').all(is_repository_part) {
        Ok(repository)
    } else {
        Err(malformed("repository", text, REPOSITORY_RULE))
    }
}

/// Words of small letters and digits, with `.`, `_`, `__` or any number of `-` between two of them.
fn is_repository_part(part: &str) -> bool {
    let is_word = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    let good_separator = |separator: &str| {
        matches!(separator, "." | "_" | "__")
            || (!separator.is_empty() && separator.bytes().all(|b| b == b'-'))
    };
    part.starts_with(is_word)
        && part.ends_with(is_word)
        && part.split(is_word).filter(|between| !between.is_empty()).all(good_separator)
}

fn parse_tag(text: &str) -> Result<String, ReferenceError> {
    check_length("tag", text, REFERENCE_TAG_CHARS_MAX)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.starts_with(['.', '-']) || !text.chars().all(good) {
        return Err(malformed("tag", text, TAG_RULE));
    }
    Ok(text.to_owned())
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let wrong = || malformed("digest", text, DIGEST_RULE);
    let digest = Digest::from_str(text).map_err(|_| wrong())?;
    if is_known(&digest) { Ok(digest) } else { Err(wrong()) }
}

/// Says whether content can be checked against a digest here.
pub(crate) fn is_known(digest: &Digest) -> bool {
    matches!(digest.algorithm(), DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, ReferenceError> {
        Reference::parse(text, &RegistryConfig::default()).map(|reference| reference.to_string())
    }

    #[test]
    fn every_form_gets_one_canonical_text() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let long = format!("sha512:{}", "cd".repeat(64));
        let rows = [
            ("python".to_owned(), "docker.io/library/python:latest".to_owned()),
            ("python:3.12-slim".into(), "docker.io/library/python:3.12-slim".into()),
            ("team/app".into(), "docker.io/team/app:latest".into()),
            ("docker.io/python".into(), "docker.io/library/python:latest".into()),
            ("index.docker.io/python".into(), "docker.io/library/python:latest".into()),
            ("localhost/app".into(), "localhost/app:latest".into()),
            ("localhost:5000/app:1".into(), "localhost:5000/app:1".into()),
            ("Registry.Example/app".into(), "registry.example/app:latest".into()),
            ("Example/app".into(), "EXAMPLE/app:latest".into()),
            ("registry.example:443/a/b/c_d/e__f/g-h/i---j/k.l:T_1.x-y".into(), String::new()),
            ("[::1]:5000/app".into(), "[::1]:5000/app:latest".into()),
            ("[2001:DB8::1]/app:x".into(), "[2001:db8::1]/app:x".into()),
            ("127.0.0.1:5000/app".into(), "127.0.0.1:5000/app:latest".into()),
            (format!("app@{digest}"), format!("docker.io/library/app@{digest}")),
            (format!("r.example/app:1@{digest}"), format!("r.example/app:1@{digest}")),
            (format!("r.example/app@{long}"), format!("r.example/app@{long}")),
            (format!("r.example/{}", "a".repeat(255)), format!("r.example/{}:latest", "a".repeat(255))),
            (format!("r.example/a:{}", "t".repeat(128)), format!("r.example/a:{}", "t".repeat(128))),
        ];
        for (text, canonical) in rows {
            let canonical = if canonical.is_empty() { text.clone() } else { canonical };
            assert_eq!(parse(&text).as_deref(), Ok(canonical.as_str()), "{text}");
            assert_eq!(
                parse(&canonical).as_deref(),
                Ok(canonical.as_str()),
                "the canonical text means itself"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let hex = "ab".repeat(32);
        let rows: &[(&str, &str)] = &[
            ("", "repository"),
            ("App", "repository"),
            ("a b", "repository"),
            ("app/", "repository"),
            ("/app", "repository"),
            ("a//b", "repository"),
            ("a..b", "repository"),
            ("a___b", "repository"),
            ("a_-b", "repository"),
            ("-a", "repository"),
            ("a-", "repository"),
            ("../a", "registry"),
            ("r.example/../a", "repository"),
            ("r.example/é", "repository"),
            (&hex, "repository"),
            ("app:", "tag"),
            ("app:.x", "tag"),
            ("app:a b", "tag"),
            ("app:a\0", "tag"),
            ("-r.example/app", "registry"),
            ("r..example/app", "registry"),
            ("r.example:0/app", "registry"),
            ("r.example:65536/app", "registry"),
            ("r.example:/app", "registry"),
            ("r.example:+1/app", "registry"),
            ("user:secret@r.example/app", "digest"),
            ("[::1/app", "registry"),
            ("[::g]/app", "registry"),
            ("[fe80::1%eth0]/app", "registry"),
            ("999.1.1.1/app", "registry"),
            ("app@", "digest"),
            ("app@sha256:abc", "digest"),
            ("app@md5:d41d8cd98f00b204e9800998ecf8427e", "digest"),
            ("app@sha256:zz", "digest"),
        ];
        for (text, part) in rows {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("the {part} ")), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for text in [
            format!("r.example/{}", "a".repeat(256)),
            "a".repeat(255 - "library/".len() + 1),
            format!("r.example/a:{}", "t".repeat(129)),
            format!("{}.example/a", "r".repeat(255)),
        ] {
            assert!(matches!(parse(&text), Err(ReferenceError::TooLong { .. })), "{text}");
        }
        let error = parse(&format!("r.example/{}:!", "a".repeat(9))).expect_err("a bad tag").to_string();
        assert!(error.len() < 1024 && error.contains("letters, digits"), "{error}");
    }

    #[test]
    fn the_default_registry_is_the_operators() {
        let config =
            RegistryConfig { default_registry: "127.0.0.1:5000".into(), ..RegistryConfig::default() };
        let reference = Reference::parse("python:3", &config).unwrap();
        assert_eq!(
            reference.to_string(),
            "127.0.0.1:5000/python:3",
            "library/ is a rule of one registry only"
        );
        assert_eq!(Reference::parse("docker.io/python", &config).unwrap().repository(), "library/python");
    }
}
