//! A session with the ensemble, and until when the server is known to keep it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState};

use crate::config::ZookeeperSection;
use crate::lock::Validity;
use crate::telemetry::LockMetrics;

/// A session. Its drop closes it.
pub(super) struct Session {
    pub(super) client: Client,
    /// What the ensemble agreed to.
    pub(super) timeout: Duration,
    /// Of all leases of the session.
    pub(super) validity: Validity,
    /// The node under which the locks are; empty for the ensemble's own root.
    pub(super) root: String,
    acls: Acls<'static>,
    directories: Mutex<HashSet<String>>,
    heartbeat: JoinHandle<()>,
}

impl Session {
    pub(super) async fn connect(config: &ZookeeperSection, metrics: &LockMetrics) -> Result<Self, Error> {
        let asked = Instant::now();
        let mut connector = Client::connector()
            .with_session_timeout(config.session_timeout)
            .with_connection_timeout(config.session_timeout);
        let mut acls = Acls::anyone_all();
        if !config.auth.reveal().is_empty() {
            connector = connector.with_auth("digest", config.auth.reveal().as_bytes());
            acls = Acls::creator_all();
        }
        // The chroot is part of the root: one that is not there yet is made like it.
        let client = connector.connect(config.hosts()).await?;
        let agreed = client.session_timeout();
        let root = config.absolute_root();
        if !root.is_empty() {
            made(client.mkdir(&root, &CreateMode::Persistent.with_acls(acls)).await)?;
        }
        let validity = Validity::until(kept_until(asked, agreed));
        let directories = Mutex::default();
        let heartbeat = Heartbeat {
            client: client.clone(),
            // Whether it is there does not matter.
            path: if root.is_empty() { "/".into() } else { root.clone() },
            agreed,
            validity: validity.clone(),
            metrics: metrics.clone(),
        };
        let heartbeat = tokio::spawn(heartbeat.beat());
        Ok(Self { client, root, timeout: agreed, validity, acls, directories, heartbeat })
    }

    /// Who may do what with the nodes.
    pub(super) fn acls(&self) -> Acls<'static> {
        self.acls
    }

    /// Whether the server answers.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        self.client.check_stat(if self.root.is_empty() { "/" } else { &self.root }).await.map(drop)
    }

    /// Whether it has not come to its end.
    pub(super) fn is_alive(&self) -> bool {
        !is_over(self.client.state())
    }

    /// Notes that the server answered what was sent at `sent`.
    pub(super) fn heard_from(&self, sent: Instant) {
        extend(&self.validity, kept_until(sent, self.timeout));
    }

    /// Makes a lock's directory, which stays: with it the numbers of its nodes would go, and begin anew.
    pub(super) async fn make_directory(&self, path: &str) -> Result<(), Error> {
        if self.known().contains(path) {
            return Ok(());
        }
        made(self.client.mkdir(path, &CreateMode::Persistent.with_acls(self.acls)).await)?;
        self.known().insert(path.into());
        Ok(())
    }

    pub(super) fn forget_directory(&self, path: &str) {
        self.known().remove(path);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.directories.lock().expect("nothing panics while it holds this")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// What keeps a session, and knows for how long it is kept.
struct Heartbeat {
    client: Client,
    path: String,
    agreed: Duration,
    validity: Validity,
    metrics: LockMetrics,
}

impl Heartbeat {
    /// Asks the server three times in a time-out whether it is still there, until the session is over.
    async fn beat(self) {
        let mut next = Instant::now() + self.agreed / 3;
        while !is_over(self.client.state()) {
            sleep_until(next).await;
            let sent = Instant::now();
            if let Ok(Ok(_)) = timeout(self.agreed, self.client.check_stat(&self.path)).await {
                extend(&self.validity, kept_until(sent, self.agreed));
                self.metrics.renewals.inc();
                next = sent + self.agreed / 3;
            } else {
                next = Instant::now() + self.agreed / 20;
            }
        }
        self.validity.lose();
    }
}

pub(super) fn is_over(state: SessionState) -> bool {
    matches!(state, SessionState::Expired | SessionState::Closed | SessionState::AuthFailed)
}

/// The server keeps a session for its time-out after it was last heard from: after `sent`, at the earliest.
fn kept_until(sent: Instant, agreed: Duration) -> Instant {
    sent + (agreed - agreed / 100).saturating_sub(Duration::from_millis(2))
}

fn extend(validity: &Validity, until: Instant) {
    if validity.end().is_none_or(|end| end < until) {
        validity.extend(until);
    }
}

/// Of a node that may have been there.
fn made(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NodeExists) => Ok(()),
        result => result,
    }
}
