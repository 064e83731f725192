//! The deletion of records and tickets whose owner is done with them, or has been dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::LockTable;
use crate::config::LeaseTime;

/// How long one deletion may take.
const ONE_TRY: Duration = Duration::from_secs(1);

/// The task that deletes what was left behind; one for each lock, for as long as it lives.
pub(super) struct Releaser {
    table: Arc<dyn LockTable>,
    left_behind: mpsc::UnboundedSender<Task>,
}

enum Task {
    Delete(Uuid),
    Flush(oneshot::Sender<()>),
}

impl Releaser {
    /// Starts the task. A record that cannot be deleted while its lease lasts is left to the expiry; one without
    /// an expiry is tried for as long as the process lives.
    pub(super) fn start(table: Arc<dyn LockTable>, lease: LeaseTime) -> Self {
        let (left_behind, mut tasks) = mpsc::unbounded_channel();
        let patience = lease.duration();
        let deleting = Arc::clone(&table);
        tokio::spawn(async move {
            while let Some(task) = tasks.recv().await {
                match task {
                    Task::Delete(owner) => delete(&*deleting, owner, patience).await,
                    Task::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { table, left_behind }
    }

    /// The duty to delete what `owner` leaves in the table.
    pub(super) fn obligation(&self, owner: Uuid) -> Obligation {
        Obligation {
            owner,
            table: Arc::clone(&self.table),
            left_behind: self.left_behind.clone(),
            fulfilled: false,
            held: false,
        }
    }

    /// Waits until all that was left behind until now is deleted.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.left_behind.send(Task::Flush(done)).is_ok() {
            // An error says that the task is gone, and with it what it had to do.
            flushed.await.ok();
        }
    }
}

/// The duty to delete what an owner leaves in the table: fulfilled at once, or by the releaser after a drop.
pub(super) struct Obligation {
    owner: Uuid,
    table: Arc<dyn LockTable>,
    left_behind: mpsc::UnboundedSender<Task>,
    fulfilled: bool,
    held: bool,
}

impl Obligation {
    pub(super) fn owner(&self) -> Uuid {
        self.owner
    }

    /// Notes that the attempt succeeded.
    pub(super) fn held(&mut self) {
        self.held = true;
    }

    /// Deletes now; what fails is left to the releaser.
    pub(super) async fn fulfil(mut self) {
        self.fulfilled = matches!(timeout(ONE_TRY, self.table.delete(self.owner)).await, Ok(Ok(())));
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        if !self.fulfilled {
            if self.held {
                tracing::debug!(owner = %self.owner, "a lock record is released in the background");
            }
            // An error says that the process is about to end; the expiry remains.
            self.left_behind.send(Task::Delete(self.owner)).ok();
        }
    }
}

async fn delete(table: &dyn LockTable, owner: Uuid, patience: Option<Duration>) {
    let give_up = patience.map(|patience| Instant::now() + patience);
    let mut pause = Duration::from_millis(10);
    loop {
        match timeout(ONE_TRY, table.delete(owner)).await {
            Ok(Ok(())) => return,
            failed if give_up.is_some_and(|give_up| Instant::now() + pause >= give_up) => {
                tracing::warn!(%owner, ?failed, "a lock record could not be deleted and is left to its expiry");
                return;
            }
            _ => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
