// SPDX-License-Identifier: Apache-2.0
//! What sandboxes use of the machine: measured, never invented.
//!
//! Processor use is sampled by one task for all sandboxes, so that two readers see the same. Memory is read when asked
//! for. The size of the writable layer is counted when asked for and kept for a moment.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::limits::{CPU_SAMPLE_EVERY, CPU_SPAN_MIN, DISK_SAMPLE_KEEP};
use runtime::{Sandbox, Usage};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::sandbox::Listed;

/// The measurements of one sandbox.
pub(crate) struct Meter {
    sandbox: Arc<dyn Sandbox>,
    cpu: Mutex<Cpu>,
    disk: Mutex<Option<(Instant, u64)>>,
    disk_turn: tokio::sync::Mutex<()>,
}

/// The sample before, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cpu {
    at: Instant,
    cpu_ns: Option<u64>,
    percent: Option<f64>,
}

impl Meter {
    pub(crate) fn new(sandbox: Arc<dyn Sandbox>) -> Meter {
        let cpu = Cpu { at: Instant::now(), cpu_ns: None, percent: None };
        Meter {
            sandbox,
            cpu: Mutex::new(cpu),
            disk: Mutex::new(None),
            disk_turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Takes a sample; blocks for as long as reading a few small files takes.
    pub(crate) fn sample(&self) {
        if let Ok(usage) = self.sandbox.usage() {
            lock(&self.cpu).advance(Instant::now(), usage.cpu_ns);
        }
    }

    /// Returns the percent of one core over the last sample.
    pub(crate) fn cpu_percent(&self) -> Option<f64> {
        lock(&self.cpu).percent
    }

    /// Reads the memory in use, in MiB rounded up; blocks for as long as reading a few small files takes.
    pub(crate) fn memory_mib(&self) -> io::Result<u64> {
        self.sandbox.usage().map(memory_mib)
    }

    /// Returns the size of the writable layer as far as it is known.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        lock(&self.disk).map(|(_, bytes)| bytes)
    }

    /// Counts the size of the writable layer, unless that was done a moment ago.
    pub(crate) async fn count_disk(&self, scans: &Semaphore) {
        let _turn = self.disk_turn.lock().await;
        if lock(&self.disk).is_some_and(|(at, _)| at.elapsed() < DISK_SAMPLE_KEEP) {
            return;
        }
        let _scan = scans.acquire().await.expect("this semaphore is never closed");
        match self.sandbox.disk_bytes().await {
            Ok(bytes) => *lock(&self.disk) = Some((Instant::now(), bytes)),
            Err(error) => tracing::debug!(%error, "cannot count a writable layer"),
        }
    }
}

impl Cpu {
    fn advance(&mut self, now: Instant, cpu_ns: u64) {
        let span = now.saturating_duration_since(self.at);
        let Some(before) = self.cpu_ns else {
            *self = Cpu { at: now, cpu_ns: Some(cpu_ns), percent: None };
            return;
        };
        if span >= CPU_SPAN_MIN {
            let used = Duration::from_nanos(cpu_ns.saturating_sub(before));
            let percent = used.as_secs_f64() / span.as_secs_f64() * 100.0;
            let percent = (percent * 100.0).round() / 100.0;
            *self = Cpu { at: now, cpu_ns: Some(cpu_ns), percent: Some(percent) };
        }
    }
}

/// Samples every running sandbox again and again, for as long as it is polled.
pub(crate) async fn sample_forever(app: App) {
    let mut ticks = tokio::time::interval(CPU_SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = app.registry().list(|_| true);
        if running.is_empty() {
            continue;
        }
        let sampling = move || running.iter().filter_map(live).for_each(|live| live.meter().sample());
        if tokio::task::spawn_blocking(sampling).await.is_err() {
            tracing::error!("sampling the sandboxes failed");
        }
    }
}

fn live(listed: &Listed) -> Option<&Arc<crate::sandbox::Live>> {
    listed.live.as_ref()
}

fn memory_mib(usage: Usage) -> u64 {
    usage.memory_bytes.div_ceil(1024 * 1024).max(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_use_is_percent_of_one_core_over_the_span() {
        let start = Instant::now();
        let mut cpu = Cpu { at: start, cpu_ns: None, percent: None };
        cpu.advance(start + Duration::from_millis(10), 5_000_000);
        assert_eq!(cpu.percent, None);
        cpu.advance(start + Duration::from_millis(50), 6_000_000);
        assert_eq!(cpu.percent, None, "too short a span");
        cpu.advance(start + Duration::from_millis(1010), 505_000_000);
        assert_eq!(cpu.percent, Some(50.0));
        cpu.advance(start + Duration::from_millis(2010), 2_505_000_000);
        assert_eq!(cpu.percent, Some(200.0));
        cpu.advance(start + Duration::from_millis(3010), 2_505_000_000);
        assert_eq!(cpu.percent, Some(0.0));
    }

    #[test]
    fn memory_is_rounded_up_and_never_nothing() {
        let mib = |memory_bytes| memory_mib(Usage { memory_bytes, ..Usage::default() });
        assert_eq!([mib(0), mib(1), mib(1 << 20), mib((1 << 20) + 1)], [1, 1, 1, 2]);
    }
}
