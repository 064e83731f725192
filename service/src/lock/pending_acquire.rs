//! A lock that is being acquired: one future for as long as it takes, whatever deadlines pass meanwhile.

use std::pin::Pin;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::{Acquire, Lease, LockError, Waited};

type Acquisition = Pin<Box<dyn Future<Output = Result<Lease, LockError>> + Send>>;

/// An acquisition in flight: what a lock's [`begin`](super::Lock::begin) may return. Its drop drops the
/// future.
pub struct PendingAcquire {
    /// `None` once it has come to its end.
    acquisition: Option<Acquisition>,
    reason: Box<dyn Fn() -> LockError + Send + Sync>,
}

impl PendingAcquire {
    /// An acquisition, and why it is not over yet, to be asked when a deadline has passed.
    pub fn new(
        acquisition: impl Future<Output = Result<Lease, LockError>> + Send + 'static,
        reason: impl Fn() -> LockError + Send + Sync + 'static,
    ) -> Self {
        Self { acquisition: Some(Box::pin(acquisition)), reason: Box::new(reason) }
    }
}

#[async_trait]
impl Acquire for PendingAcquire {
    async fn wait(&mut self, deadline: Instant) -> Waited {
        let Some(acquisition) = &mut self.acquisition else { return Waited::Failed((self.reason)()) };
        let Ok(result) = timeout_at(deadline, acquisition).await else {
            return Waited::Pending((self.reason)());
        };
        self.acquisition = None;
        result.map_or_else(Waited::Failed, Waited::Granted)
    }
}
