//! The release of what an owner is done with, or has left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::{Backend, Claim};
use crate::config::LeaseTime;

/// How long one release may take.
const ONE_TRY: Duration = Duration::from_secs(1);

/// The task that releases what was left behind; one for each lock, for as long as it lives.
pub(super) struct Releaser {
    backend: Arc<dyn Backend>,
    left_behind: mpsc::UnboundedSender<Task>,
}

enum Task {
    Release(Claim),
    Flush(oneshot::Sender<()>),
}

impl Releaser {
    /// Starts the task. What cannot be released while its lease lasts is left to the expiry; what has none is tried for as long as the process lives.
    pub(super) fn start(backend: Arc<dyn Backend>, lease: LeaseTime) -> Self {
        let (left_behind, mut tasks) = mpsc::unbounded_channel();
        let patience = lease.duration();
        let releasing = Arc::clone(&backend);
        tokio::spawn(async move {
            while let Some(task) = tasks.recv().await {
                match task {
                    Task::Release(claim) => release(&*releasing, &claim, patience).await,
                    Task::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { backend, left_behind }
    }

    /// The duty to release what the claim leaves behind.
    pub(super) fn obligation(&self, claim: Claim) -> Obligation {
        let (backend, left_behind) = (Arc::clone(&self.backend), self.left_behind.clone());
        Obligation { claim, backend, left_behind, fulfilled: false }
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
    fulfilled: bool,
}

impl Obligation {
    /// Releases now; what fails is left to the releaser.
    pub(super) async fn fulfil(mut self) {
        self.fulfilled = matches!(timeout(ONE_TRY, self.backend.release(&self.claim)).await, Ok(Ok(())));
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        if !self.fulfilled {
            // An error says that the process is about to end; the expiry remains.
            self.left_behind.send(Task::Release(self.claim.clone())).ok();
        }
    }
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
