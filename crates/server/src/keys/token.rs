// SPDX-License-Identifier: Apache-2.0
//! The text of a key: `msb_` and a JSON web token signed with HS256.
//!
//! There is one algorithm and one form, so what a token says about itself is compared and never followed. The signature
//! comes first: nothing that a stranger wrote is parsed.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::calls::Scope;
use protocol::limits::KEY_BYTES_MAX;
use protocol::names::{NameError, NamespaceName};
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// What every key begins with.
const PREFIX: &str = "msb_";

/// What a key is called in lists and logs; it is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) u64);

/// What a key says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claims {
    pub(crate) id: KeyId,
    pub(crate) scope: Scope,
    /// Unix seconds.
    pub(crate) made: i64,
    /// Unix seconds.
    pub(crate) expires: i64,
}

/// Why a text is no key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// It does not even look like one.
    Unlike,
    /// It looks like one, and is not.
    Broken,
}

/// The members are named as the standard names them. What is not known could narrow the key's rights: it is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    exp: i64,
    iat: i64,
    namespace: &'a str,
    jti: &'a str,
}

const HEADER: Header<'static> = Header { typ: "JWT", alg: "HS256" };

/// Writes the text of a key.
pub(crate) fn write(claims: &Claims, secret: &Secret) -> String {
    let (id, namespace) = (claims.id.to_string(), scope_text(&claims.scope));
    let payload = Payload { exp: claims.expires, iat: claims.made, namespace, jti: &id };
    let signed = format!("{}.{}", part(&HEADER), part(&payload));
    let signature = URL_SAFE_NO_PAD.encode(secret.sign(signed.as_bytes()));
    format!("{PREFIX}{signed}.{signature}")
}

/// Reads the text of a key, and checks its signature; whether it is still good is for others to say.
pub(crate) fn read(text: &str, secret: &Secret) -> Result<Claims, NoToken> {
    let token = text.strip_prefix(PREFIX).ok_or(NoToken::Unlike)?;
    if text.len() > KEY_BYTES_MAX {
        return Err(NoToken::Broken);
    }
    claims(token, secret).ok_or(NoToken::Broken)
}

fn claims(token: &str, secret: &Secret) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    if !secret.signed(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?) {
        return None;
    }
    let (header, payload) = signed.split_once('.')?;
    let (header, payload) = (object(header)?, object(payload)?);
    let header: Header<'_> = serde_json::from_slice(&header).ok()?;
    if (header.typ, header.alg) != (HEADER.typ, HEADER.alg) {
        return None;
    }
    let payload: Payload<'_> = serde_json::from_slice(&payload).ok()?;
    Some(Claims {
        id: payload.jti.parse().ok()?,
        scope: scope(payload.namespace).ok()?,
        made: payload.iat,
        expires: payload.exp,
    })
}

/// Decodes a part that is a JSON object; a list of the same values would be read as well.
fn object(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| bytes.trim_ascii_start().starts_with(b"{"))
}

fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("texts and numbers are JSON"))
}

/// Reads the namespaces that a key is for: one, or `*` for all.
///
/// # Errors
/// [`NameError`], when it is neither.
pub fn scope(text: &str) -> Result<Scope, NameError> {
    match text {
        "*" => Ok(Scope::All),
        name => NamespaceName::parse(name).map(Scope::One),
    }
}

