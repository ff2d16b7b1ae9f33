// SPDX-License-Identifier: Apache-2.0
//! Whom to believe that it is who it says: the authorities of the system, and those that the operator adds.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::error::RegistryError;

/// Returns how TLS is spoken, with the implementation in `ring`, whatever else this program links.
pub(super) fn configuration(extra_roots: &[Vec<u8>]) -> Result<ClientConfig, RegistryError> {
    let wrong = |reason: String| RegistryError::Configuration { reason };
    let mut roots = RootCertStore::empty();
    // A system without any is no error yet: a registry on loopback needs none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in extra_roots {
        let added = roots.add(CertificateDer::from(certificate.clone()));
        added.map_err(|error| wrong(format!("an extra root certificate is none: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
