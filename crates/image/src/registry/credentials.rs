// SPDX-License-Identifier: Apache-2.0
//! Who may pull what: our own file of logins, and Docker's.
//!
//! ```text
//! <home>/registry.json        {"registries": {"registry.example:5000": {"username": "..", "password": ".."}}}, 0600
//! <home>/registry.json.lock   held by whoever changes it
//! ```
//!
//! Our file is replaced as a whole by a rename, so a reader sees the old one or the new one. Docker's `config.json` is
//! only read: names and passwords, and identity tokens, that stand in it. The programs it may name (credential helpers)
//! are not run; where one would be needed, the error says so. A login in our file comes before one in Docker's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};
use protocol::limits::CREDENTIALS_BYTES_MAX;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::reference::parse_registry;

const FILE: &str = "registry.json";
const LOCK: &str = "registry.json.lock";
const MODE: u32 = 0o600;
/// What Docker writes for a name when the password is an identity token.
const IDENTITY_USERNAME: &str = "<token>";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// What proves to a registry who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A name and a password, or an access token in its place.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that the token server of the registry exchanges for others.
    Identity(Secret),
}

/// Why logins cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The disk says no.
    #[error("cannot use the file of registry logins")]
    Io(#[from] io::Error),
    /// Others may read it.
    #[error("others than its owner may read {path}, which has passwords in it; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: String,
    },
    /// It is not what was written.
    #[error("cannot read {path}: {reason}; correct it, or remove it and log in again")]
    Malformed {
        /// The file.
        path: String,
        /// Where it is wrong, without its content.
        reason: String,
    },
    /// There is no such registry, or no such login.
    #[error("no login for `{registry}`: write the registry as host or host:port, as in image references")]
    NoSuchRegistry {
        /// What was named.
        registry: String,
    },
}

/// What is known of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    Login(&'a Login),
    /// Docker would run this helper.
    Helper(&'a str),
    Nothing,
}

/// Logins by registry.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
    /// The registries whose logins are in our own file.
    kept: BTreeSet<String>,
    helpers: BTreeMap<String, String>,
    helper_of_all: Option<String>,
}

/// Our file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    registries: BTreeMap<String, OwnLogin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnLogin {
    username: String,
    password: Secret,
}

/// What matters of Docker's file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Docker {
    auths: BTreeMap<String, DockerLogin>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerLogin {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

impl Credentials {
    /// Reads our logins below `home`, and Docker's where its `config.json` is given; files that are not there are empty.
    ///
    /// # Errors
    /// When a file cannot be read, or others may read ours.
    pub fn load(home: &Path, docker_config: Option<&Path>) -> Result<Credentials, CredentialsError> {
        let mut credentials = match docker_config {
            Some(path) => Credentials::of_docker(path)?,
            None => Credentials::default(),
        };
        for (registry, login) in read_own(home)?.registries {
            credentials.kept.insert(key(&registry));
            credentials
                .add(&registry, Login::Password { username: login.username, password: login.password });
        }
        Ok(credentials)
    }

    /// Adds a login for this process alone.
    pub fn add(&mut self, registry: &str, login: Login) {
        let registry = key(registry);
        self.helpers.remove(&registry);
        self.logins.insert(registry, login);
    }

    /// Returns the registries that there are logins for.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.logins.keys().map(String::as_str)
    }

    /// Says whether our own file has a login for a registry.
    pub(super) fn keeps(&self, registry: &str) -> bool {
        self.kept.contains(registry)
    }

    pub(super) fn find(&self, registry: &str) -> Known<'_> {
        if let Some(login) = self.logins.get(registry) {
            return Known::Login(login);
        }
        let helper = self.helpers.get(registry).or(self.helper_of_all.as_ref());
        helper.map_or(Known::Nothing, |helper| Known::Helper(helper))
    }

    fn of_docker(path: &Path) -> Result<Credentials, CredentialsError> {
        let Some(text) = read_bounded(path)? else { return Ok(Credentials::default()) };
        let docker: Docker = serde_json::from_slice(&text).map_err(|error| malformed(path, &error))?;
        let mut credentials = Credentials { helper_of_all: docker.creds_store, ..Credentials::default() };
        for (registry, login) in docker.auths {
            let reason = || format!("the login for `{}` is not base64 of name:password", key(&registry));
            if let Some(login) = login.read().map_err(|()| CredentialsError::Malformed {
                path: path.display().to_string(),
                reason: reason(),
            })? {
                credentials.logins.insert(key(&registry), login);
            }
        }
        for (registry, helper) in docker.cred_helpers {
            credentials.helpers.insert(key(&registry), helper);
        }
        Ok(credentials)
    }
}

