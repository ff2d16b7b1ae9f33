// SPDX-License-Identifier: Apache-2.0
//! What a client can write for an image.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest name of an image, in bytes.
pub const NAME_BYTES_MAX: usize = 4096;

/// A checked name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageName {
    /// `microsandbox/python`, or the name that older clients send for it.
    Python,
    /// `microsandbox/node`, or the name that older clients send for it.
    Node,
    /// A directory of this machine, as an absolute path.
    Directory(PathBuf),
    /// Any other reference, as it was written.
    Other(String),
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("the image name is empty; write for example microsandbox/python")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes, or a control character.
    #[error(
        "the image name has {0} bytes; at most {NAME_BYTES_MAX} are allowed, and no control characters or spaces"
    )]
    Malformed(usize),
}

// One text for each image, whichever name it was written with.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageName::Python => f.write_str("microsandbox/python"),
            ImageName::Node => f.write_str("microsandbox/node"),
            ImageName::Directory(path) => path.display().fmt(f),
            ImageName::Other(text) => f.write_str(text),
        }
    }
}

impl ImageName {
    /// Reads a name. A tag of the two names above says nothing: there is one version of each.
    ///
    /// # Errors
    /// [`NameError`] for a text that can name nothing.
    pub fn parse(text: &str) -> Result<ImageName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let is_path = text.starts_with('/');
        let bad = |c: char| c.is_control() || (c.is_whitespace() && !is_path);
        if text.len() > NAME_BYTES_MAX || text.chars().any(bad) {
            return Err(NameError::Malformed(text.len()));
        }
        if is_path {
            return Ok(ImageName::Directory(Path::new(text).to_owned()));
        }
        let untagged = text.split_once(':').map_or(text, |(name, _)| name);
        Ok(match untagged {
            "microsandbox/python" | "appcypher/msb-python" => ImageName::Python,
            "microsandbox/node" | "appcypher/msb-nodejs" => ImageName::Node,
            _ => ImageName::Other(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_clients_send_are_known_with_and_without_a_tag() {
        for text in ["microsandbox/python", "appcypher/msb-python", "microsandbox/python:latest"] {
            assert_eq!(ImageName::parse(text), Ok(ImageName::Python), "{text}");
            assert_eq!(ImageName::parse(text).unwrap().to_string(), "microsandbox/python");
        }
        for text in ["microsandbox/node", "appcypher/msb-nodejs"] {
            assert_eq!(ImageName::parse(text), Ok(ImageName::Node), "{text}");
        }
        assert_eq!(ImageName::parse("/srv/a b"), Ok(ImageName::Directory("/srv/a b".into())));
        assert_eq!(ImageName::parse("alpine:3"), Ok(ImageName::Other("alpine:3".into())));
    }

    #[test]
    fn what_can_name_nothing_is_refused() {
        assert_eq!(ImageName::parse(""), Err(NameError::Empty));
        for text in ["a b", "a\0", "/srv/\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(matches!(ImageName::parse(text), Err(NameError::Malformed(_))), "{text:?}");
        }
    }
}
