// SPDX-License-Identifier: Apache-2.0
//! Who asks: nobody, a name and a password, or a token from the server that the registry names.
//!
//! Nothing is proved before the registry asks for it. Then, as its challenge says, credentials go to the registry itself
//! (basic), or to its token server, whose token goes to the registry (bearer). A registry could name anybody as its token
//! server, so credentials go only to its own host, a domain above it, the hub's known one, or a host that the operator
//! trusts; anybody may ask any allowed server for a token without credentials. Tokens are kept by registry and
//! repository, and mirrors are registries of their own: what is known for one is never sent to another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::limits::{TOKEN_ANSWER_BYTES_MAX, TOKEN_LIFE_DEFAULT, TOKEN_LIFE_MAX, TOKENS_MAX};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::time::Instant;
use url::{Host, Url, form_urlencoded};

use super::challenge::{self, Challenge};
use super::config::{RegistryConfig, authority};
use super::credentials::{Known, Login, Secret};
use super::error::{Failure, RegistryError};
use super::transport::{Answer, Hop, Transport, read_document, refused, secret_header, status_failure};
use crate::reference::HUB;

/// The hub's token server.
const HUB_TOKENS: &str = "auth.docker.io";

/// Keeps what registries were given.
pub(super) struct Auth {
    config: Arc<RegistryConfig>,
    kept: Mutex<HashMap<Purpose, Kept>>,
}

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    pub(super) registry: String,
    /// Nothing when it is for the registry as such.
    pub(super) repository: String,
}

struct Kept {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct Token {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(config: Arc<RegistryConfig>) -> Auth {
        Auth { config, kept: Mutex::default() }
    }

    /// Returns what the registry took the last time.
    pub(super) fn kept(&self, purpose: &Purpose) -> Option<HeaderValue> {
        let kept = self.lock();
        kept.get(purpose).filter(|kept| kept.until > Instant::now()).map(|kept| kept.header.clone())
    }

    /// Answers the challenge of a 401.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        answer: &Answer,
    ) -> Result<HeaderValue, Failure> {
        self.lock().remove(purpose);
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let texts = headers.iter().filter_map(|header| header.to_str().ok());
        let challenges: Vec<Challenge> = texts.flat_map(challenge::parse).collect();
        let (header, life) = if let Some(bearer) = challenges.iter().find(|challenge| challenge.is("bearer"))
        {
            self.token(transport, purpose, answer, bearer).await?
        } else if challenges.iter().any(|challenge| challenge.is("basic")) {
            (self.basic(purpose)?, TOKEN_LIFE_MAX)
        } else {
            let reason = "it asks for a kind of proof that is not known here; basic and bearer are";
            return Err(denied(purpose, reason.to_owned(), remedy_operator()).into());
        };
        let mut kept = self.lock();
        if kept.len() >= TOKENS_MAX {
            kept.clear();
        }
        kept.insert(purpose.clone(), Kept { header: header.clone(), until: Instant::now() + life });
        Ok(header)
    }

    /// Forgets what a registry did not take, and makes the error for that.
    pub(super) fn rejected(&self, purpose: &Purpose) -> RegistryError {
        self.lock().remove(purpose);
        let reason = match self.config.credentials.find(&purpose.registry) {
            Known::Login(_) => "it does not take the login that is known for it",
            Known::Helper(helper) => return self.helped(purpose, helper),
            Known::Nothing => "it wants a login, and none is known",
        };
        denied(purpose, reason.to_owned(), remedy(purpose))
    }

    fn basic(&self, purpose: &Purpose) -> Result<HeaderValue, RegistryError> {
        match self.config.credentials.find(&purpose.registry) {
            Known::Login(Login::Password { username, password }) => basic_header(username, password)
                .ok_or_else(|| {
                    denied(purpose, "the login has characters that HTTP has not".to_owned(), remedy(purpose))
                }),
            Known::Login(Login::Identity(_)) => {
                let reason =
                    "it asks for a name and a password, and only an identity token is known".to_owned();
                Err(denied(purpose, reason, remedy(purpose)))
            }
            Known::Helper(helper) => Err(self.helped(purpose, helper)),
            Known::Nothing => {
                Err(denied(purpose, "it asks for a login, and none is known".to_owned(), remedy(purpose)))
            }
        }
    }

    fn helped(&self, purpose: &Purpose, helper: &str) -> RegistryError {
        let helper = crate::reference::quote(helper);
        let reason = format!(
            "Docker's config.json has its login in the helper docker-credential-{helper}, and helpers are not run"
        );
        denied(purpose, reason, remedy(purpose))
    }

