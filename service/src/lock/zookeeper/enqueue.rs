//! A claim's node and its way to the front of the queue: create it, list the directory, watch whoever keeps
//! it out.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{CreateMode, Error, OneshotWatcher};

use super::PAUSE;
use super::attempt_status::AttemptStatus;
use super::error::is_transient;
use super::node::{self, Contenders, NodeClaim, Turn, Wear};
use super::node_release::NodeRelease;
use super::session::Session;
use crate::config::Watch;
use crate::lock::FencingToken;
use crate::lock::releaser::{PendingRelease, Releaser};
use crate::telemetry::LockMetrics;

/// A claim that is to queue up in a session.
pub(super) struct Enqueue<'a> {
    pub(super) claim: &'a NodeClaim,
    pub(super) session: &'a Arc<Session>,
    /// What the node says of its owner.
    pub(super) holder: &'a str,
    pub(super) watch: Watch,
    pub(super) status: &'a AttemptStatus,
    pub(super) metrics: &'a LockMetrics,
}

/// A node at the front of its queue.
pub(super) struct FrontNode {
    pub(super) path: String,
    pub(super) session: Arc<Session>,
    pub(super) release: PendingRelease<NodeRelease>,
    /// The directory, where it is to be removed when it is empty.
    pub(super) worn_directory: Option<String>,
    pub(super) token: FencingToken,
    pub(super) sequence: Option<i64>,
    pub(super) is_contended: bool,
}

/// Why a node did not come to the front.
pub(super) enum EnqueueError {
    /// The directory has no numbers left.
    NumbersAreUsedUp,
    Failed(Error),
}

