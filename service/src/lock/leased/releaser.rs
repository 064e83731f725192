//! The release of what an owner is done with, or has left behind.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Attempt, Backend, BackendError, Claim};
use crate::config::LeaseTime;

/// How long an attempt is waited for whose caller has gone.
const ONE_ATTEMPT: Duration = Duration::from_secs(10);

/// How long one release may take.
const ONE_TRY: Duration = Duration::from_secs(1);

/// What an attempt came to.
type Outcome = Result<Attempt, BackendError>;

/// An attempt under way, of which its caller or the releaser sees the end.
type AttemptUnderWay = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The task that releases what was left behind; one for each lock, for as long as it lives.
pub(super) struct Releaser {
    backend: Arc<dyn Backend>,
    left_behind: mpsc::UnboundedSender<Task>,
}

enum Task {
    Release(LeftBehind),
    Flush(oneshot::Sender<()>),
}

/// What an owner has left behind, or may have.
struct LeftBehind {
    claim: Arc<Claim>,
    /// The attempt that was under way when its caller went.
    attempt: Option<AttemptUnderWay>,
    /// Whether an attempt failed, and may still be carried out.
    is_doubtful: bool,
}

impl Releaser {
    /// Starts the task. What cannot be released while its lease lasts is left to the expiry; what has none is tried
    /// for as long as the process lives.
    pub(super) fn start(backend: Arc<dyn Backend>, lease: LeaseTime) -> Self {
        let (left_behind, mut tasks) = mpsc::unbounded_channel();
        let give_up_after = lease.duration();
        let releasing = Arc::clone(&backend);
        tokio::spawn(async move {
            // Concurrently: one that hangs must not keep the others from being released.
            let mut releases = JoinSet::new();
            while let Some(task) = tasks.recv().await {
                while releases.try_join_next().is_some() {}
                match task {
                    Task::Release(left_behind) => {
                        let releasing = Arc::clone(&releasing);
                        releases
                            .spawn(async move { left_behind.clear_away(&*releasing, give_up_after).await });
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

    /// The release of whatever the claim will leave behind.
    pub(super) fn pending(&self, claim: &Arc<Claim>) -> PendingRelease {
        let (backend, left_behind) = (Arc::clone(&self.backend), self.left_behind.clone());
        let claim = Arc::clone(claim);
        PendingRelease { claim, backend, left_behind, is_doubtful: false, is_done: false }
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

/// The release of what a claim leaves behind: made when it is asked for, or by the releaser after a drop.
pub(super) struct PendingRelease {
    claim: Arc<Claim>,
    backend: Arc<dyn Backend>,
    left_behind: mpsc::UnboundedSender<Task>,
    is_doubtful: bool,
    /// Whether there is nothing left to do, or the releaser does it.
    is_done: bool,
}

/// An attempt that is awaited; when that is dropped, the releaser takes it over.
struct Awaited<'a> {
    release: &'a mut PendingRelease,
    attempt: Option<AttemptUnderWay>,
}

impl PendingRelease {
    /// Awaits an attempt. When that is dropped half way, the attempt may still succeed, over a connection that its
    /// release does not share: so the releaser sees it to its end first.
    pub(super) async fn after(&mut self, attempt: AttemptUnderWay) -> Outcome {
        let mut awaited = Awaited { release: self, attempt: None };
        let outcome = awaited.attempt.insert(attempt).await;
        awaited.attempt = None;
        drop(awaited);
        self.is_doubtful |= is_doubtful(&outcome);
        outcome
    }

    /// Releases now; what fails is left to the releaser.
    pub(super) async fn now(mut self, note: Option<&str>) {
        self.is_done = matches!(timeout(ONE_TRY, self.backend.release(&self.claim, note)).await, Ok(Ok(())));
    }
}

impl PendingRelease {
    /// Leaves the release to the releaser, after the end of the attempt that is under way.
    fn leave(&mut self, attempt: Option<AttemptUnderWay>) {
        let left_behind =
            LeftBehind { claim: Arc::clone(&self.claim), attempt, is_doubtful: self.is_doubtful };
        // An error says that the process is about to end; the expiry remains.
        self.left_behind.send(Task::Release(left_behind)).ok();
        self.is_done = true;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.release.leave(Some(attempt));
        }
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        if !self.is_done {
            self.leave(None);
        }
    }
}

impl LeftBehind {
    async fn clear_away(self, backend: &dyn Backend, give_up_after: Option<Duration>) {
        let mut is_doubtful = self.is_doubtful;
        if let Some(attempt) = self.attempt {
            // However it ended; or it hangs, and its lease has to.
            is_doubtful |= timeout(ONE_ATTEMPT, attempt).await.as_ref().map_or(true, self::is_doubtful);
        }
        release(backend, &self.claim, give_up_after).await;
        if is_doubtful {
            // What was sent over a connection that broke may be carried out after the release.
            sleep(backend.late_write_window()).await;
            release(backend, &self.claim, give_up_after).await;
        }
    }
}

fn is_doubtful(outcome: &Outcome) -> bool {
    matches!(outcome, Err(BackendError::Failed(_)))
}

async fn release(backend: &dyn Backend, claim: &Arc<Claim>, give_up_after: Option<Duration>) {
    let give_up = give_up_after.map(|after| Instant::now() + after);
    let mut pause = Duration::from_millis(10);
    loop {
        match timeout(ONE_TRY, backend.release(claim, None)).await {
            Ok(Ok(())) => return,
            failed if give_up.is_some_and(|give_up| Instant::now() + pause >= give_up) => {
                tracing::warn!(
                    key = &*claim.key,
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
