// SPDX-License-Identifier: Apache-2.0
//! One blob from one registry into a sink, however often the connection breaks on the way.
//!
//! Each attempt asks for what the sink does not have yet (`Range`). A server that sends everything all the same makes the
//! sink begin anew. More than the descriptor's size is never written. The digest is the sink's business, for it may have
//! had a part before.

use std::io;
use std::time::Duration;

use oci_spec::image::Descriptor;
use protocol::limits::{PROGRESS_BYTES_MIN, REGISTRY_ATTEMPTS_MAX, REGISTRY_ATTEMPTS_RESET_BYTES};
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use tokio::time::{Instant, timeout_at};

use super::config::{World, authority};
use super::error::{ContentError, Failure, RegistryError};
use super::transport::failed;

/// Where a blob goes.
pub trait BlobSink: Send {
    /// Returns how many bytes it has: those of an earlier download, and those written since.
    fn have(&self) -> u64;

    /// Forgets what it has.
    ///
    /// # Errors
    /// What the disk says.
    fn restart(&mut self) -> io::Result<()>;

    /// Takes the next bytes. It is called on the runtime's own threads, so it should not wait for more than a disk.
    ///
    /// # Errors
    /// What the disk says; the download ends then.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;
}

/// A download.
pub(super) struct Download<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) what: String,
    pub(super) sink: &'a mut dyn BlobSink,
    pub(super) world: &'a World,
    /// How often the registry made the sink begin anew.
    pub(super) restarts: u32,
}

impl Download<'_> {
    fn too_slow(&self, host: &str, bytes: u64, window: Duration) -> Failure {
        let (host, what) = (host.to_owned(), self.what.clone());
        Failure::soon(RegistryError::TooSlow { host, what, bytes, least: PROGRESS_BYTES_MIN, window })
    }

    /// Prepares an attempt; nothing is left to do when all is there.
    pub(super) fn is_complete(&mut self) -> Result<bool, RegistryError> {
        if self.sink.have() > self.blob.size() {
            self.restart()?;
        }
        Ok(self.sink.have() == self.blob.size())
    }

    /// Takes the answer to a request for what the sink does not have.
    pub(super) async fn take(&mut self, mut response: Response) -> Result<(), Failure> {
        let host = authority(response.url());
        let status = response.status().as_u16();
        if status == 206 {
            self.check_range(&host, response.headers())?;
        } else if self.sink.have() > 0 {
            self.begin_anew(&host)?;
        }
        let missing = self.blob.size() - self.sink.have();
        if let Some(length) = response.content_length().filter(|length| *length != missing) {
            return Err(self.wrong_size(&host, self.sink.have().saturating_add(length)).into());
        }
        self.stream(&host, &mut response).await
    }

    /// Says whether there was so much progress since `before` that it counts as a new beginning.
    pub(super) fn has_progressed(&self, before: u64) -> bool {
        self.sink.have() >= before.saturating_add(REGISTRY_ATTEMPTS_RESET_BYTES)
    }

    async fn stream(&mut self, host: &str, response: &mut Response) -> Result<(), Failure> {
        let window = self.world.progress_window;
        let (mut deadline, mut got) = (Instant::now() + window, 0);
        loop {
            let chunk = match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(failed(host, &error)),
                Err(_) if got >= PROGRESS_BYTES_MIN => {
                    (deadline, got) = (Instant::now() + window, 0);
                    continue;
                }
                Err(_) => {
                    return Err(self.too_slow(host, got, window));
                }
            };
            let have = self.sink.have().saturating_add(chunk.len() as u64);
            if have > self.blob.size() {
                return Err(self.wrong_size(host, have).into());
            }
            let began = Instant::now();
            self.sink.write(&chunk).map_err(|source| self.sink_error(source))?;
            got += chunk.len() as u64;
            // A slow disk is not the registry's fault.
            deadline += began.elapsed();
            if Instant::now() >= deadline {
                if got < PROGRESS_BYTES_MIN {
                    return Err(self.too_slow(host, got, window));
                }
                (deadline, got) = (Instant::now() + window, 0);
            }
        }
        match self.sink.have() {
            have if have == self.blob.size() => Ok(()),
            // It ended as if it were whole: a broken proxy, or a lie that the next attempt repeats.
            have => Err(Failure::soon(self.wrong_size(host, have))),
        }
    }

    /// Checks that a part is the one that was asked for.
    fn check_range(&self, host: &str, headers: &HeaderMap) -> Result<(), RegistryError> {
        let text = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        let range = text.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
        let start =
            range.and_then(|(range, _)| range.split_once('-')).and_then(|(start, _)| start.parse().ok());
        let total = range.map(|(_, total)| total.trim());
        let is_total = |total: &str| total == "*" || total.parse() == Ok(self.blob.size());
        if start == Some(self.sink.have()) && total.is_some_and(is_total) {
            return Ok(());
        }
        let wrong = format!(
            "it sent the part `{}` of {} bytes when asked for what follows byte {}",
            crate::reference::quote(text),
            self.blob.size(),
            self.sink.have()
        );
        let allowed = "it must send the part that was asked for, or everything";
        Err(self.content(host, ContentError::Unexpected { wrong, allowed }))
    }

    /// Lets a server that knows no parts send everything again, but not for ever.
    fn begin_anew(&mut self, host: &str) -> Result<(), RegistryError> {
        self.restarts += 1;
        if self.restarts > REGISTRY_ATTEMPTS_MAX {
            let wrong =
                format!("it began anew more than {REGISTRY_ATTEMPTS_MAX} times and never came to the end");
            let allowed = "it must send the part that was asked for, or everything in one go";
            return Err(self.content(host, ContentError::Unexpected { wrong, allowed }));
        }
        self.restart()
    }

    fn restart(&mut self) -> Result<(), RegistryError> {
        self.sink.restart().map_err(|source| self.sink_error(source))
    }

    fn sink_error(&self, source: io::Error) -> RegistryError {
        RegistryError::Sink { what: self.what.clone(), source }
    }

    fn wrong_size(&self, host: &str, got: u64) -> RegistryError {
        self.content(host, ContentError::WrongSize { wanted: self.blob.size(), got })
    }

    fn content(&self, host: &str, source: ContentError) -> RegistryError {
        RegistryError::Content { host: host.to_owned(), what: self.what.clone(), source }
    }
}
