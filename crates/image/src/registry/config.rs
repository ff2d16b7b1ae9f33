// SPDX-License-Identifier: Apache-2.0
//! What the operator says about registries.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use protocol::limits;
use url::{Host, Url};

use super::credentials::Credentials;
use super::error::RegistryError;
use super::places::{Place, Reach};
use crate::reference::{HUB, parse_registry};

/// Where the hub's registry really is.
const HUB_SERVER: &str = "registry-1.docker.io";

/// What the operator says about registries. The default knows one default registry, no mirror and no credentials.
#[derive(Clone)]
pub struct RegistryConfig {
    /// The registry of references that name none.
    pub default_registry: String,
    /// Mirrors by the registry they mirror, as `host[:port]`; they are tried in order, the registry itself at last.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries, as `host` or `host:port`, that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Hosts, as `host` or `host:port`, that the operator vouches for, wherever they are: clients may name them,
    /// redirects and token servers there may be in a nearer network than the registry that points at them, and
    /// credentials for a registry may be sent to them as its token server.
    pub trusted_hosts: Vec<String>,
    /// Who names the images.
    pub named_by: NamedBy,
    /// Certificates of authorities, in DER, that count beside those of the system.
    pub extra_roots: Vec<Vec<u8>>,
    /// Who may pull what.
    pub credentials: Credentials,
    /// What tests of this crate replace; everybody else takes the default.
    pub world: World,
}

/// Who names the images, and with them the registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamedBy {
    /// The operator of this machine, whose own network is his to reach.
    #[default]
    Operator,
    /// Clients: they reach the internet, and of what is nearer only the registries that the operator named.
    Clients,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        RegistryConfig {
            default_registry: HUB.to_owned(),
            mirrors: BTreeMap::new(),
            plain_http: Vec::new(),
            trusted_hosts: Vec::new(),
            named_by: NamedBy::default(),
            extra_roots: Vec::new(),
            credentials: Credentials::default(),
            world: World::default(),
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            .field("default_registry", &self.default_registry)
            .field("mirrors", &self.mirrors)
            .field("plain_http", &self.plain_http)
            .field("trusted_hosts", &self.trusted_hosts)
            .field("named_by", &self.named_by)
            .field("extra_roots", &self.extra_roots.len())
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// How long things may take, and where names and addresses lead: the limits and the network itself, but in tests.
#[derive(Clone, Debug)]
pub struct World {
    /// Addresses of names that the resolver is not asked for.
    pub(super) hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Addresses that count as something else than they are.
    pub(super) places: BTreeMap<IpAddr, Place>,
    pub(super) backoff: Duration,
    pub(super) retry_after_max: Duration,
    pub(super) answer_wait: Duration,
    pub(super) document_wait: Duration,
    pub(super) progress_window: Duration,
}

impl Default for World {
    fn default() -> World {
        World {
            hosts: BTreeMap::new(),
            places: BTreeMap::new(),
            backoff: limits::REGISTRY_BACKOFF,
            retry_after_max: limits::RETRY_AFTER_MAX,
            answer_wait: limits::REGISTRY_ANSWER_WAIT,
            document_wait: limits::REGISTRY_DOCUMENT_WAIT,
            progress_window: limits::PROGRESS_WINDOW,
        }
    }
}

impl World {
    pub(super) fn place(&self, address: IpAddr) -> Place {
        self.places.get(&address).copied().unwrap_or_else(|| Place::of(address))
    }
}

/// With or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    /// A loopback registry that nobody named: both are usual there, and it is asked which one it speaks.
    Either,
}

impl RegistryConfig {
    /// Checks what the types cannot.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        let wrong = |reason: String| RegistryError::Configuration { reason };
        let mirrors = self.mirrors.values().flatten();
        let named = [&self.default_registry].into_iter().chain(self.mirrors.keys()).chain(mirrors);
        for registry in named.chain(&self.plain_http).chain(&self.trusted_hosts) {
            parse_registry(registry).map_err(|error| wrong(error.to_string()))?;
        }
        match self.mirrors.iter().find(|(_, mirrors)| mirrors.len() > limits::MIRRORS_MAX) {
            Some((registry, mirrors)) => {
                let max = limits::MIRRORS_MAX;
                Err(wrong(format!("{registry} has {} mirrors; at most {max} are allowed", mirrors.len())))
            }
            None => Ok(()),
        }
    }

    pub(super) fn scheme(&self, url: &Url) -> Scheme {
        if is_named(&self.plain_http, url) {
            Scheme::Http
        } else if is_loopback(url) {
            Scheme::Either
        } else {
            Scheme::Https
        }
    }

    pub(super) fn is_trusted(&self, url: &Url) -> bool {
        is_named(&self.trusted_hosts, url)
    }

    /// Says from where the registry of a reference is asked, which is at `url`.
    pub(super) fn reach(&self, registry: &str, url: &Url) -> Reach {
        match self.named_by {
            NamedBy::Operator => Reach::Named,
            NamedBy::Clients if self.is_operators(registry, url) => Reach::Named,
            NamedBy::Clients => Reach::NamedByClient,
        }
    }

    /// Says whether the operator has named a registry: as the default one, with a mirror or as one, with a login that
    /// he keeps here, or as trusted.
    fn is_operators(&self, registry: &str, url: &Url) -> bool {
        let is_in_mirrors =
            self.mirrors.iter().any(|(of, at)| of == registry || at.iter().any(|mirror| mirror == registry));
        registry == self.default_registry
            || is_in_mirrors
            || self.credentials.keeps(registry)
            || self.trusted_hosts.iter().any(|trusted| trusted == registry)
            || self.is_trusted(url)
    }
}

