// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: what strangers send to the two parsers that meet it first.
//!
//! `cargo test` runs each for a fixed number of inputs, made from the corpus in `corpus/` by random edits. `cargo bolero`
//! (a subcommand of cargo) runs the same targets for as long as one likes, led by coverage:
//! `cargo bolero test -p server fuzz::an_envelope_of_any_bytes`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bolero::check;
use corpus::Mutant;
use protocol::calls::Scope;
use protocol::limits::BATCH_CALLS_MAX;
use protocol::names::NamespaceName;

use crate::caller::Caller;
use crate::envelope::{self, Asked, Request};
use crate::keys::fuzzed::{Secret, read, write};

/// How many inputs each target gets in a test.
const INPUTS: usize = 10_000;
/// Longest text of an error, whatever it is about, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

fn scoped() -> (Caller, Scope) {
    let scope = Scope::One(NamespaceName::parse("team").unwrap());
    (Caller::with_key("k", scope.clone()), scope)
}

/// Says whether there was a call.
fn envelope_keeps_its_promises(bytes: &[u8]) -> bool {
    let (caller, scope) = scoped();
    let asked = match envelope::read(&caller, bytes) {
        Ok(Request::Single(asked)) => vec![*asked],
        Ok(Request::Batch(asked)) => {
            assert!((1..=BATCH_CALLS_MAX).contains(&asked.len()));
            asked
        }
        Err(error) => {
            assert!(error.message.len() <= ERROR_BYTES_MAX, "{error:?}");
            return false;
        }
    };
    let mut calls = 0;
    let text = std::str::from_utf8(bytes).expect("what was read is text");
    for Asked { id, call } in asked {
        let id = id.map(|id| id.get().to_owned()).filter(|id| id != "null");
        assert!(id.is_none_or(|id| text.contains(&id)), "an id that nobody sent");
        match call {
            Ok(call) => {
                let about = call.scope();
                assert!(about.is_none_or(|about| about == scope), "a call beyond the key's namespace");
                calls += 1;
            }
            Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error:?}"),
        }
    }
    calls > 0
}

/// Says whether there was a key.
fn key_keeps_its_promises(bytes: &[u8]) -> bool {
    let secret = Secret::new(b"0123456789abcdefghijklmnopqrstuv");
    let text = String::from_utf8_lossy(bytes);
    // As a stranger's text: nobody guesses a signature.
    assert!(read(&text, &secret).is_err());
    assert!(read(&format!("msb_{text}"), &secret).is_err());
    // As something that was signed with the secret, so that the parser behind the signature is met too.
    let parts = text.split_inclusive("}.").map(|part| part.strip_suffix('.').unwrap_or(part));
    let signed = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).collect::<Vec<String>>().join(".");
    let signature = URL_SAFE_NO_PAD.encode(secret.sign(signed.as_bytes()));
    let Ok(claims) = read(&format!("msb_{signed}.{signature}"), &secret) else { return false };
    assert_eq!(read(&write(&claims, &secret), &secret), Ok(claims), "what was read can be written");
    true
}

#[test]
fn an_envelope_of_any_bytes() {
    let corpus = corpus::read(env!("CARGO_MANIFEST_DIR"), "envelope");
    assert!(corpus.iter().any(|bytes| envelope_keeps_its_promises(bytes)), "the corpus has one that is good");
    check!().with_type::<Mutant>().with_iterations(INPUTS).for_each(|mutant| {
        envelope_keeps_its_promises(&mutant.of(&corpus));
    });
}

#[test]
fn a_key_of_any_bytes() {
    let corpus = corpus::read(env!("CARGO_MANIFEST_DIR"), "key");
    assert!(corpus.iter().any(|bytes| key_keeps_its_promises(bytes)), "the corpus has one that is good");
    check!().with_type::<Mutant>().with_iterations(INPUTS).for_each(|mutant| {
        key_keeps_its_promises(&mutant.of(&corpus));
    });
}
