// SPDX-License-Identifier: Apache-2.0
//! One request at a time: where it may go, what goes with it, and how much of the answer is read.
//!
//! Redirects are followed here, not by the HTTP library: each one is judged ([`places`](super::places)), `Authorization`
//! stays behind when it leaves the registry and never comes back, and TLS is never given up on the way. Proxies of the
//! environment are not used: behind one, nobody could see where a name leads.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::limits::{REDIRECTS_MAX, REGISTRY_CONNECT_WAIT, TOKENS_MAX};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use super::config::{RegistryConfig, Scheme, authority, server_of};
use super::error::{Failure, RegistryError};
use super::places::{Forbidden, Guard, Place, Reach};
use super::retry::retry_after;
use super::tls;
use crate::reference::quote;

/// Sends requests; each [`Reach`] has a client of its own, so that no connection serves two of them.
pub(super) struct Transport {
    config: Arc<RegistryConfig>,
    clients: HashMap<Reach, Client>,
    /// What loopback registries turned out to speak.
    spoken: Mutex<BTreeMap<String, &'static str>>,
}

/// One request as it goes out.
pub(super) struct Hop {
    pub(super) url: Url,
    pub(super) reach: Reach,
    pub(super) headers: HeaderMap,
    /// A form to post; without one the request is a GET.
    pub(super) form: Option<String>,
}

/// What came back in the end.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Who answered.
    pub(super) host: String,
    /// Where the registry is that was asked first.
    pub(super) place: Place,
    /// Whether the registry itself answered, not somebody it pointed at.
    pub(super) is_own: bool,
}

