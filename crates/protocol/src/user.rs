// SPDX-License-Identifier: Apache-2.0
//! Who programs inside a sandbox are, as an image says it (`USER`): `user`, `user:group`, each a name or a number.
//!
//! The text comes from strangers. It is read here before it goes anywhere, and once more by the agent, which looks names
//! up in the image's own files.

use std::fmt;

use crate::limits::{USER_BYTES_MAX, USER_NUMBER_MAX};

/// A user, and a group if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub user: Account,
    /// The group; the user's own and its supplementary ones if none is named.
    pub group: Option<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// By its number; there need be no entry for it.
    Number(u32),
    /// By its name.
    Name(String),
}

/// Why a text names no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// It is too long to be quoted.
    #[error("a user of {0} bytes: at most {USER_BYTES_MAX} are allowed")]
    Length(usize),
    /// A part is nothing that could be looked up.
    #[error(
        "{text} is no user: it must be 'user' or 'user:group', each a name (letters, digits, '_', '.', '-', '@', '+') or a number from 0 to {USER_NUMBER_MAX}"
    )]
    Form {
        /// The whole text, quoted and escaped.
        text: String,
    },
}

impl User {
    /// Reads the text of an image.
    ///
    /// # Errors
    /// [`UserError`] when it can name nobody.
    pub fn parse(text: &str) -> Result<User, UserError> {
        if text.len() > USER_BYTES_MAX {
            return Err(UserError::Length(text.len()));
        }
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let account =
            |part| Account::parse(part).ok_or_else(|| UserError::Form { text: format!("{text:?}") });
        Ok(User { user: account(user)?, group: group.map(account).transpose()? })
    }
}

impl Account {
    fn parse(part: &str) -> Option<Account> {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return part.parse().ok().filter(|number| *number <= USER_NUMBER_MAX).map(Account::Number);
        }
        let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@+$".contains(&byte);
        let first = part.bytes().next()?;
        let is_name = (first.is_ascii_alphanumeric() || first == b'_') && part.bytes().all(part_of_name);
        is_name.then(|| Account::Name(part.to_owned()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Number(number) => write!(f, "{number}"),
            Account::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn number(number: u32) -> Account {
        Account::Number(number)
    }

    fn name(name: &str) -> Account {
        Account::Name(name.to_owned())
    }

    #[test]
    fn every_form_of_docker_is_read() {
        let check =
            |text: &str, user, group| assert_eq!(User::parse(text), Ok(User { user, group }), "{text}");
        check("app", name("app"), None);
        check("1000", number(1000), None);
        check("app:staff", name("app"), Some(name("staff")));
        check("1000:50", number(1000), Some(number(50)));
        check("app:0", name("app"), Some(number(0)));
        check("65535:www-data", number(65_535), Some(name("www-data")));
        check("_apt", name("_apt"), None);
        check("MACHINE$", name("MACHINE$"), None);
        check("first.last@example+x", name("first.last@example+x"), None);
    }

    #[test]
    fn what_could_name_nobody_is_refused_and_quoted_without_its_tricks() {
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "a:b:c",
            "../../x",
            "/etc",
            "a/b",
            "-1",
            "-",
            "+1",
            ".",
            "a b",
            "a\nb",
            "a\0",
            "\0",
            "65536",
            "99999999999999999999",
            "1000:-5",
            "a:65536",
            "\u{661}",
            "\u{fc}ser",
            "a\u{1b}[31m",
            "$x",
            "a\\b",
        ] {
            let error = User::parse(text).expect_err(text).to_string();
            assert!(error.contains("is no user") && error.contains("0 to 65535"), "{error}");
            assert!(!error.contains(['\n', '\0', '\u{1b}']), "{error:?}");
        }
        let error = User::parse(&"a".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 100, "{error}");
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_can_be_a_path_or_a_line(text in any::<String>()) {
            if let Ok(User { user, group }) = User::parse(&text) {
                for part in [Some(user), group].into_iter().flatten() {
                    let part = part.to_string();
                    prop_assert!(!part.is_empty() && !part.contains(['/', ':', '\n', '\0']) && !part.starts_with(['.', '-']));
                }
            }
        }
    }
}