    /// Gets a token; returns the header that it makes and how long it is good for.
    async fn token(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        answer: &Answer,
        bearer: &Challenge,
    ) -> Result<(HeaderValue, Duration), Failure> {
        let registry = answer.response.url();
        let mut realm = self.realm(transport, registry, bearer)?;
        let login = match self.config.credentials.find(&purpose.registry) {
            Known::Login(login) => Some(login),
            Known::Helper(_) | Known::Nothing => None,
        };
        if login.is_some() && !self.may_know(purpose, registry, &realm) {
            let to = authority(&realm);
            let allowed = format!(
                "credentials for a registry go to its own host or a domain above it; if {to} is its token server, the \
                 operator names it: --trusted-registry {to}"
            );
            return Err(refused("a token server", registry, format!("{to} is another host"), allowed).into());
        }
        let pairs = self.question(purpose, bearer);
        let reach = transport.reach_of(&realm, answer.place);
        let mut headers = HeaderMap::new();
        let mut form = None;
        match login {
            Some(Login::Identity(token)) => form = Some(exchange(&pairs, token)),
            Some(Login::Password { username, password }) => {
                realm.query_pairs_mut().extend_pairs(&pairs);
                let header = basic_header(username, password);
                headers.extend(header.map(|header| (AUTHORIZATION, header)));
            }
            None => _ = realm.query_pairs_mut().extend_pairs(&pairs),
        }
        self.fetch_token(transport, purpose, &Hop { url: realm, reach, headers, form }).await
    }

    async fn fetch_token(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        hop: &Hop,
    ) -> Result<(HeaderValue, Duration), Failure> {
        let (mut response, _) = transport.send(hop).await?;
        let host = authority(&hop.url);
        let status = response.status().as_u16();
        match status {
            200 => {}
            400 | 401 | 403 => {
                let reason = format!("its token server {host} answered with status {status}");
                return Err(match self.config.credentials.find(&purpose.registry) {
                    Known::Helper(helper) => self.helped(purpose, helper).into(),
                    Known::Login(_) | Known::Nothing => denied(purpose, reason, remedy(purpose)).into(),
                });
            }
            _ => {
                return Err(status_failure(
                    host,
                    "the question for a token".to_owned(),
                    status,
                    response.headers(),
                ));
            }
        }
        let wait = self.config.world.document_wait;
        let bytes = read_document(&mut response, TOKEN_ANSWER_BYTES_MAX, wait).await?.unwrap_or_default();
        let no_token = || {
            let reason =
                format!("its token server {host} sent no token of at most {TOKEN_ANSWER_BYTES_MAX} bytes");
            denied(purpose, reason, remedy_operator())
        };
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| no_token())?;
        let life = token.expires_in.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs).min(TOKEN_LIFE_MAX);
        let text = token
            .token
            .or(token.access_token)
            .filter(|text| !text.reveal().is_empty())
            .ok_or_else(no_token)?;
        let header = secret_header(&format!("Bearer {}", text.reveal())).ok_or_else(no_token)?;
        // A little less than it says, so that it does not end on its way.
        Ok((header, life.mul_f32(0.9)))
    }

    /// Returns the address of the token server, if it may be asked at all.
    fn realm(&self, transport: &Transport, registry: &Url, bearer: &Challenge) -> Result<Url, RegistryError> {
        let realm = bearer.value("realm").and_then(|realm| Url::parse(realm).ok()).filter(Url::has_host);
        let Some(realm) = realm else {
            let allowed =
                "a token server is named by a full address; ask whoever runs the registry".to_owned();
            return Err(refused("a token server", registry, "it has no address".to_owned(), allowed));
        };
        transport.check_target("a token server", registry, &realm)?;
        Ok(realm)
    }

    /// Says whether the credentials for a registry may be sent to what it calls its token server.
    fn may_know(&self, purpose: &Purpose, registry: &Url, realm: &Url) -> bool {
        let (Some(Host::Domain(name)), Some(Host::Domain(tokens))) = (registry.host(), realm.host()) else {
            return registry.host() == realm.host() || self.config.is_trusted(realm);
        };
        let is_above =
            tokens.contains('.') && name.strip_suffix(tokens).is_some_and(|rest| rest.ends_with('.'));
        let is_hubs = purpose.registry == HUB && tokens == HUB_TOKENS;
        name == tokens || is_above || is_hubs || self.config.is_trusted(realm)
    }

    fn question(&self, purpose: &Purpose, bearer: &Challenge) -> Vec<(&'static str, String)> {
        // Registries behind a path have another name for a repository than we; more than to pull is never asked for.
        let is_to_pull = |scope: &&str| {
            scope.starts_with("repository:") && scope.ends_with(":pull") && !scope.contains(' ')
        };
        let own = Some(&purpose.repository).filter(|repository| !repository.is_empty());
        let own = own.map(|repository| format!("repository:{repository}:pull"));
        let scope = bearer.value("scope").filter(is_to_pull).map(str::to_owned).or(own);
        let service = bearer.value("service").map(|service| ("service", service.to_owned()));
        service.into_iter().chain(scope.map(|scope| ("scope", scope))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Purpose, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the form that exchanges an identity token.
fn exchange(pairs: &[(&'static str, String)], token: &Secret) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("client_id", "microsandbox");
    form.append_pair("refresh_token", token.reveal()).extend_pairs(pairs);
    form.finish()
}

fn basic_header(username: &str, password: &Secret) -> Option<HeaderValue> {
    secret_header(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
}

fn denied(purpose: &Purpose, reason: String, remedy: String) -> RegistryError {
    let what = purpose.repository.clone();
    RegistryError::Denied { host: purpose.registry.clone(), what, reason, remedy }
}

fn remedy(purpose: &Purpose) -> String {
    format!("run: msb registry login {}", purpose.registry)
}

fn remedy_operator() -> String {
    "ask whoever runs the registry".to_owned()
}