impl Transport {
    pub(super) fn new(config: Arc<RegistryConfig>) -> Result<Transport, RegistryError> {
        let tls = tls::configuration(&config.extra_roots)?;
        let world = Arc::new(config.world.clone());
        let mut clients = HashMap::new();
        for reach in Reach::ALL {
            let client = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(Guard { reach, world: Arc::clone(&world) }))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .connect_timeout(REGISTRY_CONNECT_WAIT)
                .user_agent(concat!("microsandbox/", env!("CARGO_PKG_VERSION")))
                .build();
            let client =
                client.map_err(|error| RegistryError::Configuration { reason: innermost(&error) })?;
            clients.insert(reach, client);
        }
        Ok(Transport { config, clients, spoken: Mutex::default() })
    }

    /// Returns the address of a registry's API, with the scheme that is spoken there, and from where it is asked.
    pub(super) async fn server(&self, registry: &str) -> Result<(Url, Reach), Failure> {
        let https = server_of(registry, "https")?;
        let reach = self.config.reach(registry, &https);
        match self.config.scheme(&https) {
            Scheme::Https => Ok((https, reach)),
            Scheme::Http => Ok((server_of(registry, "http")?, reach)),
            Scheme::Either => {
                let known = self.spoken.lock().unwrap_or_else(PoisonError::into_inner).get(registry).copied();
                let scheme = match known {
                    Some(scheme) => scheme,
                    None => self.ask_scheme(&https, reach).await?,
                };
                let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
                if spoken.len() >= TOKENS_MAX {
                    spoken.clear();
                }
                spoken.insert(registry.to_owned(), scheme);
                Ok((server_of(registry, scheme)?, reach))
            }
        }
    }

    /// Finds out whether a loopback registry speaks TLS; a certificate that is wrong is an error, not a no.
    async fn ask_scheme(&self, https: &Url, reach: Reach) -> Result<&'static str, Failure> {
        self.check_written_out(https, reach)?;
        let request = self.clients[&reach].get(https.clone()).send();
        match timeout(self.config.world.answer_wait, request).await {
            Ok(Ok(_)) => Ok("https"),
            Ok(Err(error)) if is_not_tls(&error) => Ok("http"),
            Ok(Err(error)) => Err(unanswered(https, reach, &error)),
            Err(_) => Err(no_answer(https)),
        }
    }

    /// Gets what is at an address of a registry, or where it redirects to; `headers` may authorize, there alone.
    pub(super) async fn get(&self, url: Url, reach: Reach, headers: HeaderMap) -> Result<Answer, Failure> {
        let mut hop = Hop { url, reach, headers, form: None };
        let (registry, mut place) = (hop.url.origin(), None);
        for _ in 0..=REDIRECTS_MAX {
            let (response, address) = self.send(&hop).await?;
            let place = *place.get_or_insert_with(|| self.config.world.place(address));
            if !is_redirect(response.status()) {
                let is_own = hop.url.origin() == registry;
                return Ok(Answer { response, host: authority(&hop.url), place, is_own });
            }
            hop = self.follow(hop, &response, place)?;
        }
        let allowed = format!("at most {REDIRECTS_MAX} are followed; ask whoever runs the registry");
        Err(refused("a redirect", &hop.url, "it is one of too many".to_owned(), allowed).into())
    }

    /// Sends one request; returns the answer and the address that it came from.
    pub(super) async fn send(&self, hop: &Hop) -> Result<(Response, IpAddr), Failure> {
        self.check_written_out(&hop.url, hop.reach)?;
        let client = &self.clients[&hop.reach];
        let request = match &hop.form {
            Some(form) => client
                .post(hop.url.clone())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.clone()),
            None => client.get(hop.url.clone()),
        };
        let request = request.headers(hop.headers.clone()).header(ACCEPT_ENCODING, "identity");
        let response = match timeout(self.config.world.answer_wait, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(unanswered(&hop.url, hop.reach, &error)),
            Err(_) => return Err(no_answer(&hop.url)),
        };
        let address = response.remote_addr().map(|address| address.ip());
        let address = address.expect("a connection over TCP has an address at its other end");
        Ok((response, address))
    }

    /// Judges an address that is written out; names are judged by the resolver, which is not asked for those.
    fn check_written_out(&self, url: &Url, reach: Reach) -> Result<(), RegistryError> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        reach.check(&[address], &self.config.world).map_err(|forbidden| forbidden_at(url, reach, forbidden))
    }

    /// Returns the request that a redirect asks for, if it may be sent.
    fn follow(&self, hop: Hop, response: &Response, place: Place) -> Result<Hop, RegistryError> {
        let target = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let target = target.and_then(|location| hop.url.join(location).ok());
        let Some(target) = target else {
            let allowed = "a redirect must say where to; ask whoever runs the registry".to_owned();
            return Err(refused("a redirect", &hop.url, "it leads to no address".to_owned(), allowed));
        };
        self.check_target("a redirect", &hop.url, &target)?;
        if target.origin() == hop.url.origin() {
            return Ok(Hop { url: target, ..hop });
        }
        let mut headers = hop.headers;
        headers.remove(AUTHORIZATION);
        Ok(Hop { reach: self.reach_of(&target, place), url: target, headers, form: None })
    }

    /// Returns who may be asked at an address that a registry at `place` points at.
    pub(super) fn reach_of(&self, target: &Url, place: Place) -> Reach {
        if self.config.is_trusted(target) { Reach::Named } else { Reach::PointedFrom(place) }
    }

    /// Refuses an address that gives up TLS, or is none of a web server.
    pub(super) fn check_target(
        &self,
        act: &'static str,
        from: &Url,
        target: &Url,
    ) -> Result<(), RegistryError> {
        let to = authority(target);
        let is_plain = target.scheme() == "http";
        let (wrong, allowed) = if !matches!(target.scheme(), "http" | "https") {
            ("it leads to an address that is not of the web".to_owned(), "only https is allowed".to_owned())
        } else if !target.username().is_empty() || target.password().is_some() {
            ("it has credentials in its address".to_owned(), "only addresses without are allowed".to_owned())
        } else if is_plain && from.scheme() == "https" {
            (format!("it leads from https to http at {to}"), "only https is allowed from there".to_owned())
        } else if is_plain && self.config.scheme(target) == Scheme::Https {
            let allowed =
                format!("plain HTTP is allowed only where it is named: add {to} to the plain registries");
            (format!("it leads to plain HTTP at {to}"), allowed)
        } else {
            return Ok(());
        };
        Err(refused(act, from, wrong, allowed))
    }
}

impl Answer {
    /// Turns every status but success, and a 401 that can be answered, into an error.
    pub(super) fn check(self, what: &str) -> Result<Answer, Failure> {
        let status = self.response.status();
        let (host, what) = (self.host.clone(), what.to_owned());
        match status.as_u16() {
            200 | 206 => Ok(self),
            401 if self.is_own => Ok(self),
            404 => Err(RegistryError::NotFound { host, what }.into()),
            // What a redirect leads to is often allowed for a while only; the registry redirects anew.
            401 | 403 if !self.is_own => {
                Err(Failure::soon(RegistryError::Status { host, what, status: status.as_u16(), wait: None }))
            }
            403 => {
                let remedy = format!("log in with an account that may read it: msb registry login {host}");
                let reason = format!("it answered with status {status}");
                Err(RegistryError::Denied { host, what, reason, remedy }.into())
            }
            status => Err(status_failure(host, what, status, self.response.headers())),
        }
    }
}

