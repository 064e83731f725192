//! The release of what an owner is done with, or has left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::{Attempt, Backend, BackendError, Claim};
use crate::config::LeaseTime;

/// How long an attempt is waited for whose caller has gone.
const ONE_ATTEMPT: Duration = Duration::from_secs(10);

/// What an attempt came to.
type Outcome = Result<Attempt, BackendError>;

/// How long one release may take.
const ONE_TRY: Duration = Duration::from_secs(1);

/// The task that releases what was left behind; one for each lock, for as long as it lives.
pub(super) struct Releaser {
    backend: Arc<dyn Backend>,
    left_behind: mpsc::UnboundedSender<Task>,
}

enum Task {
    Release(Leftover),
    Flush(oneshot::Sender<()>),
}

/// What an owner has left behind, or may have.
struct Leftover {
    claim: Claim,
    /// The attempt that was under way when its caller went.
    attempt: Option<JoinHandle<Outcome>>,
    /// Whether an attempt failed, and may still be carried out.
    is_doubtful: bool,
}

impl Releaser {
    /// Starts the task. What cannot be released while its lease lasts is left to the expiry; what has none is tried for as long as the process lives.
    pub(super) fn start(backend: Arc<dyn Backend>, lease: LeaseTime) -> Self {
        let (left_behind, mut tasks) = mpsc::unbounded_channel();
        let patience = lease.duration();
        let releasing = Arc::clone(&backend);
        tokio::spawn(async move {
            // Beside each other: one that hangs must not keep the others from being released.
            let mut releases = JoinSet::new();
            while let Some(task) = tasks.recv().await {
                while releases.try_join_next().is_some() {}
                match task {
                    Task::Release(leftover) => {
                        let releasing = Arc::clone(&releasing);
                        releases.spawn(async move { leftover.clear_away(&*releasing, patience).await });
                    }
                    Task::Flush(done) => {
                        while releases.join_next().await.is_some() {}
                        done.send(()).ok();
                    }
                }
            }
            // The lock is gone; what it has left behind is not.
            releases.join_all().await;
        });
        Self { backend, left_behind }
    }

    /// The duty to release what the claim leaves behind.
    pub(super) fn obligation(&self, claim: Claim) -> Obligation {
        let (backend, left_behind) = (Arc::clone(&self.backend), self.left_behind.clone());
        Obligation { claim, backend, left_behind, attempt: None, is_doubtful: false, fulfilled: false }
    }

    /// Waits until all that was left behind until now is released.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.left_behind.send(Task::Flush(done)).is_ok() {
            // An error says that the task is gone, and with it what it had to do.
            flushed.await.ok();
        }
    }
}

/// The duty to release what a claim leaves behind: fulfilled at once, or by the releaser after a drop.
pub(super) struct Obligation {
    claim: Claim,
    backend: Arc<dyn Backend>,
    left_behind: mpsc::UnboundedSender<Task>,
    /// The attempt that is under way.
    attempt: Option<JoinHandle<Outcome>>,
    is_doubtful: bool,
    fulfilled: bool,
}

impl Obligation {
    /// Waits for an attempt. When that is dropped half way, the release waits for the attempt's end.
    pub(super) async fn watch(&mut self, attempt: JoinHandle<Outcome>) -> Outcome {
        let outcome = self.attempt.insert(attempt).await;
        self.attempt = None;
        let outcome = outcome.unwrap_or_else(|error| Err(BackendError::Failed(error.to_string())));
        self.is_doubtful |= is_doubtful(&outcome);
        outcome
    }

    /// Releases now; what fails is left to the releaser.
    pub(super) async fn fulfil(mut self) {
        self.fulfilled = matches!(timeout(ONE_TRY, self.backend.release(&self.claim)).await, Ok(Ok(())));
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        if !self.fulfilled {
            // An error says that the process is about to end; the expiry remains.
            let (claim, attempt) = (self.claim.clone(), self.attempt.take());
            self.left_behind
                .send(Task::Release(Leftover { claim, attempt, is_doubtful: self.is_doubtful }))
                .ok();
        }
    }
}

impl Leftover {
    async fn clear_away(self, backend: &dyn Backend, patience: Option<Duration>) {
        let mut is_doubtful = self.is_doubtful;
        if let Some(attempt) = self.attempt {
            // However it ended; or it hangs, and its lease has to.
            is_doubtful |= match timeout(ONE_ATTEMPT, attempt).await {
                Ok(Ok(outcome)) => self::is_doubtful(&outcome),
                Ok(Err(_)) | Err(_) => true,
            };
        }
        release(backend, &self.claim, patience).await;
        if is_doubtful {
            // What was sent over a connection that broke may be carried out after the release.
            sleep(backend.straggles()).await;
            release(backend, &self.claim, patience).await;
        }
    }
}

fn is_doubtful(outcome: &Outcome) -> bool {
    matches!(outcome, Err(BackendError::Failed(_)))
}

async fn release(backend: &dyn Backend, claim: &Claim, patience: Option<Duration>) {
    let give_up = patience.map(|patience| Instant::now() + patience);
    let mut pause = Duration::from_millis(10);
    loop {
        match timeout(ONE_TRY, backend.release(claim)).await {
            Ok(Ok(())) => return,
            failed if give_up.is_some_and(|give_up| Instant::now() + pause >= give_up) => {
                tracing::warn!(
                    key = claim.key,
                    ?failed,
                    "a lock could not be released and is left to its expiry"
                );
                return;
            }
            _ => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
