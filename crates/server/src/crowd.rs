// SPDX-License-Identifier: Apache-2.0
//! How many requests of one caller are served at once: nobody takes all connections for themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::CALLER_REQUESTS_MAX;

use crate::caller::Caller;

/// The callers whose requests are being served: a cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    serving: Arc<Mutex<HashMap<Caller, usize>>>,
}

/// Counts one request as long as it is held.
#[derive(Debug)]
pub(crate) struct Served {
    crowd: Crowd,
    caller: Caller,
}

impl Crowd {
    /// Lets one more request of a caller in, unless as many are served as may be.
    pub(crate) fn enter(&self, caller: &Caller) -> Result<Served, ApiError> {
        let mut serving = self.serving();
        let count = serving.entry(caller.clone()).or_default();
        if *count >= CALLER_REQUESTS_MAX {
            let text = format!("{CALLER_REQUESTS_MAX} requests of this caller are being served already");
            return Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("wait for some of them"));
        }
        *count += 1;
        Ok(Served { crowd: self.clone(), caller: caller.clone() })
    }

    fn serving(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut serving = self.crowd.serving();
        if let Some(count) = serving.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                serving.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::calls::Scope;

    use super::*;

    #[test]
    fn one_caller_cannot_shut_out_another() {
        let crowd = Crowd::default();
        let greedy = Caller::with_key("greedy", Scope::All);
        let served: Vec<Served> = (0..CALLER_REQUESTS_MAX).map(|_| crowd.enter(&greedy).unwrap()).collect();
        assert_eq!(crowd.enter(&greedy).unwrap_err().code, ErrorCode::NoCapacity);
        assert!(crowd.enter(&Caller::open()).is_ok());
        drop(served);
        assert!(crowd.enter(&greedy).is_ok());
        assert!(crowd.serving().is_empty());
    }
}
