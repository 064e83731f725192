//! The deletion of nodes whose owner is done with them, or has been dropped.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use zookeeper_client::{Client, Error};

use super::error::is_transient;
use super::node::NodeClaim;
use super::session::Session;
use crate::lock::releaser::{RELEASE_TIMEOUT, Release, ReleaseError, until_released};

/// What a claim's attempt leaves behind: a node that is there, or may be.
pub(super) struct NodeRelease {
    session: Arc<Session>,
    directory: String,
    prefix: String,
    /// `None`: the reply to its creation has not come.
    path: Option<String>,
    /// Whether there may be more than one: it was tried to make it again.
    is_doubtful: bool,
    round_trips: Counter,
}

impl NodeRelease {
    pub(super) fn new(session: &Arc<Session>, claim: &NodeClaim, round_trips: &Counter) -> Self {
        Self {
            session: Arc::clone(session),
            directory: claim.directory.clone(),
            prefix: claim.prefix.clone(),
            path: None,
            is_doubtful: false,
            round_trips: round_trips.clone(),
        }
    }

    /// Notes the node's name, now that it is known.
    pub(super) fn node_is(&mut self, name: &str) {
        self.path = Some(format!("{}/{name}", self.directory));
    }

    /// Notes that the reply to a creation was lost.
    pub(super) fn is_doubtful(&mut self) {
        self.is_doubtful = true;
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

    /// The client, for one request.
    fn counted(&self) -> &Client {
        self.round_trips.inc();
        &self.session.client
    }
}

#[async_trait]
impl Release for NodeRelease {
    type Error = Error;

    /// Requests of a session are answered in order, and `sync` waits for what other servers still do for it:
    /// where the creation was in flight, it is over when the directory is listed.
    async fn release(&self, _: Option<&str>) -> Result<(), Error> {
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

    /// Deletes until the node is gone, or its session over.
    async fn finish(self) {
        if !self.session.is_alive() {
            return;
        }
        // Of several requests, which a slow ensemble answers one after the other.
        let limit = self.session.timeout.max(RELEASE_TIMEOUT);
        let is_final = |error: &ReleaseError<Error>| match error {
            ReleaseError::Failed(error) => !is_transient(error),
            ReleaseError::TimedOut => false,
        };
        let gives_up = |error: &_, _| is_final(error) || !self.session.is_alive();
        if let Err(error) = until_released(&self, limit, gives_up).await {
            tracing::debug!(%error, "a node is left to the end of its session");
        }
    }
}
