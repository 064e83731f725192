//! What a connection is doing: known to the stream, which takes the time, and to whoever looks for an idle
//! one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::Version;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a connection is doing.
#[derive(Debug, Default)]
pub(super) struct Activity {
    phase: Mutex<Phase>,
    closed: CancellationToken,
}

/// Where a connection is between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of the next request has come, since then.
    Idle(Instant),
    /// The head of a request comes, since then.
    Head(Instant),
    /// A request of this version is being answered.
    Busy(Version),
    /// Its answer is being sent.
    Answered,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Idle(Instant::now())
    }
}

impl Activity {
    /// What it is doing now.
    pub(super) fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Notes that something has come.
    pub(super) fn received(&self) {
        let mut phase = self.lock();
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Head(Instant::now());
        }
    }

    /// Notes that a request is being answered, until what is returned is dropped.
    pub(super) fn answer(self: &Arc<Self>, version: Version) -> Answering {
        *self.lock() = Phase::Busy(version);
        Answering(Arc::clone(self))
    }

    /// Notes that all there was to send is on its way; returns whether that was an answer.
    pub(super) fn flushed(&self) -> bool {
        let mut phase = self.lock();
        let is_answer = *phase == Phase::Answered;
        if is_answer {
            *phase = Phase::Idle(Instant::now());
        }
        is_answer
    }

    /// For how long it has been idle; `None` while it is not.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        match self.phase() {
            Phase::Idle(since) if !self.closed.is_cancelled() => Some(since.elapsed()),
            _ => None,
        }
    }

    /// Closes the connection if it is still idle when it comes to know.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Cancelled when it is to be closed.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("nothing panics while it holds this")
    }
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.lock() = Phase::Answered;
    }
}