/// Makes an error of an unexpected status, and says whether to ask again.
pub(super) fn status_failure(host: String, what: String, status: u16, headers: &HeaderMap) -> Failure {
    use super::error::Again;
    let asked = retry_after(headers);
    let again = match (status, asked) {
        (429 | 500..=599, Some(wait)) => Again::After(wait),
        (408 | 429 | 500..=599, _) => Again::Soon,
        _ => Again::No,
    };
    Failure { error: RegistryError::Status { host, what, status, wait: asked }, again }
}

/// Reads a body as a whole; nothing when it is longer than `max` bytes.
pub(super) async fn read_document(
    response: &mut Response,
    max: usize,
    wait: Duration,
) -> Result<Option<Vec<u8>>, Failure> {
    let host = authority(response.url());
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Ok(None);
    }
    let (deadline, mut bytes) = (Instant::now() + wait, Vec::new());
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Ok(None)) => return Ok(Some(bytes)),
            Ok(Err(error)) => return Err(failed(&host, &error)),
            Err(_) => {
                let reason = format!("a short document did not arrive within {wait:?}");
                return Err(Failure::soon(RegistryError::Unreachable { host, reason }));
            }
        }
        if bytes.len() > max {
            return Ok(None);
        }
    }
}

/// Makes a value for `Authorization` that no log shows.
pub(super) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn refused(act: &'static str, from: &Url, wrong: String, allowed: String) -> RegistryError {
    RegistryError::Refused { act, host: authority(from), wrong, allowed }
}

/// Makes an error of a request that brought no answer.
fn unanswered(url: &Url, reach: Reach, error: &reqwest::Error) -> Failure {
    match Forbidden::among(causes(error)) {
        Some(forbidden) => forbidden_at(url, reach, forbidden).into(),
        None => failed(&authority(url), error),
    }
}

fn forbidden_at(url: &Url, reach: Reach, forbidden: Forbidden) -> RegistryError {
    let host = authority(url);
    let allowed = match (forbidden.place, reach) {
        (Place::Metadata, _) => "nothing is ever asked there".to_owned(),
        (_, Reach::NamedByClient) => {
            format!("if it is meant, the operator starts the server with --trusted-registry {host}")
        }
        (_, Reach::Named | Reach::PointedFrom(_)) => format!(
            "a registry may point only at what is no nearer to this machine than itself; if {host} is meant, the \
             operator names it: --trusted-registry {host}"
        ),
    };
    if reach == Reach::NamedByClient {
        return RegistryError::Near { host, place: forbidden.place.name(), allowed };
    }
    let wrong = forbidden.to_string();
    RegistryError::Refused { act: "a request to another host", host, wrong, allowed }
}

fn no_answer(url: &Url) -> Failure {
    let reason = "it did not begin to answer in time".to_owned();
    Failure::soon(RegistryError::Unreachable { host: authority(url), reason })
}

/// Makes an error of a broken or missing connection. A wrong certificate or name does not get better.
pub(super) fn failed(host: &str, error: &reqwest::Error) -> Failure {
    let is_tls = causes(error).any(|cause| cause.is::<rustls::Error>());
    let is_final = is_tls || error.is_dns() || error.is_builder();
    let error = RegistryError::Unreachable { host: host.to_owned(), reason: innermost(error) };
    if is_final { Failure::from(error) } else { Failure::soon(error) }
}

/// What the other end says that speaks no TLS, or hangs up on it.
fn is_not_tls(error: &reqwest::Error) -> bool {
    let garbage = |cause: &(dyn Error + 'static)| {
        matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidMessage(_)))
    };
    let hung_up = |cause: &(dyn Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
    };
    error.is_connect() && causes(error).any(|cause| garbage(cause) || hung_up(cause))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns an error and what is behind it; an I/O error hides what it wraps.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// Returns what the last cause says: the outer ones repeat addresses, which can hold secrets.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, |cause| quote(&cause.to_string()))
}