impl From<Error> for EnqueueError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Enqueue<'_> {
    /// Creates the node, and returns when it is at the front. What is left behind until then is `releaser`'s
    /// to delete.
    pub(super) async fn run(&self, releaser: &Releaser) -> Result<FrontNode, EnqueueError> {
        let Self { claim, session, .. } = self;
        let mut release = releaser.pending(NodeRelease::new(session, claim, &self.metrics.round_trips));
        let (node, mut listing) = self.create_node(release.get_mut()).await?;
        let wear = node::wear(&node.name);
        if wear == Wear::UsedUp {
            release.now(None).await;
            session.remove_directory(&claim.directory).await?;
            return Err(EnqueueError::NumbersAreUsedUp);
        }
        let mut front = FrontNode {
            path: format!("{}/{}", claim.directory, node.name),
            session: Arc::clone(session),
            release,
            worn_directory: (wear == Wear::Worn).then(|| claim.directory.clone()),
            token: node.token,
            sequence: node.sequence,
            is_contended: false,
        };
        loop {
            match self.status.unless_transient(listing) {
                None => sleep(PAUSE).await,
                Some(listed) => {
                    let listed = listed?;
                    self.status.recovered();
                    let queue = Contenders::of(listed.names.iter().map(String::as_str));
                    match queue.turn(&node.name, claim.mode) {
                        // Gone: with its session, or deleted by an operator.
                        Turn::Absent => return Err(Error::SessionExpired.into()),
                        Turn::Now => return Ok(front),
                        Turn::After(predecessor) => {
                            front.is_contended = true;
                            self.changed(predecessor.name, listed.change).await?;
                        }
                    }
                }
            }
            listing = self.status.reply.during(self.list()).await;
        }
    }

    /// Creates the claim's node, and lists the directory with it.
    async fn create_node(
        &self,
        release: &mut NodeRelease,
    ) -> Result<(CreatedNode, Result<Listing, Error>), Error> {
        let Self { claim, session, .. } = self;
        let prefix = format!("{}/{}", claim.directory, claim.prefix);
        let options = CreateMode::EphemeralSequential.with_acls(session.acls());
        loop {
            self.status.reply.during(session.create_directory(&claim.directory)).await?;
            // A session's requests are answered in their order. So one is sent behind the other, without
            // waiting.
            let sent = Instant::now();
            let creation = session.client.create(&prefix, self.holder.as_bytes(), &options);
            let both = async { tokio::join!(creation, self.list()) };
            let (created, listing) = self.status.reply.during(both).await;
            match created {
                Ok((stat, sequence)) => {
                    let name = format!("{}{sequence}", claim.prefix);
                    let (token, sequence) = (FencingToken(stat.czxid), Some(sequence.into_i64()));
                    session.confirmed(sent);
                    release.node_is(&name);
                    return Ok((CreatedNode { name, token, sequence }, listing));
                }
                // The directory was removed: by an operator, or since its numbers come to their end.
                Err(Error::NoNode) => session.forget_directory(&claim.directory),
                Err(error) if is_transient(&error) => {
                    self.status.failed(&error);
                    release.is_doubtful();
                    sleep(PAUSE).await;
                    // The node may have been created all the same.
                    if let Some(node) = self.find_node().await? {
                        return Ok((node, self.status.reply.during(self.list()).await));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks for the claim's node, the reply to whose creation was lost.
    async fn find_node(&self) -> Result<Option<CreatedNode>, Error> {
        let Self { claim, session, .. } = self;
        loop {
            let found = async {
                // The creation is over, then, also where this server has not heard of it before.
                self.metrics.round_trips.inc();
                session.client.sync(&claim.directory).await?;
                let listing = self.list().await?;
                let mine = listing.names.into_iter().find(|name| name.starts_with(&claim.prefix));
                let Some(name) = mine else { return Ok(None) };
                self.metrics.round_trips.inc();
                let stat = session.client.check_stat(&format!("{}/{name}", claim.directory)).await?;
                let owner = session.client.session_id().0;
                let mine = stat.filter(|stat| stat.ephemeral_owner == owner);
                Ok(mine.map(|stat| CreatedNode { name, token: FencingToken(stat.czxid), sequence: None }))
            };
            match self.status.unless_transient(self.status.reply.during(found).await) {
                Some(found) => return found,
                None => sleep(PAUSE).await,
            }
        }
    }

    /// Lists the nodes of a lock. Those who watch all their siblings do it with the listing.
    async fn list(&self) -> Result<Listing, Error> {
        let Self { claim, session, .. } = self;
        self.metrics.round_trips.inc();
        self.metrics.listings.inc();
        Ok(match self.watch {
            Watch::Predecessor => {
                let names = session.client.list_children(&claim.directory).await?;
                Listing { names, change: None }
            }
            Watch::Siblings => {
                let (names, change) = session.client.list_and_watch_children(&claim.directory).await?;
                Listing { names, change: Some(change) }
            }
        })
    }

    /// Waits until there is reason to list again: until `change` happens, or else to the predecessor.
    async fn changed(&self, predecessor: &str, change: Option<OneshotWatcher>) -> Result<(), Error> {
        let Self { claim, session, .. } = self;
        let watcher = match change {
            Some(change) => Ok(change),
            None => {
                let path = format!("{}/{predecessor}", claim.directory);
                self.metrics.round_trips.inc();
                let watch = self.status.reply.during(session.client.get_and_watch_data(&path)).await;
                watch.map(|(_, _, watcher)| watcher)
            }
        };
        match watcher {
            Ok(watcher) => {
                // The backstop is for a watch that was lost on the way; it is not what one waits for.
                if timeout(session.timeout, watcher.changed()).await.is_ok() {
                    self.metrics.watch_notifications.inc();
                }
                Ok(())
            }
            Err(Error::NoNode) => Ok(()),
            Err(error) if is_transient(&error) => {
                self.status.failed(&error);
                sleep(PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A node that is there.
struct CreatedNode {
    name: String,
    token: FencingToken,
    /// How many nodes the directory had seen, where that is known.
    sequence: Option<i64>,
}

/// What a lock's directory had in it.
struct Listing {
    names: Vec<String>,
    /// Fires when there is anything more or less in it.
    change: Option<OneshotWatcher>,
}
