// SPDX-License-Identifier: Apache-2.0
//! What a registry asks for: `WWW-Authenticate: Bearer realm="https://..",service=".."` (RFC 9110, section 11.6.1).

/// One way to prove who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Returns a parameter; of two with one name, the first.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads one header, which can hold several challenges. What makes no sense ends it.
pub(super) fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = take_token(rest);
        if word.is_empty() {
            return challenges;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        rest = match (value, challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = take_value(value.trim_start_matches([' ', '\t']));
                challenge.parameters.push((word.to_owned(), value));
                after
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
                after
            }
        };
    }
}

fn take_token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some servers forget the quotes around an address.
        let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !is_escaped => return (value, &quoted[at + 1..]),
            '\\' if !is_escaped => is_escaped = true,
            c => {
                value.push(c);
                is_escaped = false;
            }
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        type Expected = &'static [(&'static str, &'static str, &'static str)];
        let rows: [(&str, Expected); 7] = [
            (
                r#"Bearer realm="https://a/t",service="s, x",scope="r:a:pull""#,
                &[("bearer", "scope", "r:a:pull")],
            ),
            (r#"bearer REALM = "https://a/t" , service=plain"#, &[("Bearer", "realm", "https://a/t")]),
            ("Bearer realm=https://a/t?x=1,service=s", &[("bearer", "realm", "https://a/t?x=1")]),
            (r#"Basic realm="x", Bearer realm="y""#, &[("basic", "realm", "x"), ("bearer", "realm", "y")]),
            (r#"Basic realm="a\"b""#, &[("basic", "realm", "a\"b")]),
            (r#"Basic, Digest qop="auth""#, &[("basic", "", ""), ("digest", "qop", "auth")]),
            (r#"Bearer realm="open"#, &[("bearer", "realm", "open")]),
        ];
        for (text, expected) in rows {
            let challenges = parse(text);
            assert_eq!(challenges.len(), expected.len(), "{text}: {challenges:?}");
            for (challenge, (scheme, name, value)) in challenges.iter().zip(expected) {
                assert!(challenge.is(scheme), "{text}");
                assert_eq!(challenge.value(name).unwrap_or_default(), *value, "{text}");
            }
        }
        for text in ["", ",,,", "=", "\"", "realm=\"x\"", "é"] {
            assert_eq!(parse(text), [], "{text}");
        }
    }
}
