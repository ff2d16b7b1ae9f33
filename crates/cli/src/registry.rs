// SPDX-License-Identifier: Apache-2.0
//! What an operator says about registries on a command line, and what is added to it from files: logins and certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::reference::Reference;
use image::registry::RegistryConfig;
use image::registry::credentials::Credentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::failure::Failure;

/// The registry of names that name none.
#[derive(Debug, clap::Args)]
pub(crate) struct DefaultRegistryArgs {
    /// Registry of images whose names have none
    #[arg(long, env = "MICROSANDBOX_REGISTRY", value_name = "HOST", default_value = "docker.io", value_parser = host)]
    pub(crate) registry: String,
}

/// What is said about registries.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    #[command(flatten)]
    pub(crate) default: DefaultRegistryArgs,

    /// Ask HOST first for what is in REGISTRY (can be given several times; they are asked in this order)
    #[arg(long, value_name = "REGISTRY=HOST", value_parser = mirror)]
    pub(crate) mirror: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// How registries are spoken to.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Registry to speak to without TLS; those on loopback need not be named (can be given several times)
    #[arg(long, value_name = "HOST", value_parser = host)]
    pub(crate) plain_http: Vec<String>,

    /// PEM file of certificate authorities that count for registries, beside the system's (can be given several times)
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_ca: Vec<PathBuf>,

    /// Registry in this machine's own network that clients of a server may name, and that other registries may point at
    /// as their storage or token server; without a port, every port of it (can be given several times)
    #[arg(long, value_name = "HOST[:PORT]", value_parser = host)]
    pub(crate) trusted_registry: Vec<String>,
}

impl RegistryArgs {
    /// Puts them together with the logins of a home and of Docker.
    pub(crate) fn config(self, home: &Path) -> Result<RegistryConfig, Failure> {
        let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (registry, host) in self.mirror {
            mirrors.entry(registry).or_default().push(host);
        }
        Ok(RegistryConfig {
            default_registry: self.default.registry,
            mirrors,
            credentials: Credentials::load(home, docker_config().as_deref()).map_err(Failure::Logins)?,
            ..self.connection.config()?
        })
    }
}

impl ConnectionArgs {
    /// Reads the certificates.
    pub(crate) fn config(self) -> Result<RegistryConfig, Failure> {
        let mut extra_roots = Vec::new();
        for file in &self.registry_ca {
            extra_roots.append(&mut certificates(file)?);
        }
        Ok(RegistryConfig {
            plain_http: self.plain_http,
            trusted_hosts: self.trusted_registry,
            extra_roots,
            ..RegistryConfig::default()
        })
    }
}

impl Default for DefaultRegistryArgs {
    fn default() -> DefaultRegistryArgs {
        DefaultRegistryArgs { registry: RegistryConfig::default().default_registry }
    }
}

impl DefaultRegistryArgs {
    /// Says whether another registry than the default one was named.
    pub(crate) fn is_named(&self) -> bool {
        self.registry != "docker.io"
    }

    /// Reads the name of an image; returns it in full.
    pub(crate) fn reference(&self, name: &str) -> Result<Reference, Failure> {
        let config = RegistryConfig { default_registry: self.registry.clone(), ..RegistryConfig::default() };
        Reference::parse(name, &config).map_err(Failure::Reference)
    }
}

/// Returns Docker's own file of logins.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("DOCKER_CONFIG").or_else(|| Some(named("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Checks a registry, and gives it back as references have it.
pub(crate) fn host(text: &str) -> Result<String, String> {
    // A repository alone is one of the default registry.
    let config = RegistryConfig { default_registry: text.to_owned(), ..RegistryConfig::default() };
    match Reference::parse("any", &config) {
        Ok(reference) => Ok(reference.registry().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks the name of an image as far as it can be without the default registry.
pub(crate) fn reference(text: &str) -> Result<String, String> {
    match Reference::parse(text, &RegistryConfig::default()) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn mirror(text: &str) -> Result<(String, String), String> {
    let (of, at) =
        text.split_once('=').ok_or("write REGISTRY=HOST, such as docker.io=mirror.example:5000")?;
    Ok((host(of)?, host(at)?))
}

fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let unusable = |why: String| Failure::Certificates { file: file.to_owned(), why };
    let pem = fs_err::read(file).map_err(|error| unusable(error.to_string()))?;
    let read: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read = read.map_err(|error| unusable(error.to_string()))?;
    if read.is_empty() {
        return Err(unusable("it has no certificate in PEM".to_owned()));
    }
    Ok(read.into_iter().map(|certificate| certificate.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_mirrors_are_checked_with_what_is_allowed() {
        assert_eq!(host("Registry.Example:5000"), Ok("registry.example:5000".to_owned()));
        assert_eq!(host("index.docker.io"), Ok("docker.io".to_owned()));
        for wrong in ["https://registry.example", "registry.example/team", "", "a b", "a:0"] {
            assert!(host(wrong).unwrap_err().contains("host name or address"), "{wrong}");
        }
        let both = ("docker.io".to_owned(), "127.0.0.1:5000".to_owned());
        assert_eq!(mirror("docker.io=127.0.0.1:5000"), Ok(both));
        assert!(mirror("mirror.example").unwrap_err().contains("REGISTRY=HOST"));
        assert!(mirror("docker.io=http://mirror.example").is_err());
    }

    #[test]
    fn mirrors_of_one_registry_keep_their_order() {
        let arguments = RegistryArgs {
            default: DefaultRegistryArgs { registry: "r.example".to_owned() },
            mirror: ["a=x", "b=y", "a=z"].map(|text| mirror(text).unwrap()).into(),
            connection: ConnectionArgs {
                plain_http: vec!["x".to_owned()],
                trusted_registry: vec!["t".to_owned()],
                ..ConnectionArgs::default()
            },
        };
        let home = tempfile::tempdir().unwrap();
        let config = arguments.config(home.path()).unwrap();
        assert_eq!(
            (config.mirrors["a"].as_slice(), config.mirrors["b"].len()),
            (&["x".into(), "z".into()][..], 1)
        );
        assert_eq!((config.default_registry.as_str(), config.plain_http.len()), ("r.example", 1));
        assert_eq!(config.trusted_hosts, ["t"]);
    }

    #[test]
    fn a_file_without_certificates_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs_err::write(&file, "nothing").unwrap();
        assert!(certificates(&file).unwrap_err().to_string().contains("no certificate"));
        assert!(certificates(&folder.path().join("none")).is_err());
    }
}
