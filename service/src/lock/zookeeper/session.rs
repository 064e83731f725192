//! A session with the ensemble, and until when the server is known to keep it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState};

use crate::config::ZookeeperSection;
use crate::lock::Validity;

/// A session. Its drop closes it.
pub(super) struct Session {
    pub(super) client: Client,
    /// What the ensemble agreed to.
    pub(super) timeout: Duration,
    /// Of all leases of the session.
    pub(super) validity: Validity,
    directories: Mutex<HashSet<String>>,
    heartbeat: JoinHandle<()>,
}

impl Session {
    pub(super) async fn connect(config: &ZookeeperSection) -> Result<Self, Error> {
        let asked = Instant::now();
        let client = Client::connector()
            .with_session_timeout(config.session_timeout)
            .with_connection_timeout(config.session_timeout)
            .connect(&config.servers)
            .await?;
        let agreed = client.session_timeout();
        client.mkdir(&config.root, &persistent()).await.or_else(|error| match error {
            Error::NodeExists => Ok(()),
            error => Err(error),
        })?;
        let validity = Validity::until(kept_until(asked, agreed));
        let heartbeat = tokio::spawn(beat(client.clone(), config.root.clone(), agreed, validity.clone()));
        Ok(Self { client, timeout: agreed, validity, directories: Mutex::default(), heartbeat })
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
        match self.client.mkdir(path, &persistent()).await {
            Ok(()) | Err(Error::NodeExists) => {
                self.known().insert(path.into());
                Ok(())
            }
            Err(error) => Err(error),
        }
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

/// Asks the server three times in a time-out whether it is still there, until the session is over.
async fn beat(client: Client, root: String, agreed: Duration, validity: Validity) {
    let mut next = Instant::now() + agreed / 3;
    while !is_over(client.state()) {
        sleep_until(next).await;
        let sent = Instant::now();
        if let Ok(Ok(_)) = timeout(agreed, client.check_stat(&root)).await {
            extend(&validity, kept_until(sent, agreed));
            next = sent + agreed / 3;
        } else {
            next = Instant::now() + agreed / 20;
        }
    }
    validity.lose();
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

fn persistent() -> zookeeper_client::CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}
