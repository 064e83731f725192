//! The deletion of nodes whose owner is done with them, or has been dropped.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, Error};

use super::session::Session;
use super::{Claim, is_transient};

/// How long a release waits for the deletion before it leaves it to the background.
const ONE_TRY: Duration = Duration::from_secs(1);

/// The task that deletes what was left behind; one for each lock, for as long as it lives.
pub(super) struct Releaser {
    left_behind: mpsc::UnboundedSender<Task>,
    round_trips: Counter,
}

enum Task {
    Delete(Node),
    Flush(oneshot::Sender<()>),
}

/// A node that is there, or may be.
#[derive(Clone)]
struct Node {
    session: Arc<Session>,
    directory: String,
    prefix: String,
    /// `None`: the reply to its creation has not come.
    path: Option<String>,
    /// Whether there may be more than one: it was tried to make it again.
    is_doubtful: bool,
    round_trips: Counter,
}

impl Releaser {
    pub(super) fn start(round_trips: Counter) -> Self {
        let (left_behind, mut tasks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Beside each other: a session that hangs must not keep another's nodes from being deleted.
            let mut deletions = JoinSet::new();
            while let Some(task) = tasks.recv().await {
                while deletions.try_join_next().is_some() {}
                match task {
                    Task::Delete(node) => drop(deletions.spawn(async move { node.delete().await })),
                    Task::Flush(done) => {
                        while deletions.join_next().await.is_some() {}
                        done.send(()).ok();
                    }
                }
            }
            // The lock is gone; what it has left behind is not.
            deletions.join_all().await;
        });
        Self { left_behind, round_trips }
    }

    /// The duty to delete what the claim's attempt leaves behind.
    pub(super) fn obligation(&self, session: &Arc<Session>, claim: &Claim) -> Leftover {
        let node = Node {
            session: Arc::clone(session),
            directory: claim.directory.clone(),
            prefix: claim.prefix.clone(),
            path: None,
            is_doubtful: false,
            round_trips: self.round_trips.clone(),
        };
        Leftover { node, left_behind: self.left_behind.clone(), cleared: false }
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

/// The duty to delete a node: done at once, or by the releaser after a drop.
pub(super) struct Leftover {
    node: Node,
    left_behind: mpsc::UnboundedSender<Task>,
    cleared: bool,
}

impl Leftover {
    /// Notes the node's name, now that it is known.
    pub(super) fn node_is(&mut self, name: &str) {
        self.node.path = Some(format!("{}/{name}", self.node.directory));
    }

    /// Notes that the reply to a creation was lost.
    pub(super) fn is_doubtful(&mut self) {
        self.node.is_doubtful = true;
    }

    /// Deletes now; what fails is left to the releaser.
    pub(super) async fn clear_away(mut self) {
        self.cleared = matches!(timeout(ONE_TRY, self.node.try_delete()).await, Ok(Ok(())));
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if !self.cleared {
            // An error says that the process is about to end, and the session with it.
            self.left_behind.send(Task::Delete(self.node.clone())).ok();
        }
    }
}

impl Node {
    /// Deletes until it is gone, or its session over.
    async fn delete(self) {
        let mut pause = Duration::from_millis(10);
        // Of several requests, which a slow ensemble answers one after the other.
        let one_try = self.session.timeout.max(ONE_TRY);
        while self.session.is_alive() {
            match timeout(one_try, self.try_delete()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) if !is_transient(&error) => {
                    tracing::debug!(%error, "a node is left to the end of its session");
                    return;
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(ONE_TRY);
        }
    }

    /// The client, for one request.
    fn counted(&self) -> &Client {
        self.round_trips.inc();
        &self.session.client
    }

    /// Requests of a session are answered in order, and `sync` waits for what other servers still do for it: where the
    /// creation was under way, it is over when the directory is listed.
    async fn try_delete(&self) -> Result<(), Error> {
        let paths = match &self.path {
            Some(path) if !self.is_doubtful => vec![path.clone()],
            _ => self.find().await?,
        };
        for path in paths {
            match self.counted().delete(&path, None).await {
                Ok(()) | Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All that the attempt has made.
    async fn find(&self) -> Result<Vec<String>, Error> {
        self.counted().sync(&self.directory).await?;
        match self.counted().list_children(&self.directory).await {
            Ok(names) => {
                let mine = names.into_iter().filter(|name| name.starts_with(&self.prefix));
                Ok(mine.map(|name| format!("{}/{name}", self.directory)).collect())
            }
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