impl DockerLogin {
    fn read(self) -> Result<Option<Login>, ()> {
        if let Some(token) = self.identitytoken.filter(|token| !token.0.is_empty()) {
            return Ok(Some(Login::Identity(token)));
        }
        let (username, password) =
            match (self.auth.filter(|auth| !auth.0.is_empty()), self.username, self.password) {
                (Some(auth), _, _) => {
                    let text = STANDARD.decode(auth.reveal().trim()).map_err(|_| ())?;
                    let text = String::from_utf8(text).map_err(|_| ())?;
                    let (username, password) = text.split_once(':').ok_or(())?;
                    // Docker pads what it writes with NULs.
                    (username.to_owned(), Secret::new(password.trim_end_matches('\0')))
                }
                (None, Some(username), Some(password)) => (username, password),
                (None, _, _) => return Ok(None),
            };
        Ok(Some(match username.as_str() {
            IDENTITY_USERNAME => Login::Identity(password),
            _ => Login::Password { username, password },
        }))
    }
}

/// Keeps a login in our file below `home`.
///
/// # Errors
/// When the registry is none, or the file cannot be read or written.
pub fn save_login(
    home: &Path,
    registry: &str,
    username: &str,
    password: Secret,
) -> Result<(), CredentialsError> {
    let registry = parse_registry(registry)
        .map_err(|_| CredentialsError::NoSuchRegistry { registry: crate::reference::quote(registry) })?;
    fs_err::create_dir_all(home)?;
    let _lock = lock(home)?;
    let mut own = read_own(home)?;
    own.registries.insert(registry, OwnLogin { username: username.to_owned(), password });
    write_own(home, &own)
}

/// Removes a login from our file below `home`.
///
/// # Errors
/// When there is none, or the file cannot be read or written.
pub fn remove_login(home: &Path, registry: &str) -> Result<(), CredentialsError> {
    let no_such = || CredentialsError::NoSuchRegistry { registry: crate::reference::quote(registry) };
    if !home.join(FILE).exists() {
        return Err(no_such());
    }
    let _lock = lock(home)?;
    let mut own = read_own(home)?;
    own.registries.remove(&key(registry)).ok_or_else(no_such)?;
    write_own(home, &own)
}

/// Returns the registry that a key of a file means: Docker writes some as addresses.
fn key(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.split('/').next().unwrap_or(bare);
    parse_registry(bare).unwrap_or_else(|_| bare.to_owned())
}

fn read_own(home: &Path) -> Result<Own, CredentialsError> {
    let path = home.join(FILE);
    let Some(text) = read_bounded(&path)? else { return Ok(Own::default()) };
    if fs_err::metadata(&path)?.permissions().mode() & 0o077 != 0 {
        return Err(CredentialsError::Exposed { path: path.display().to_string() });
    }
    serde_json::from_slice(&text).map_err(|error| malformed(&path, &error))
}

/// Says where a file is wrong, and nothing of what is in it.
fn malformed(path: &Path, error: &serde_json::Error) -> CredentialsError {
    let reason = format!("it is not as expected at line {}, column {}", error.line(), error.column());
    CredentialsError::Malformed { path: path.display().to_string(), reason }
}

/// Reads a file, if it is there.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    file.take(CREDENTIALS_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > CREDENTIALS_BYTES_MAX {
        let reason = format!("it has more than {CREDENTIALS_BYTES_MAX} bytes");
        return Err(CredentialsError::Malformed { path: path.display().to_string(), reason });
    }
    Ok(Some(text))
}

/// Keeps other writers out while the result lives.
fn lock(home: &Path) -> Result<File, CredentialsError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(MODE);
    let file = options.open(home.join(LOCK))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from)?;
    Ok(file)
}

