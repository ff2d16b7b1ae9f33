// SPDX-License-Identifier: Apache-2.0
//! One repository of one registry: asks until there is an answer or no hope, and logs in when it must.

use oci_spec::image::Digest;
use protocol::limits::MANIFEST_BYTES_MAX;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};

use super::auth::{Auth, Purpose};
use super::blob::Download;
use super::config::RegistryConfig;
use super::error::{ContentError, Failure, RegistryError};
use super::manifest::{self, Document};
use super::retry::Attempts;
use super::transport::{Answer, Transport, read_document};

/// The header in which registries say what they send.
const DIGEST_HEADER: &str = "docker-content-digest";

pub(super) struct Session<'a> {
    config: &'a RegistryConfig,
    transport: &'a Transport,
    auth: &'a Auth,
    purpose: Purpose,
}

/// A document as it came, checked.
pub(super) struct Sent {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

/// What is asked for.
struct Question<'a> {
    path: String,
    what: &'a str,
    header: Option<(reqwest::header::HeaderName, HeaderValue)>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        config: &'a RegistryConfig,
        transport: &'a Transport,
        auth: &'a Auth,
        (registry, repository): (&str, &str),
    ) -> Session<'a> {
        let purpose = Purpose { registry: registry.to_owned(), repository: repository.to_owned() };
        Session { config, transport, auth, purpose }
    }

    /// Gets a manifest or an index by tag or digest; a digest or size that is known is checked.
    pub(super) async fn manifest(
        &self,
        version: &str,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<Sent, RegistryError> {
        let mut attempts = Attempts::new(&self.config.world);
        loop {
            match self.manifest_once(version, digest, size).await {
                Ok(sent) => return Ok(sent),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    async fn manifest_once(
        &self,
        version: &str,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<Sent, Failure> {
        let what =
            format!("{}{}{version}", self.purpose.repository, if digest.is_some() { "@" } else { ":" });
        let path = format!("v2/{}/manifests/{version}", self.purpose.repository);
        let header = Some((ACCEPT, HeaderValue::from_static(manifest::ACCEPT)));
        let mut answer = self.ask(&Question { path, what: &what, header }).await?;
        let wrong = |source| RegistryError::Content {
            host: self.purpose.registry.clone(),
            what: what.clone(),
            source,
        };
        let read = read_document(&mut answer.response, MANIFEST_BYTES_MAX, self.config.world.document_wait);
        let bytes = read.await?.ok_or_else(|| wrong(manifest::too_large()))?;
        let headers = answer.response.headers();
        let content_type = headers.get(CONTENT_TYPE).and_then(|text| text.to_str().ok());
        // A web page is told as such, before its digest is found to be wrong.
        if content_type.is_some_and(|text| text.contains("html")) {
            manifest::read(&bytes, content_type).map_err(wrong)?;
        }
        let digest = check(&bytes, headers, digest, size).map_err(wrong)?;
        let document = manifest::read(&bytes, content_type).map_err(wrong)?;
        Ok(Sent { digest, bytes, document })
    }

    /// Downloads what a sink does not have of a blob.
    pub(super) async fn blob(&self, mut download: Download<'_>) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(&self.config.world);
        while !download.is_complete()? {
            let before = download.sink.have();
            let Err(failure) = self.blob_once(&mut download).await else { continue };
            if download.has_progressed(before) {
                attempts.forget();
            }
            attempts.pause(failure).await?;
        }
        Ok(())
    }

    async fn blob_once(&self, download: &mut Download<'_>) -> Result<(), Failure> {
        let path = format!("v2/{}/blobs/{}", self.purpose.repository, download.blob.digest());
        let header = match download.sink.have() {
            0 => None,
            have => {
                Some((RANGE, HeaderValue::try_from(format!("bytes={have}-")).expect("digits are a header")))
            }
        };
        let answer = self.ask(&Question { path, what: &download.what, header }).await?;
        download.take(answer.response).await
    }

    /// Says whether the registry asks for a login at all; one that is wrong is an error. Asks once: a person waits.
    pub(super) async fn takes_login(&self) -> Result<bool, Failure> {
        let question = Question { path: "v2/".to_owned(), what: "registry API", header: None };
        let answer = self.ask_as(&question, None).await?;
        let asks = answer.response.status() == StatusCode::UNAUTHORIZED;
        if asks {
            self.ask_with_login(&question, &answer).await?;
        }
        Ok(asks)
    }

    /// Asks once, and once more with a login if that is what the registry wants.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        let authorization = self.auth.kept(&self.purpose);
        let answer = self.ask_as(question, authorization).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.ask_with_login(question, &answer).await
    }

    async fn ask_with_login(&self, question: &Question<'_>, answer: &Answer) -> Result<Answer, Failure> {
        let authorization = self.auth.answer(self.transport, &self.purpose, answer).await?;
        let answer = self.ask_as(question, Some(authorization)).await?;
        if answer.response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.auth.rejected(&self.purpose).into());
        }
        Ok(answer)
    }

    async fn ask_as(
        &self,
        question: &Question<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let (server, reach) = self.transport.server(&self.purpose.registry).await?;
        let url = server.join(&question.path).expect("checked names and digests are a path");
        let mut headers = HeaderMap::new();
        headers.extend(question.header.clone());
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        self.transport.get(url, reach, headers).await?.check(question.what)
    }
}

/// Checks what came against all that is known of it; returns its digest.
fn check(
    bytes: &[u8],
    headers: &HeaderMap,
    digest: Option<&Digest>,
    size: Option<u64>,
) -> Result<Digest, ContentError> {
    if let Some(wanted) = size.filter(|size| *size != bytes.len() as u64) {
        return Err(ContentError::WrongSize { wanted, got: bytes.len() as u64 });
    }
    if let Some(digest) = digest {
        manifest::verify(bytes, digest)?;
        return Ok(digest.clone());
    }
    // By tag nothing is known but what the registry says itself; a proxy between may still have changed it.
    let said =
        headers.get(DIGEST_HEADER).and_then(|text| text.to_str().ok()).and_then(|text| text.parse().ok());
    if let Some(said) = said {
        manifest::verify(bytes, &said)?;
    }
    Ok(manifest::digest_of(bytes))
}
