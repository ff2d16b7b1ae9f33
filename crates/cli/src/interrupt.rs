// SPDX-License-Identifier: Apache-2.0
//! Work that a person can end with SIGINT: it is dropped where it is, so it must be such that it may be dropped anywhere.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Runs a future until it ends, or SIGINT, SIGTERM or SIGHUP does; then what it began on other threads is not waited for.
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
        // Who started this with nohup wants it to go on when the terminal is gone.
        let mut hangup = if hangup_is_ignored() { None } else { Some(on(SignalKind::hangup())?) };
        tokio::select! {
            outcome = work => outcome,
            _ = interrupt.recv() => Err(Failure::Interrupted(left)),
            _ = terminate.recv() => Err(Failure::Interrupted(left)),
            Some(_) = hung_up(hangup.as_mut()) => Err(Failure::Interrupted(left)),
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn hung_up(signal: Option<&mut Signal>) -> Option<()> {
    signal?.recv().await
}

/// Says whether SIGHUP was ignored when the program began (`proc_pid_status(5)`, SigIgn: its lowest bit).
fn hangup_is_ignored() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
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
