//! A session with the ensemble, and until when the ensemble is known to keep it.
//!
//! The **leader** ends sessions, and a client's server may have lost touch with it without knowing. So
//! nothing counts as a heartbeat but a write, which only a quorum can answer; not even `sync`, which a
//! deposed leader answers. Nor does such an answer say that the leader counts the session's time from that
//! write on: a server tells the leader whom it heard from in its replies to the leader's pings, twice in a
//! tick. What *is* known: a request that was answered longer than that before a write was sent, which then
//! was answered, too, was known to the leader when it took the write. A session lasts at least two ticks, so
//! between two pings is at most a quarter of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState};

use super::tls::{self, Tls};
use crate::config::ZookeeperSection;
use crate::lock::Validity;
use crate::lock::lease::valid_until;
use crate::telemetry::LockMetrics;

/// How many heartbeats there are in a session's time-out.
const BEATS: u32 = 6;

/// Of a session's time-out, how much earlier than a write something has to be answered in order to be known
/// to the leader: a quarter, and a little for what is late.
const KNOWN_AFTER: f64 = 0.3;

/// How long the removal of a directory may take.
const REMOVAL: Duration = Duration::from_secs(1);

/// A session. Its drop closes it.
pub(super) struct Session {
    pub(super) client: Client,
    /// What the ensemble agreed to.
    pub(super) timeout: Duration,
    /// Of all leases of the session.
    pub(super) validity: Validity,
    acls: Acls<'static>,
    directories: Mutex<HashSet<String>>,
    contact: Arc<Contact>,
    held: Arc<HeldNodes>,
    heartbeat: JoinHandle<()>,
}

impl Session {
    pub(super) async fn connect(
        config: &ZookeeperSection,
        tls: Option<&Tls>,
        metrics: &LockMetrics,
    ) -> Result<Self, Error> {
        let asked = Instant::now();
        let mut connector = Client::connector()
            .with_session_timeout(config.session_timeout)
            .with_connection_timeout(config.session_timeout.max(CONNECTING));
        let mut acls = Acls::anyone_all();
        if !config.auth.reveal().is_empty() {
            connector = connector.with_auth("digest", config.auth.reveal().as_bytes());
            acls = Acls::creator_all();
        }
        // The chroot is part of the root: one that is not there yet is made like it.
        let client = tls::connect(connector, config.hosts(), tls).await?;
        let agreed = client.session_timeout();
        let root = config.absolute_root();
        create_path(&client, &root, acls).await?;
        let validity = Validity::until(valid_until(asked, agreed));
        let contact = Arc::new(Contact::new(agreed, validity.clone()));
        let held = Arc::new(HeldNodes::default());
        let heartbeat = Heartbeat {
            client: client.clone(),
            node: format!("{root}/session-{}", Uuid::new_v4()),
            acls,
            contact: Arc::clone(&contact),
            held: Arc::clone(&held),
            metrics: metrics.clone(),
        };
        let heartbeat = tokio::spawn(heartbeat.beat());
        let directories = Mutex::default();
        Ok(Self { client, timeout: agreed, validity, acls, directories, contact, held, heartbeat })
    }

