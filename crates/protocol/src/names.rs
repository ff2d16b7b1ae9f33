// SPDX-License-Identifier: Apache-2.0
//! Names of sandboxes and namespaces: 1 to 63 of `[A-Za-z0-9_-]`, the first one alphanumeric.

use std::fmt;

use schemars::JsonSchema;

use crate::limits::NAME_CHARS_MAX;

/// The rule as a regular expression, for readers of schemas.
const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$";

/// A checked name of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[schemars(extend("pattern" = PATTERN))]
pub struct SandboxName(String);

/// A checked name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[schemars(extend("pattern" = PATTERN))]
pub struct NamespaceName(String);

/// Why a text is no name; the texts are those that published clients show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("{0} name cannot be empty")]
    Empty(&'static str),
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("{0} name cannot exceed {NAME_CHARS_MAX} characters")]
    TooLong(&'static str),
    /// A character outside the alphabet.
    #[error("{0} name can only contain alphanumeric characters, hyphens, or underscores")]
    Alphabet(&'static str),
    /// A hyphen or underscore in front.
    #[error("{0} name must start with an alphanumeric character")]
    Start(&'static str),
}

impl SandboxName {
    /// Checks a sandbox's name.
    ///
    /// # Errors
    /// [`NameError`] saying which rule is broken.
    pub fn parse(text: &str) -> Result<SandboxName, NameError> {
        check(text, "Sandbox").map(|()| SandboxName(text.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NamespaceName {
    /// Checks a namespace's name; `*` is none.
    ///
    /// # Errors
    /// [`NameError`] saying which rule is broken.
    pub fn parse(text: &str) -> Result<NamespaceName, NameError> {
        check(text, "Namespace").map(|()| NamespaceName(text.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str, what: &'static str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty(what))?;
    if text.chars().count() > NAME_CHARS_MAX {
        return Err(NameError::TooLong(what));
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(NameError::Alphabet(what));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Start(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule_and_say_which_part_was_broken() {
        let text = |t: &str| SandboxName::parse(t).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(text("a"), Ok(()));
        assert_eq!(text(&"a".repeat(63)), Ok(()));
        assert_eq!(text("A_b-9"), Ok(()));
        assert_eq!(text("").unwrap_err(), "Sandbox name cannot be empty");
        assert_eq!(text(&"a".repeat(64)).unwrap_err(), "Sandbox name cannot exceed 63 characters");
        assert_eq!(
            text("a/b").unwrap_err(),
            "Sandbox name can only contain alphanumeric characters, hyphens, or underscores"
        );
        assert_eq!(text("é").unwrap_err(), text("a\0").unwrap_err());
        assert_eq!(text("-a").unwrap_err(), "Sandbox name must start with an alphanumeric character");
        assert_eq!(NamespaceName::parse("").unwrap_err().to_string(), "Namespace name cannot be empty");
        assert!(NamespaceName::parse("*").is_err());
    }
}