/// Returns a scope as it is typed.
pub fn scope_text(scope: &Scope) -> &str {
    match scope {
        Scope::All => "*",
        Scope::One(namespace) => namespace.as_str(),
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why a text is no id of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key has 16 of the characters 0 to 9 and a to f")]
pub struct NoKeyId;

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<KeyId, NoKeyId> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(digits) {
            return Err(NoKeyId);
        }
        u64::from_str_radix(text, 16).map(KeyId).map_err(|_| NoKeyId)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

    fn example() -> Claims {
        Claims {
            id: KeyId(0xfeed),
            scope: scope("team").unwrap(),
            made: 1_700_000_000,
            expires: 1_700_086_400,
        }
    }

    /// Signs any header and payload with the right secret.
    fn signed(header: &str, payload: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(Secret::new(SECRET).sign(text.as_bytes()));
        format!("msb_{text}.{signature}")
    }

    fn check(text: &str) -> Result<Claims, NoToken> {
        read(text, &Secret::new(SECRET))
    }

    const GOOD_HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
    const GOOD_PAYLOAD: &str =
        r#"{"exp":1700086400,"iat":1700000000,"namespace":"team","jti":"000000000000feed"}"#;

    #[test]
    fn a_key_is_the_documented_text_and_is_read_back() {
        let text = write(&example(), &Secret::new(SECRET));
        assert_eq!(text, signed(GOOD_HEADER, GOOD_PAYLOAD));
        assert_eq!(check(&text), Ok(example()));
        let all = Claims { scope: Scope::All, ..example() };
        assert_eq!(check(&write(&all, &Secret::new(SECRET))), Ok(all));
    }

    #[test]
    fn a_signature_of_the_standards_example_is_right() {
        // RFC 4231, test case 2.
        let signature = Secret::new(b"Jefe").sign(b"what do ya want for nothing?");
        let text: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn the_order_of_members_is_free_and_nothing_else() {
        assert!(check(&signed(r#"{ "alg":"HS256", "typ":"JWT" }"#, GOOD_PAYLOAD)).is_ok());
        let reordered = r#"{"jti":"000000000000feed","namespace":"team","iat":1700000000,"exp":1700086400}"#;
        assert_eq!(check(&signed(GOOD_HEADER, reordered)), Ok(example()));
        for header in [
            r#"{"typ":"JWT","alg":"none"}"#,
            r#"{"typ":"JWT","alg":"hs256"}"#,
            r#"{"typ":"JWT","alg":"HS512"}"#,
            r#"{"typ":"JWT","alg":"RS256"}"#,
            r#"{"typ":"JWS","alg":"HS256"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"typ":"JWT","alg":"HS256","crit":["exp"]}"#,
            r#"{"typ":"JWT","alg":"none","alg":"HS256"}"#,
            r#"{"typ":"JWT","alg":["HS256"]}"#,
            r#"["JWT","HS256"]"#,
            "",
            "null",
            "{",
        ] {
            assert_eq!(check(&signed(header, GOOD_PAYLOAD)), Err(NoToken::Broken), "{header}");
        }
        for payload in [
            r#"{"iat":1,"namespace":"team","jti":"000000000000feed"}"#,
            r#"{"exp":1,"namespace":"team","jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"team"}"#,
            r#"{"exp":1.5,"iat":1,"namespace":"team","jti":"000000000000feed"}"#,
            r#"{"exp":1e30,"iat":1,"namespace":"team","jti":"000000000000feed"}"#,
            r#"{"exp":"1","iat":1,"namespace":"team","jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"-","jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"","jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":null,"jti":"000000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"team","jti":"feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"team","jti":"+00000000000feed"}"#,
            r#"{"exp":1,"iat":1,"namespace":"team","jti":"000000000000feed","nbf":9}"#,
            r#"{"exp":1,"exp":2,"iat":1,"namespace":"team","jti":"000000000000feed"}"#,
            "[1,1,\"team\",\"000000000000feed\"] ",
            "[]",
            "",
        ] {
            assert_eq!(check(&signed(GOOD_HEADER, payload)), Err(NoToken::Broken), "{payload}");
        }
    }

    #[test]
    fn every_character_counts() {
        let good = signed(GOOD_HEADER, GOOD_PAYLOAD);
        for (place, found) in good.char_indices() {
            for other in ['A', 'B', '.', '=', '-', '*', 'é'] {
                if other == found {
                    continue;
                }
                let mut text = good.clone();
                text.replace_range(place..=place, &other.to_string());
                let expected = if place < PREFIX.len() { NoToken::Unlike } else { NoToken::Broken };
                assert_eq!(check(&text), Err(expected), "{place}: {other}");
            }
        }
        for cut in PREFIX.len()..good.len() {
            assert_eq!(check(&good[..cut]), Err(NoToken::Broken), "{cut}");
        }
        for more in ["A", "=", ".", " ", "\n", ".x"] {
            assert_eq!(check(&format!("{good}{more}")), Err(NoToken::Broken), "{more:?}");
        }
        assert_eq!(read(&good, &Secret::new(b"another")), Err(NoToken::Broken));
    }

    #[test]
    fn what_is_no_key_is_told_apart_from_a_bad_one() {
        for unlike in ["", "msb", "nonsense", "MSB_a.b.c", " msb_a.b.c", &"x".repeat(10_000)] {
            assert_eq!(check(unlike), Err(NoToken::Unlike), "{unlike}");
        }
        for broken in
            ["msb_", "msb_.", "msb_..", "msb_...", "msb_a.b.c", &format!("msb_{}", "x".repeat(10_000))]
        {
            assert_eq!(check(broken), Err(NoToken::Broken), "{broken}");
        }
    }

    #[test]
    fn the_longest_key_is_read_and_a_longer_text_is_not_even_decoded() {
        let claims = Claims {
            id: KeyId(u64::MAX),
            scope: scope(&"n".repeat(63)).unwrap(),
            made: i64::MIN,
            expires: i64::MAX,
        };
        let text = write(&claims, &Secret::new(SECRET));
        assert!(text.len() < KEY_BYTES_MAX, "{}", text.len());
        assert_eq!(check(&text), Ok(claims));
        let padded = format!("{GOOD_PAYLOAD}{}", " ".repeat(KEY_BYTES_MAX));
        assert_eq!(check(&signed(GOOD_HEADER, &padded)), Err(NoToken::Broken));
    }

    #[test]
    fn ids_are_sixteen_small_hexadecimal_digits() {
        assert_eq!(KeyId(255).to_string(), "00000000000000ff");
        assert_eq!("00000000000000ff".parse(), Ok(KeyId(255)));
        for wrong in ["", "ff", "00000000000000FF", "00000000000000f ", "00000000000000fff", "éééééééé"]
        {
            assert_eq!(wrong.parse::<KeyId>(), Err(NoKeyId), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_pass(text in "(msb_)?[A-Za-z0-9_.\\-]{0,80}|\\PC{0,60}") {
            prop_assert!(check(&text).is_err());
        }

        #[test]
        fn nothing_that_is_signed_makes_it_panic(header in "\\PC{0,40}", payload in "\\PC{0,60}") {
            prop_assert_eq!(check(&signed(&header, &payload)), Err(NoToken::Broken));
        }
    }
}