    /// Who may do what with the nodes.
    pub(super) fn acls(&self) -> Acls<'static> {
        self.acls
    }

    /// Whether it has not come to its end.
    pub(super) fn is_alive(&self) -> bool {
        !is_over(self.client.state())
    }

    /// Returns when the ensemble is known to keep the session: at once, unless it was out of reach.
    pub(super) async fn until_valid(&self) -> Result<(), Error> {
        while self.validity.check().is_err() {
            if !self.is_alive() {
                return Err(Error::SessionExpired);
            }
            sleep(self.timeout / (BEATS * 8)).await;
        }
        Ok(())
    }

    /// Notes that a quorum has answered what was sent at `sent`.
    pub(super) fn confirmed(&self, sent: Instant) {
        self.contact.confirmed(sent);
    }

    /// The validity of a lease on a node of this session, which is looked after until the guard is dropped.
    pub(super) fn hold(&self, path: String) -> (Validity, HeldNodeGuard) {
        let validity = self.validity.within();
        let id = self.held.add(path, validity.clone());
        (validity, HeldNodeGuard { held: Arc::clone(&self.held), id })
    }

    /// Creates a lock's directory, which stays: with it the numbers of its nodes would go, and begin anew.
    pub(super) async fn create_directory(&self, path: &str) -> Result<(), Error> {
        if self.known().contains(path) {
            return Ok(());
        }
        create_path(&self.client, path, self.acls).await?;
        self.known().insert(path.into());
        Ok(())
    }

    /// Removes a lock's directory whose numbers come to their end, unless there are nodes in it.
    pub(super) async fn remove_directory(&self, path: &str) -> Result<(), Error> {
        match timeout(REMOVAL, self.client.delete(path, None)).await {
            Ok(Ok(()) | Err(Error::NoNode)) => self.forget_directory(path),
            Ok(Err(Error::NotEmpty)) | Err(_) => {}
            Ok(Err(error)) => return Err(error),
        }
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

/// How long a connection may take to come about, at least: also where sessions are short.
const CONNECTING: Duration = Duration::from_secs(1);

/// Creates a node and those above it that are not there. Nothing is asked of those that are: they may be
/// others'.
async fn create_path(client: &Client, path: &str, acls: Acls<'static>) -> Result<(), Error> {
    let mut missing = vec![path];
    while let Some(path) = missing.last().copied().filter(|path| !path.is_empty()) {
        match client.create(path, b"", &CreateMode::Persistent.with_acls(acls)).await {
            Ok(_) | Err(Error::NodeExists) => {
                missing.pop();
            }
            Err(Error::NoNode) => missing.push(&path[..path.rfind('/').unwrap_or_default()]),
            // Under a parent in which nothing may be made, it may be there all the same.
            Err(Error::NoAuth) if client.check_stat(path).await?.is_some() => {
                missing.pop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When the leader last heard of the session, as far as that is known.
struct Contact {
    agreed: Duration,
    validity: Validity,
    /// What a server has answered, oldest first. What does not matter any more is left out.
    answered: Mutex<VecDeque<Answered>>,
}

#[derive(Clone, Copy)]
struct Answered {
    sent: Instant,
    answered: Instant,
}

impl Contact {
    fn new(agreed: Duration, validity: Validity) -> Self {
        Self { agreed, validity, answered: Mutex::default() }
    }

    /// Notes that a quorum has now answered what was sent at `sent`.
    fn confirmed(&self, sent: Instant) {
        let mut answered = self.answered.lock().expect("nothing panics while it holds this");
        let known_by = |earlier: &&Answered| earlier.answered + self.agreed.mul_f64(KNOWN_AFTER) <= sent;
        let mut known = None;
        while let Some(earlier) = answered.front().filter(known_by) {
            known = Some(earlier.sent);
            answered.pop_front();
        }
        // In a few steps: it is only to be known about when.
        let step = self.agreed / (BEATS * 4);
        if answered.back().is_none_or(|last| sent > last.sent + step) {
            answered.push_back(Answered { sent, answered: Instant::now() });
        }
        // The leader keeps a session for its time-out after it last heard of it: after what is known was
        // sent, at the earliest.
        if let Some(known) = known {
            let until = valid_until(known, self.agreed);
            if self.validity.end().is_none_or(|end| end < until) {
                self.validity.extend(until);
            }
        }
    }
}

/// The nodes of the leases that are held.
#[derive(Default)]
struct HeldNodes {
    nodes: Mutex<HashMap<u64, HeldNode>>,
    next_id: std::sync::atomic::AtomicU64,
}

struct HeldNode {
    path: String,
    validity: Validity,
    since: Instant,
}

impl HeldNodes {
    fn add(&self, path: String, validity: Validity) -> u64 {
        let id = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.nodes().insert(id, HeldNode { path, validity, since: Instant::now() });
        id
    }

    /// Those that have been held since `since`.
    fn since(&self, since: Instant) -> Vec<(String, Validity)> {
        let nodes = self.nodes();
        let old = nodes.values().filter(|node| node.since <= since);
        old.map(|node| (node.path.clone(), node.validity.clone())).collect()
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<u64, HeldNode>> {
        self.nodes.lock().expect("nothing panics while it holds this")
    }
}

/// A held node that is looked after until this is dropped.
pub(super) struct HeldNodeGuard {
    held: Arc<HeldNodes>,
    id: u64,
}

impl Drop for HeldNodeGuard {
    fn drop(&mut self) {
        self.held.nodes().remove(&self.id);
    }
}

/// What keeps a session, and knows for how long it is kept.
struct Heartbeat {
    client: Client,
    /// A node of its own to write to: a write to the nodes of locks would wake those who watch them.
    node: String,
    acls: Acls<'static>,
    contact: Arc<Contact>,
    held: Arc<HeldNodes>,
    metrics: LockMetrics,
}

impl Heartbeat {
    /// Writes six times in a time-out, and sees whether the nodes are there that are held, until the session
    /// is over.
    async fn beat(self) {
        let agreed = self.contact.agreed;
        let pause = agreed / BEATS;
        let mut next = Instant::now();
        while !is_over(self.client.state()) {
            sleep_until(next).await;
            let sent = Instant::now();
            let held = self.held.since(sent.checked_sub(pause).unwrap_or(sent));
            let beat = timeout(agreed / 3, async { tokio::join!(self.write(), self.missing(held)) });
            next = sent + pause;
            match beat.await {
                Ok((Ok(()), missing)) => {
                    self.contact.confirmed(sent);
                    self.metrics.renewals.inc();
                    missing.iter().for_each(Validity::lose);
                }
                Ok((Err(error), _)) => {
                    tracing::debug!(%error, "no heartbeat");
                    next = Instant::now() + agreed / (BEATS * 4);
                }
                Err(_) => {}
            }
        }
        self.contact.validity.lose();
    }

    async fn write(&self) -> Result<(), Error> {
        match self.client.set_data(&self.node, b"", None).await {
            Err(Error::NoNode) => {
                let options = CreateMode::Ephemeral.with_acls(self.acls);
                self.client.create(&self.node, b"", &options).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    /// Those of the nodes that are not there any more.
    async fn missing(&self, held: Vec<(String, Validity)>) -> Vec<Validity> {
        // A session's requests are answered in their order: these are sent behind each other, without
        // waiting.
        let asked: Vec<_> =
            held.into_iter().map(|(path, validity)| (self.client.check_stat(&path), validity)).collect();
        let mut missing = Vec::new();
        for (stat, validity) in asked {
            if matches!(stat.await, Ok(None)) {
                missing.push(validity);
            }
        }
        missing
    }
}

pub(super) fn is_over(state: SessionState) -> bool {
    matches!(state, SessionState::Expired | SessionState::Closed | SessionState::AuthFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREED: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn a_write_proves_what_was_answered_long_enough_before_it() {
        let start = Instant::now();
        let validity = Validity::until(start);
        let contact = Contact::new(AGREED, validity.clone());
        let after = |seconds| start + Duration::from_secs(seconds);
        // Each is answered a second after it was sent.
        for (sent, known) in [(0, None), (1, None), (2, None), (3, Some(0)), (4, Some(1))] {
            tokio::time::advance(after(sent + 1) - Instant::now()).await;
            contact.confirmed(after(sent));
            let end = known.map_or(start, |known| valid_until(after(known), AGREED));
            assert_eq!(validity.end(), Some(end), "after {sent} seconds");
        }
        // Out of reach for long: what was sent before is known, and no more.
        for (sent, known) in [(14, 4), (15, 4), (16, 14)] {
            tokio::time::advance(after(sent) - Instant::now()).await;
            contact.confirmed(after(sent));
            assert_eq!(validity.end(), Some(valid_until(after(known), AGREED)), "after {sent} seconds");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_writes_are_remembered_as_few() {
        let start = Instant::now();
        let contact = Contact::new(AGREED, Validity::until(start));
        for _ in 0..60_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            contact.confirmed(Instant::now());
        }
        assert!(contact.answered.lock().unwrap().len() <= 10);
        assert!(contact.validity.end().unwrap() > start + Duration::from_secs(63));
    }
}