/// Replaces our file; whoever calls holds the lock.
fn write_own(home: &Path, own: &Own) -> Result<(), CredentialsError> {
    let fresh: PathBuf = home.join(format!("{FILE}.new"));
    // What a killed writer left behind.
    match fs_err::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(&fresh)?;
    let mut text = serde_json::to_vec_pretty(own).expect("a map of texts is always JSON");
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    fs_err::rename(&fresh, home.join(FILE))?;
    File::open(home)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Login {
        Login::Password { username: username.into(), password: Secret::new(password) }
    }

    #[test]
    fn logins_are_kept_for_their_owner_alone_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let home = &home.path().join("home");
        save_login(home, "Registry.Example:5000", "ann", Secret::new("s3cret")).unwrap();
        save_login(home, "docker.io", "bob", Secret::new("other")).unwrap();
        let mode = fs_err::metadata(home.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let credentials = Credentials::load(home, None).unwrap();
        assert_eq!(credentials.find("registry.example:5000"), Known::Login(&password("ann", "s3cret")));
        assert_eq!(credentials.find("registry.example"), Known::Nothing, "another port is another registry");
        let shown = format!("{credentials:?}");
        assert!(shown.contains("ann") && !shown.contains("s3cret"), "{shown}");
        remove_login(home, "registry.example:5000").unwrap();
        assert_eq!(Credentials::load(home, None).unwrap().registries().collect::<Vec<_>>(), ["docker.io"]);
        assert!(matches!(
            remove_login(home, "registry.example:5000"),
            Err(CredentialsError::NoSuchRegistry { .. })
        ));
        assert!(save_login(home, "https://x/", "a", Secret::new("b")).is_err());
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let home = home.path();
                scope.spawn(move || {
                    save_login(home, &format!("r{writer}.example"), "u", Secret::new("p")).unwrap()
                });
            }
        });
        assert_eq!(Credentials::load(home.path(), None).unwrap().registries().count(), 8);
    }

    #[test]
    fn a_file_that_others_can_read_or_nobody_understands_is_refused_without_its_content() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE);
        save_login(home.path(), "r.example", "ann", Secret::new("s3cret")).unwrap();
        fs_err::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let error = Credentials::load(home.path(), None).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        for text in
            [r#"{"registries": {"r.example": "s3cret"}}"#, "s3cret", r#"{"registries": {}, "s3cret": 1}"#]
        {
            fs_err::write(&file, text).unwrap();
            fs_err::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            let error = format!("{:?}", Credentials::load(home.path(), None).unwrap_err());
            assert!(error.contains("line 1") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_docker_knows_is_known() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join("config.json");
        let basic = STANDARD.encode("ann:pa:ss");
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{basic}"}}, "helped.example": {{}},
                 "r.example:5000": {{"username": "bob", "password": "pw"}}, "http://old.example/v2/": {{"auth": "{basic}"}},
                 "id.example": {{"auth": "{}", "identitytoken": "tok"}}}},
                "credHelpers": {{"gcr.example": "gcloud"}}, "psFormat": "x"}}"#,
            STANDARD.encode("<token>:")
        );
        fs_err::write(&docker, text).unwrap();
        let credentials = Credentials::load(home.path(), Some(&docker)).unwrap();
        assert_eq!(credentials.find("docker.io"), Known::Login(&password("ann", "pa:ss")));
        assert_eq!(credentials.find("old.example"), Known::Login(&password("ann", "pa:ss")));
        assert_eq!(credentials.find("r.example:5000"), Known::Login(&password("bob", "pw")));
        assert_eq!(credentials.find("id.example"), Known::Login(&Login::Identity(Secret::new("tok"))));
        assert_eq!(credentials.find("gcr.example"), Known::Helper("gcloud"));
        assert_eq!(credentials.find("helped.example"), Known::Nothing);
        save_login(home.path(), "gcr.example", "me", Secret::new("mine")).unwrap();
        let credentials = Credentials::load(home.path(), Some(&docker)).unwrap();
        assert_eq!(
            credentials.find("gcr.example"),
            Known::Login(&password("me", "mine")),
            "ours comes first"
        );
    }

    #[test]
    fn a_store_of_dockers_is_named_and_a_broken_file_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join("config.json");
        fs_err::write(&docker, r#"{"auths": {"r.example": {}}, "credsStore": "desktop"}"#).unwrap();
        let credentials = Credentials::load(home.path(), Some(&docker)).unwrap();
        assert_eq!(credentials.find("r.example"), Known::Helper("desktop"));
        fs_err::write(&docker, r#"{"auths": {"r.example": {"auth": "s3cret!"}}}"#).unwrap();
        let error = Credentials::load(home.path(), Some(&docker)).unwrap_err().to_string();
        assert!(error.contains("r.example") && !error.contains("s3cret"), "{error}");
        assert!(Credentials::load(home.path(), Some(&home.path().join("none.json"))).is_ok());
    }
}
