// SPDX-License-Identifier: Apache-2.0
//! Digests as names of files, and of bytes that pass by.

use std::fmt::Write;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

use super::StoreError;

/// Returns the digits of a digest that may be a file's name.
pub(super) fn hex(digest: &Digest) -> Result<&str, StoreError> {
    let digits = digest.digest();
    if *digest.algorithm() == DigestAlgorithm::Sha256 && is_name(digits) {
        Ok(digits)
    } else {
        let shown: String = digest.as_ref().chars().take(100).collect();
        Err(StoreError::Digest(shown))
    }
}

/// Says whether a text is 64 hexadecimal digits, small ones.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the digest whose digits are known to be right.
pub(crate) fn from_hex(digits: &str) -> Digest {
    debug_assert!(is_name(digits));
    format!("sha256:{digits}").parse().expect("64 small hexadecimal digits are a digest")
}

/// Hashes bytes that pass by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digits, and begins anew.
    pub(crate) fn finish(&mut self) -> String {
        let mut digits = String::with_capacity(64);
        for byte in self.0.finalize_reset() {
            write!(digits, "{byte:02x}").expect("a string takes all that is written");
        }
        digits
    }
}

/// Returns the digest of bytes.
pub(crate) fn of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    from_hex(&hasher.finish())
}
