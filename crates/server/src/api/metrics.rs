// SPDX-License-Identifier: Apache-2.0
//! `sandbox.metrics.get`

use std::sync::Arc;

use protocol::calls::{Metrics, MetricsResult, SandboxMetrics, Scope, Target};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::DISK_WAIT;
use tokio::task::JoinSet;

use crate::app::App;
use crate::sandbox::Listed;

pub(crate) async fn metrics(app: &App, metrics: Metrics) -> Result<MetricsResult, ApiError> {
    let listed = select(app, metrics)?;
    count_disks(app, &listed).await;
    let reading = move || listed.iter().map(read).collect();
    let failed = |_| ApiError::new(ErrorCode::Failed, "Reading the metrics failed");
    let sandboxes = tokio::task::spawn_blocking(reading).await.map_err(failed)?;
    Ok(MetricsResult { sandboxes })
}

/// A sandbox that is named is told of whether it runs or not; a whole namespace lists those that run.
fn select(app: &App, metrics: Metrics) -> Result<Vec<Listed>, ApiError> {
    let registry = app.registry();
    match (metrics.scope, metrics.sandbox) {
        (Scope::All, None) => Ok(registry.list(|_| true)),
        (Scope::All, Some(name)) => Ok(registry.find_everywhere(|target| target.sandbox == name)),
        (Scope::One(namespace), None) => Ok(registry.list(|target| target.namespace == namespace)),
        (Scope::One(namespace), Some(sandbox)) => {
            let target = Target { namespace, sandbox };
            let found = registry.find(&target).ok_or_else(|| super::unknown(&target))?;
            Ok(vec![found])
        }
    }
}

/// Has the writable layers counted, and waits a while for that; what takes longer goes on for the next question.
async fn count_disks(app: &App, listed: &[Listed]) {
    let mut counting = JoinSet::new();
    for live in listed.iter().filter_map(|listed| listed.live.as_ref()) {
        let (live, scans) = (Arc::clone(live), Arc::clone(app.disk_scans()));
        counting.spawn(async move { live.meter().count_disk(&scans).await });
    }
    let all = async { while counting.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DISK_WAIT, all).await;
    counting.detach_all();
}

fn read(listed: &Listed) -> SandboxMetrics {
    let meter = listed.live.as_ref().map(|live| live.meter());
    let network = listed.live.as_ref().and_then(|live| live.sandbox().network().ok());
    SandboxMetrics {
        namespace: listed.target.namespace.to_string(),
        name: listed.target.sandbox.to_string(),
        running: meter.is_some(),
        cpu_usage: meter.and_then(|meter| meter.cpu_percent()),
        memory_usage: meter.and_then(|meter| meter.memory_mib().ok()),
        disk_usage: meter.and_then(|meter| meter.disk_bytes()),
        network: listed.live.as_ref().map(|live| live.network().to_owned()).filter(|word| word != "none"),
        network_denied: network.as_ref().and_then(|network| network.denied),
        ports: network
            .map(|network| network.ports.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}
