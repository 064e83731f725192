//! The release of what a claim leaves behind: the lock, or the place among those who wait.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::{Attempt, Backend, BackendError, Claim};
use crate::lock::releaser::{RELEASE_TIMEOUT, Release, until_released};

/// How long an attempt is waited for whose caller has gone.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// An attempt in flight, of which its caller or the releaser sees the end.
type AttemptInFlight = Pin<Box<dyn Future<Output = AttemptResult> + Send>>;

/// What an attempt came to.
type AttemptResult = Result<Attempt, BackendError>;

/// What a claim leaves behind, or may have.
pub(super) struct ClaimRelease {
    backend: Arc<dyn Backend>,
    claim: Arc<Claim>,
    /// The attempt that was in flight when its caller went. The mutex makes it `Sync`, and is never locked.
    attempt: Mutex<Option<AttemptInFlight>>,
    /// Whether an attempt failed, and may still be carried out.
    is_doubtful: bool,
}

impl ClaimRelease {
    pub(super) fn new(backend: &Arc<dyn Backend>, claim: &Arc<Claim>) -> Self {
        let (backend, claim) = (Arc::clone(backend), Arc::clone(claim));
        Self { backend, claim, attempt: Mutex::default(), is_doubtful: false }
    }

    /// Awaits an attempt. When that is dropped half way, the attempt may still succeed, over a connection
    /// that its release does not share: so it is seen to its end before the release.
    pub(super) async fn after(&mut self, attempt: AttemptInFlight) -> AttemptResult {
        let result = self.in_flight().insert(attempt).await;
        *self.in_flight() = None;
        self.is_doubtful |= is_doubtful(&result);
        result
    }

    /// Releases until it is done. What cannot be released while its lease lasts is left to the expiry; what
    /// has none is tried for as long as the process lives.
    async fn until_released(&self) {
        let give_up = self.claim.lease.map(|lease| Instant::now() + lease);
        let gives_up = |next: Instant| give_up.is_some_and(|give_up| next >= give_up);
        if let Err(error) = until_released(self, RELEASE_TIMEOUT, |_, next| gives_up(next)).await {
            let key = &*self.claim.key;
            tracing::warn!(key, %error, "a lock could not be released and is left to its expiry");
        }
    }

    fn in_flight(&mut self) -> &mut Option<AttemptInFlight> {
        self.attempt.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Release for ClaimRelease {
    type Error = BackendError;

    async fn release(&self, note: Option<&str>) -> Result<(), BackendError> {
        self.backend.release(&self.claim, note).await
    }

    async fn finish(mut self) {
        self.claim.is_abandoned.store(true, Ordering::Release);
        if let Some(attempt) = self.in_flight().take() {
            // However it ended; or it hangs, and its lease has to.
            self.is_doubtful |= timeout(ATTEMPT_TIMEOUT, attempt).await.as_ref().map_or(true, is_doubtful);
        }
        self.until_released().await;
        if self.is_doubtful {
            // What was sent over a connection that broke may be carried out after the release.
            sleep(self.backend.late_write_window()).await;
            self.until_released().await;
        }
    }
}

fn is_doubtful(result: &AttemptResult) -> bool {
    matches!(result, Err(BackendError::Failed(_)))
}
