//! The two ends of a place in the line.
//!
//! Both sides may end it: the worker by beginning its batch, the client by giving up. Exactly one of them
//! succeeds, so a change that was withdrawn is never made, and one that has begun is never called withdrawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Change};
use crate::checkout::Refusal;

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A change in the line.
#[derive(Debug)]
pub struct Waiting {
    /// The change.
    pub change: Change,
    /// When it joined the line.
    pub since: Instant,
    /// When its client's patience ends.
    pub due: Instant,
    /// How often it was decided on a stock that had changed when it came to be written.
    pub retries: u32,
    state: Arc<AtomicU8>,
    answer: oneshot::Sender<Answer>,
}

/// The client's end of a place in the line. Its drop withdraws the change, if its batch has not begun.
#[derive(Debug)]
pub struct Ticket {
    state: Arc<AtomicU8>,
    answer: oneshot::Receiver<Answer>,
}

/// Both ends of a place in the line.
pub(super) fn pair(change: Change, due: Instant) -> (Waiting, Ticket) {
    let state = Arc::new(AtomicU8::new(WAITING));
    let (sender, receiver) = oneshot::channel();
    let waiting =
        Waiting { change, since: Instant::now(), due, retries: 0, state: Arc::clone(&state), answer: sender };
    (waiting, Ticket { state, answer: receiver })
}

impl Waiting {
    /// Begins the change; `false` when it has been withdrawn.
    pub fn begin(&self) -> bool {
        self.state.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Puts the change back into the line: nothing was written.
    pub fn put_back(&mut self) {
        self.retries += 1;
        self.state.store(WAITING, Ordering::Release);
    }

    /// Whether it has been withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        self.state.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Answers the client, if it is still there.
    pub fn answer(self, answer: Answer) {
        self.answer.send(answer).ok();
    }
}

impl Ticket {
    /// Waits for the answer. May be called again after it was cancelled.
    pub async fn answer(&mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            // The worker has ended without an answer.
            Err(_) if self.withdraw() => Err(Refusal::ShuttingDown),
            Err(_) => Err(Refusal::OutcomeUnknown),
        }
    }

    /// Withdraws the change; `false` when its batch has begun.
    pub fn withdraw(&self) -> bool {
        self.state.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.withdraw();
    }
}
