// SPDX-License-Identifier: Apache-2.0
//! `sandbox.get`

use protocol::calls::{Get, SandboxInfo};
use protocol::errors::{ApiError, ErrorCode};

use crate::app::App;

pub(crate) async fn get(app: &App, get: Get) -> Result<SandboxInfo, ApiError> {
    let known = app.registry().known(&get.target).ok_or_else(|| super::unknown(&get.target))?;
    let wanted = known.wanted;
    let isolation = match known.live {
        Some(live) => {
            let failed = |_| ApiError::new(ErrorCode::Failed, "Reading the isolation failed");
            Some(tokio::task::spawn_blocking(move || live.isolation()).await.map_err(failed)?)
        }
        None => None,
    };
    Ok(SandboxInfo {
        name: get.target.sandbox.to_string(),
        namespace: get.target.namespace.to_string(),
        running: isolation.is_some(),
        image: wanted.image.clone(),
        image_source: wanted.image_source,
        image_reference: wanted.image_reference.clone(),
        memory: wanted.memory_mib,
        cpus: f64::from(wanted.cpu_millis) / 1000.0,
        isolation,
    })
}
