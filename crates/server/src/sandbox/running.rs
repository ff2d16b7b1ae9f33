// SPDX-License-Identifier: Apache-2.0
//! A call into a running sandbox, and what is said when the sandbox ends under it.

use std::pin::pin;
use std::sync::Arc;

use protocol::agent::{Channel, Request};
use protocol::limits::ENDED_NOTICE_WAIT;
use tokio::sync::watch;

use super::live::{Answer, Broken, Live};
use super::state::State;

/// A sandbox that runs, and the news of its end.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) live: Arc<Live>,
    pub(super) states: watch::Receiver<State>,
}

impl Running {
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Carries out a request; when the sandbox ends meanwhile, the error says how.
    pub(crate) async fn call(
        mut self,
        request: Request,
        output: impl FnMut(Channel, &[u8]),
    ) -> Result<Answer, Broken> {
        let mut call = pin!(self.live.call(request, output));
        let result = tokio::select! {
            biased;
            result = &mut call => result,
            () = no_longer_running(&mut self.states) => {
                // The connection breaks any moment now; until then, what the sandbox said last is still taken.
                let gone = Broken { what: "it is no longer running".to_owned() };
                tokio::time::timeout(ENDED_NOTICE_WAIT, call).await.unwrap_or(Err(gone))
            }
        };
        let broken = match result {
            Ok(answer) => return Ok(answer),
            Err(broken) => broken,
        };
        let over = self.states.wait_for(|state| matches!(state, State::Ended(_) | State::Stopping));
        match tokio::time::timeout(ENDED_NOTICE_WAIT, over).await {
            Ok(Ok(state)) => Err(Broken { what: state.describe_end() }),
            Ok(Err(_)) | Err(_) => Err(broken),
        }
    }
}

impl State {
    fn describe_end(&self) -> String {
        match self {
            State::Ended(ending) => format!("the sandbox {}", ending.describe()),
            State::Stopping => "the sandbox was stopped".to_owned(),
            State::Starting | State::Running(_) => "the sandbox is there".to_owned(),
        }
    }
}

async fn no_longer_running(states: &mut watch::Receiver<State>) {
    // An error means that the driver is gone, and with it the sandbox.
    drop(states.wait_for(|state| !matches!(state, State::Running(_))).await);
}
