//! The two ends of a place in a queue.
//!
//! Both sides may end it: the worker by beginning its batch, the client by giving up. Exactly one of them
//! succeeds, so a change that was withdrawn is never made, and one that has begun is never called withdrawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::change::{Change, ChangeError, ChangeResult};
use crate::telemetry::tracer::{self, ActiveSpan};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A change in a queue.
#[derive(Debug)]
pub(super) struct QueuedChange {
    /// What is to be made.
    pub(super) change: Change,
    /// When it joined the queue.
    pub(super) since: Instant,
    /// When its client's timeout ends.
    pub(super) due: Instant,
    /// How often it was decided on a stock that had changed when it came to be written.
    pub(super) retries: u32,
    /// The request that asks for it, if that is traced.
    pub(super) trace: Option<Arc<ActiveSpan>>,
    state: Arc<AtomicU8>,
    result: oneshot::Sender<ChangeResult>,
}

/// The client's end of a place in a queue. Its drop withdraws the change, if its batch has not begun.
#[derive(Debug)]
pub(super) struct Ticket {
    state: Arc<AtomicU8>,
    result: oneshot::Receiver<ChangeResult>,
}

/// Both ends of a place in a queue.
pub(super) fn pair(change: Change, due: Instant) -> (QueuedChange, Ticket) {
    let state = Arc::new(AtomicU8::new(WAITING));
    let (sender, receiver) = oneshot::channel();
    let since = Instant::now();
    let trace = tracer::current();
    let waiting =
        QueuedChange { change, since, due, retries: 0, trace, state: Arc::clone(&state), result: sender };
    (waiting, Ticket { state, result: receiver })
}

impl QueuedChange {
    /// Begins the change; `false` when it has been withdrawn.
    pub(super) fn begin(&self) -> bool {
        self.state.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Puts the change back into the queue: nothing was written.
    pub(super) fn put_back(&mut self) {
        self.retries += 1;
        self.state.store(WAITING, Ordering::Release);
    }

    /// Whether it has been withdrawn.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.state.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Sends the client the result, if it is still there.
    pub(super) fn answer(self, result: ChangeResult) {
        self.result.send(result).ok();
    }
}

impl Ticket {
    /// Waits for the result. May be called again after it was cancelled.
    pub(super) async fn result(&mut self) -> ChangeResult {
        match (&mut self.result).await {
            Ok(result) => result,
            // The worker has ended without one.
            Err(_) if self.withdraw() => Err(ChangeError::ShuttingDown),
            Err(_) => Err(ChangeError::OutcomeUnknown),
        }
    }

    /// Withdraws the change; `false` when its batch has begun.
    pub(super) fn withdraw(&self) -> bool {
        self.state.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.withdraw();
    }
}
