// SPDX-License-Identifier: Apache-2.0
//! The one secret of a server: what its keys are signed with, in `<home>/server.key`.
//!
//! It is never printed, never on a command line, and has no `Debug`. The file is made once, by whichever process needs it
//! first.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{Mode, OFlags};
use sha2::Sha256;

use crate::home::make_once;

const NAME: &str = "server.key";
const CHARS: usize = 32;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why there is no secret to work with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be made or read.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others may have read or changed it.
    #[error("{0} may have been read or changed by other users (its mode is {1:o}, its owner {2})")]
    NotPrivate(PathBuf, u32, u32),
    /// It is something else than what this program writes there.
    #[error("{0} does not hold a secret of {CHARS} letters and digits")]
    Content(PathBuf),
}

/// The secret, ready to sign.
pub(crate) struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads the secret of a private home; makes it if there is none.
    pub(crate) fn open(home: &Path) -> Result<Secret, SecretError> {
        let path = home.join(NAME);
        let failed = |source| SecretError::Io { path: path.clone(), source };
        make_once(home, NAME, |path| fs_err::write(path, generate()?)).map_err(failed)?;
        // Without waiting, should it be a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SecretError::Content(path));
        }
        let ours = metadata.uid() == rustix::process::geteuid().as_raw()
            || metadata.uid() == fs_err::metadata(home).map_err(failed)?.uid();
        if metadata.mode() & 0o077 != 0 || !ours {
            return Err(SecretError::NotPrivate(path, metadata.mode() & 0o7777, metadata.uid()));
        }
        let mut text = Vec::with_capacity(CHARS + 1);
        file.take(CHARS as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() != CHARS || !text.iter().all(u8::is_ascii_alphanumeric) {
            return Err(SecretError::Content(path));
        }
        Ok(Secret::new(&text))
    }

    pub(crate) fn new(text: &[u8]) -> Secret {
        Secret(Hmac::new_from_slice(text).expect("any length will do for HMAC"))
    }

    /// Signs a text with HMAC and SHA-256.
    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(text).finalize().into_bytes().into()
    }

    /// Says whether a signature is ours, in a time that does not depend on how much of it is right.
    pub(crate) fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        self.0.clone().chain_update(text).verify_slice(signature).is_ok()
    }
}

/// Draws letters and digits, each as likely as the other.
fn generate() -> io::Result<[u8; CHARS]> {
    let mut text = [0; CHARS];
    let mut drawn = [0; 64];
    let mut filled = 0;
    while filled < CHARS {
        getrandom::fill(&mut drawn)?;
        // Beyond the last whole round the first characters would come more often.
        let rounds = drawn.iter().filter(|byte| **byte < 248);
        for (place, byte) in text[filled..].iter_mut().zip(rounds) {
            *place = ALPHABET[usize::from(byte % 62)];
            filled += 1;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn it_is_made_once_private_and_of_letters_and_digits() {
        let home = tempfile::tempdir().unwrap();
        let first = Secret::open(home.path()).unwrap();
        let path = home.path().join(NAME);
        let text = fs_err::read_to_string(&path).unwrap();
        assert!(text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = Secret::open(home.path()).unwrap();
        assert!(again.signed(b"text", &first.sign(b"text")));
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(!Secret::open(elsewhere.path()).unwrap().signed(b"text", &first.sign(b"text")));
    }

    #[test]
    fn those_who_make_it_at_the_same_time_agree() {
        let home = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(16);
        let signatures: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let make = || {
                start.wait();
                Secret::open(home.path()).unwrap().sign(b"text")
            };
            let makers: Vec<_> = (0..16).map(|_| scope.spawn(make)).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(signatures.iter().all(|signature| *signature == signatures[0]));
        assert_eq!(home.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_others_reach_is_refused_and_so_is_what_is_no_secret() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        Secret::open(home.path()).unwrap();
        for mode in [0o644, 0o620, 0o601] {
            chmod(&path, mode);
            assert!(
                matches!(Secret::open(home.path()), Err(SecretError::NotPrivate(_, found, _)) if found == mode)
            );
        }
        chmod(&path, 0o600);
        assert!(Secret::open(home.path()).is_ok());
        for wrong in ["", "short", &"x".repeat(33), &format!("{}\n", "x".repeat(32)), &"-".repeat(32)] {
            fs_err::write(&path, wrong).unwrap();
            assert!(matches!(Secret::open(home.path()), Err(SecretError::Content(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_link_a_pipe_or_a_directory_in_its_place_is_refused() {
        let other = tempfile::tempdir().unwrap();
        Secret::open(other.path()).unwrap();
        let refused = |put: &dyn Fn(&Path)| {
            let home = tempfile::tempdir().unwrap();
            put(&home.path().join(NAME));
            assert!(Secret::open(home.path()).is_err());
        };
        refused(&|path| std::os::unix::fs::symlink(other.path().join(NAME), path).unwrap());
        refused(&|path| std::os::unix::fs::symlink("nowhere", path).unwrap());
        refused(&|path| fs_err::create_dir(path).unwrap());
        refused(&|path| {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        });
    }
}
