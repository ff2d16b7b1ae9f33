// SPDX-License-Identifier: Apache-2.0
//! `sandbox.stop`

use protocol::calls::Target;
use protocol::errors::{ApiError, ErrorCode};

use crate::app::App;
use crate::sandbox::StopRefused;

pub(crate) async fn stop(app: &App, target: &Target) -> Result<String, ApiError> {
    match app.registry().stop(target).await {
        Ok(()) => Ok(format!("Sandbox {} stopped successfully", target.sandbox)),
        Err(StopRefused::Unknown) => Err(super::unknown(target)),
        Err(StopRefused::NotWholly(left)) => {
            let text =
                format!("Sandbox '{}' was stopped, but not all of it could be removed", target.sandbox);
            Err(ApiError::new(ErrorCode::Failed, text).detail(left).remedy(super::LOOK_INTO_LOG))
        }
    }
}
