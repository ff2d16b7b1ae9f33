// SPDX-License-Identifier: Apache-2.0
//! Work that a person can end with SIGINT: it is dropped where it is, so it must be such that it may be dropped anywhere.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Runs a future until it ends, or SIGINT or SIGTERM does; then what it began on other threads is not waited for.
pub(crate) fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
    left: &'static str,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("start the runtime"))?;
    let outcome = runtime.block_on(async {
        let on = |kind| signal(kind).map_err(Failure::system("listen for signals"));
        let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        tokio::select! {
            outcome = work => outcome,
            _ = interrupt.recv() => Err(Failure::Interrupted(left)),
            _ = terminate.recv() => Err(Failure::Interrupted(left)),
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Does the same with work that blocks.
pub(crate) fn blocking_unless_interrupted<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    left: &'static str,
) -> Result<T, Failure> {
    let work = async {
        let ended = tokio::task::spawn_blocking(work).await;
        ended.map_err(|error| Failure::System { act: "finish the work", source: error.into() })?
    };
    unless_interrupted(work, left)
}