/// Returns where a registry is.
pub(super) fn server_of(registry: &str, scheme: &str) -> Result<Url, RegistryError> {
    let server = if registry == HUB { HUB_SERVER } else { registry };
    Url::parse(&format!("{scheme}://{server}/"))
        .map_err(|error| RegistryError::Configuration { reason: format!("`{registry}` is no host: {error}") })
}

/// Says whether a list has the host of an address, alone or with its port.
fn is_named(list: &[String], url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let port = url.port_or_known_default();
    list.iter().any(|named| match Url::parse(&format!("{}://{named}/", url.scheme())) {
        Ok(named_url) => {
            let after_address = named.rfind(']').map_or(named.as_str(), |bracket| &named[bracket..]);
            let any_port = !after_address.contains(':');
            named_url.host_str() == Some(host) && (any_port || named_url.port_or_known_default() == port)
        }
        Err(_) => false,
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => Place::of(address.into()) == Place::Loopback,
        Some(Host::Ipv6(address)) => Place::of(address.into()) == Place::Loopback,
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Returns host and port of an address, and nothing that could be a secret.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "no host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::credentials::{Secret, save_login};

    #[test]
    fn plain_http_is_spoken_only_where_it_is_named() {
        let config = RegistryConfig {
            plain_http: ["plain.example", "port.example:5000", "[2001:db8::1]", "[2001:db8::2]:80"]
                .map(Into::into)
                .into(),
            ..RegistryConfig::default()
        };
        let rows = [
            ("plain.example", Scheme::Http),
            ("plain.example:81", Scheme::Http),
            ("port.example:5000", Scheme::Http),
            ("port.example", Scheme::Https),
            ("port.example:5001", Scheme::Https),
            ("sub.plain.example", Scheme::Https),
            ("[2001:db8::1]:9", Scheme::Http),
            ("[2001:db8::2]:80", Scheme::Http),
            ("[2001:db8::2]:81", Scheme::Https),
            ("localhost:5000", Scheme::Either),
            ("127.0.0.1", Scheme::Either),
            ("[::1]:5000", Scheme::Either),
            ("localhost.example", Scheme::Https),
            ("10.0.0.1", Scheme::Https),
        ];
        for (registry, scheme) in rows {
            assert_eq!(config.scheme(&server_of(registry, "https").unwrap()), scheme, "{registry}");
        }
    }

    #[test]
    fn clients_reach_what_is_near_only_where_the_operator_named_it() {
        let home = tempfile::tempdir().unwrap();
        save_login(home.path(), "login.lan", "ann", Secret::new("x")).unwrap();
        let config = RegistryConfig {
            default_registry: "default.lan:5000".into(),
            mirrors: BTreeMap::from([("mirrored.lan".to_owned(), vec!["mirror.lan".to_owned()])]),
            trusted_hosts: ["trusted.lan", "port.lan:5000"].map(Into::into).into(),
            plain_http: ["plain.lan".into()].into(),
            credentials: Credentials::load(home.path(), None).unwrap(),
            named_by: NamedBy::Clients,
            ..RegistryConfig::default()
        };
        let reach = |config: &RegistryConfig, registry: &str| {
            config.reach(registry, &server_of(registry, "https").unwrap())
        };
        for named in
            ["default.lan:5000", "mirrored.lan", "mirror.lan", "login.lan", "trusted.lan:7", "port.lan:5000"]
        {
            assert_eq!(reach(&config, named), Reach::Named, "{named}");
        }
        for other in [
            "default.lan",
            "mirror.lan:81",
            "login.lan:81",
            "port.lan",
            "plain.lan",
            "x.trusted.lan",
            "docker.io",
        ] {
            assert_eq!(reach(&config, other), Reach::NamedByClient, "{other}");
            let operators = RegistryConfig { named_by: NamedBy::Operator, ..config.clone() };
            assert_eq!(reach(&operators, other), Reach::Named, "{other}");
        }
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        let mirrors = |mirrors: Vec<String>| RegistryConfig {
            mirrors: BTreeMap::from([("r.example".to_owned(), mirrors)]),
            ..RegistryConfig::default()
        };
        assert!(mirrors(vec!["m.example".into()]).check().is_ok());
        assert!(mirrors(vec!["http://m.example/".into()]).check().is_err());
        assert!(mirrors(vec!["m.example".into(); limits::MIRRORS_MAX + 1]).check().is_err());
    }
}
