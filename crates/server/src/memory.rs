// SPDX-License-Identifier: Apache-2.0
//! How much memory all clients together can make the server hold: bodies that arrive, output that is collected, answers
//! that are not taken yet.
//!
//! Each has a budget in bytes. Small ones are not counted (their number is bounded by that of connections), so that a
//! full budget is felt only by whoever moves large things: a large body is refused, output is cut and says so, a large
//! answer waits for its turn.

use std::sync::Arc;

use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::{
    ANSWER_ROOM_WAIT, ANSWERS_BYTES_MAX, BODIES_BYTES_MAX, HEAVY_WORK_MAX, HEAVY_WORK_WAIT,
    MEMORY_SHARE_FREE_BYTES, MEMORY_SHARE_STEP_BYTES, OUTPUTS_BYTES_MAX,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budgets of one server, and the turns of those who do much work at once.
#[derive(Debug)]
pub(crate) struct Memory {
    bodies: Arc<Semaphore>,
    outputs: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
}

/// What one request holds of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Semaphore>,
    used: usize,
    covered: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        let budget = |bytes| Arc::new(Semaphore::new(bytes));
        Memory {
            bodies: budget(BODIES_BYTES_MAX),
            outputs: budget(OUTPUTS_BYTES_MAX),
            answers: budget(ANSWERS_BYTES_MAX),
            heavy: Arc::new(Semaphore::new(HEAVY_WORK_MAX)),
        }
    }

    /// Returns a share for the body of a request.
    pub(crate) fn body(&self) -> Share {
        Share::of(&self.bodies)
    }

    /// Returns a share for the output of the calls of a request.
    pub(crate) fn output(&self) -> Share {
        Share::of(&self.outputs)
    }

    /// Does work on something large, apart from the tasks that serve everybody and a little at a time.
    pub(crate) async fn heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = tokio::time::timeout(HEAVY_WORK_WAIT, Arc::clone(&self.heavy).acquire_owned()).await;
        let Ok(turn) = turn else {
            let text = "The server has too much to read and write for now";
            return Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("try again later"));
        };
        let done = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, also when nobody waits for it any more.
            let _turn = turn.expect("this semaphore is never closed");
            work()
        })
        .await;
        done.map_err(|_| ApiError::new(ErrorCode::Failed, "Something unexpected happened"))
    }

    /// Waits until there is room for an answer of at most so many bytes; `None` for a small one.
    pub(crate) async fn answer(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if bytes <= MEMORY_SHARE_FREE_BYTES {
            return Ok(None);
        }
        let room = Arc::clone(&self.answers).acquire_many_owned(permits(bytes.min(ANSWERS_BYTES_MAX)));
        match tokio::time::timeout(ANSWER_ROOM_WAIT, room).await {
            Ok(permit) => Ok(Some(permit.expect("this semaphore is never closed"))),
            Err(_) => {
                let text =
                    "The answer is too large for now: the server holds as many large answers as it may";
                Err(ApiError::new(ErrorCode::NoCapacity, text).remedy("print less, or try again later"))
            }
        }
    }
}

impl Share {
    fn of(budget: &Arc<Semaphore>) -> Share {
        Share { budget: Arc::clone(budget), used: 0, covered: MEMORY_SHARE_FREE_BYTES, held: None }
    }

    /// Takes more bytes; says no, and takes none, when the budget is used up.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let wanted = self.used.saturating_add(bytes);
        if wanted > self.covered {
            let step = (wanted - self.covered).next_multiple_of(MEMORY_SHARE_STEP_BYTES);
            let Ok(more) = Arc::clone(&self.budget).try_acquire_many_owned(permits(step)) else {
                return false;
            };
            match &mut self.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
            self.covered += step;
        }
        self.used = wanted;
        true
    }

    /// Returns the bytes that were taken.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// Bytes that give their room back when the last reader drops them.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Holds as much of the room as the bytes need, and gives the rest back.
    pub(crate) fn new(bytes: Vec<u8>, room: Option<OwnedSemaphorePermit>) -> Held {
        let room = room.and_then(|mut room| room.split(bytes.len().min(room.num_permits())));
        Held { bytes, _room: room }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_things_are_free_and_large_ones_share_a_budget() {
        let memory = Memory::new();
        let mut shares: Vec<Share> = (0..100_000).map(|_| memory.body()).collect();
        assert!(shares.iter_mut().all(|share| share.take(MEMORY_SHARE_FREE_BYTES)));
        let large = BODIES_BYTES_MAX / 4;
        let fit: Vec<bool> = shares[..6].iter_mut().map(|share| share.take(large)).collect();
        assert_eq!(fit, [true, true, true, true, false, false]);
        assert!(!shares[4].take(1));
        shares.remove(0);
        assert!(shares[3].take(large));
        assert_eq!(shares[3].used(), large + MEMORY_SHARE_FREE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_waits_for_room_but_not_for_ever() {
        let memory = Memory::new();
        assert!(memory.answer(MEMORY_SHARE_FREE_BYTES).await.unwrap().is_none());
        let whole = memory.answer(usize::MAX).await.unwrap();
        let error = memory.answer(1 << 20).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NoCapacity);
        let held = Held::new(vec![0; 10], whole);
        assert_eq!(memory.answers.available_permits(), ANSWERS_BYTES_MAX - 10);
        drop(held);
        assert_eq!(memory.answers.available_permits(), ANSWERS_BYTES_MAX);
    }
}
