//! The lock in ZooKeeper: an ephemeral sequential node for each attempt; the lowest has the lock, and each of the
//! others watches the last one that keeps it out (Hunt et al., "ZooKeeper: wait-free coordination", 2010, §2.4,
//! locks without herd effect; read and write locks).
//!
//! - One session for the process; its expiry is terminal, so the next attempt makes a new one.
//! - A node is named by the attempt's UUID. Where the reply to its creation was lost, it is looked for by that name
//!   and taken only if it is this session's; after a `sync`, since a server that is new to the client may not have heard of
//!   it yet.
//! - A waiter that is woken lists again: its predecessor may just have given up.
//! - A lease is valid for as long as the *leader* is known to keep the session, by what a quorum has answered: the client
//!   learns of an expiry only after the ensemble has acted on it. A node that somebody has deleted is lost.
//! - The number of a node ends at 2³¹ − 1, after which further ones have the same. Long before, whoever finds the directory
//!   empty removes it, and numbers begin anew; shortly before, nobody is let in until it is empty.
//! - The fencing token is the node's creation zxid, which grows with everything that the ensemble does.

mod node;
mod node_release;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use zookeeper_client::{CreateMode, Error, OneshotWatcher};

use self::node::{Contender, Queue, Wear};
use self::node_release::NodeRelease;
use self::session::{Guard, Session};
use super::pending::Pending;
use super::pending_reply::PendingReply;
use super::releaser::{PendingRelease, Releaser};
use super::{Acquire, Census, FencingToken, Hold, Holder, Lease, Lock, LockError, Mode, Note};
use crate::config::{Watch, ZookeeperSection};
use crate::telemetry::LockMetrics;

/// What ZooKeeper is called in errors.
const NAME: &str = "ZooKeeper";

/// Where a server listens, unless it is said.
const PORT: u16 = 2181;

/// How long the end of the session may take.
const CLOSING: Duration = Duration::from_secs(1);

/// How long the start waits for the ensemble, at least.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long to wait before trying again what failed with the connection.
const PAUSE: Duration = Duration::from_millis(50);

/// A lock in ZooKeeper.
pub(super) struct ZookeeperLock {
    shared: Arc<Shared>,
}

struct Shared {
    config: ZookeeperSection,
    root: String,
    holder: String,
    session: AsyncMutex<Option<Arc<Session>>>,
    /// The time-out of the latest session, in milliseconds.
    granted_ms: AtomicU64,
    releaser: Releaser,
    metrics: LockMetrics,
}

/// Connects to the ensemble.
pub(super) async fn connect(
    config: &ZookeeperSection,
    holder: &str,
    metrics: LockMetrics,
) -> Result<ZookeeperLock, LockError> {
    let shared = Shared {
        config: config.clone(),
        root: config.absolute_root(),
        holder: holder.into(),
        session: AsyncMutex::new(None),
        granted_ms: AtomicU64::new(0),
        releaser: Releaser::start(),
        metrics,
    };
    reachable(config.hosts()).await.map_err(unavailable)?;
    let connected = timeout(config.session_timeout.max(CONNECTING), shared.session()).await;
    connected.map_err(|_| unavailable("no answer in time"))?.map_err(unavailable)?;
    Ok(ZookeeperLock { shared: Arc::new(shared) })
}

/// Whether one of the servers takes connections. The client would go on trying, and say no more than that it took too long.
async fn reachable(hosts: &str) -> Result<(), String> {
    let mut refused = Vec::new();
    for host in hosts.split(',') {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
        match timeout(CONNECTING, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => refused.push(format!("{address}: {error}")),
            Err(_) => refused.push(format!("{address}: no answer in time")),
        }
    }
    Err(refused.join("; "))
}

impl Shared {
    /// The session, or a new one where there is none or it has expired.
    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| session.is_alive()) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::connect(&self.config, &self.metrics).await?);
        let granted_ms = u64::try_from(session.timeout.as_millis()).unwrap_or(u64::MAX);
        self.granted_ms.store(granted_ms, Ordering::Relaxed);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Waits until a node of ours is at the front; a session that expires meanwhile is replaced.
    async fn wait(&self, key: &str, mode: Mode, trouble: &Trouble) -> Result<Place, Error> {
        loop {
            // Under a name of its own each time: what clears the last one away must not find this one.
            let claim = Claim::new(&self.root, key, mode);
            let place = async {
                let session = trouble.reply.during(self.session()).await?;
                // Before it stands in others' way.
                trouble.reply.during(session.until_valid()).await?;
                let place = self.queue_up(session, &claim, trouble).await?;
                trouble.reply.during(place.session.until_valid()).await?;
                Ok(place)
            };
            match place.await {
                Ok(place) => return Ok(place),
                Err(NoPlace::NumbersAreUsedUp) => {
                    trouble.note(&"the numbers of its directory are used up; it is removed when it is empty");
                    sleep(PAUSE).await;
                }
                Err(NoPlace::Failed(error)) if is_transient(&error) || is_end_of_session(&error) => {
                    trouble.note(&error);
                    sleep(PAUSE).await;
                }
                Err(NoPlace::Failed(error)) => return Err(error),
            }
        }
    }

    async fn queue_up(
        &self,
        session: Arc<Session>,
        claim: &Claim,
        trouble: &Trouble,
    ) -> Result<Place, NoPlace> {
        let node_release = NodeRelease::new(&session, claim, &self.metrics.round_trips);
        let mut release = self.releaser.pending(node_release);
        let (node, mut listing) = self.create_node(&session, claim, release.get_mut(), trouble).await?;
        let wear = node::wear(&node.name);
        if wear == Wear::UsedUp {
            release.now(None).await;
            remove_directory(&session, &claim.directory).await?;
            return Err(NoPlace::NumbersAreUsedUp);
        }
        let mut place = Place {
            path: format!("{}/{}", claim.directory, node.name),
            session,
            release,
            worn_directory: (wear == Wear::Worn).then(|| claim.directory.clone()),
            token: node.token,
            sequence: node.sequence,
            is_contended: false,
        };
        loop {
            match retried(listing, trouble) {
                None => sleep(PAUSE).await,
                Some(listed) => {
                    let listed = listed?;
                    trouble.none();
                    let queue = Queue::of(listed.names.iter().map(String::as_str));
                    match queue.before(&node.name, claim.mode) {
                        // Gone: with its session, or by somebody's hand.
                        None => return Err(Error::SessionExpired.into()),
                        Some(None) => return Ok(place),
                        Some(Some(predecessor)) => {
                            place.is_contended = true;
                            let change = listed.change;
                            self.watch(&place.session, claim, predecessor, change, trouble).await?;
                        }
                    }
                }
            }
            listing = trouble.reply.during(self.list(&place.session, claim)).await;
        }
    }

    /// Makes the claim's node, and lists the directory with it.
    async fn create_node(
        &self,
        session: &Session,
        claim: &Claim,
        release: &mut NodeRelease,
        trouble: &Trouble,
    ) -> Result<(Node, Result<Listing, Error>), Error> {
        let prefix = format!("{}/{}", claim.directory, claim.prefix);
        let options = CreateMode::EphemeralSequential.with_acls(session.acls());
        loop {
            trouble.reply.during(session.make_directory(&claim.directory)).await?;
            // A session's requests are answered in their order. So one is sent behind the other, without waiting.
            let sent = Instant::now();
            let creation = session.client.create(&prefix, self.holder.as_bytes(), &options);
            let both = async { tokio::join!(creation, self.list(session, claim)) };
            let (created, listing) = trouble.reply.during(both).await;
            match created {
                Ok((stat, sequence)) => {
                    let name = format!("{}{sequence}", claim.prefix);
                    let (token, sequence) = (FencingToken(stat.czxid), Some(sequence.into_i64()));
                    session.confirmed(sent);
                    release.node_is(&name);
                    return Ok((Node { name, token, sequence }, listing));
                }
                // Somebody has removed the directory.
                Err(Error::NoNode) => session.forget_directory(&claim.directory),
                Err(error) if is_transient(&error) => {
                    trouble.note(&error);
                    release.is_doubtful();
                    sleep(PAUSE).await;
                    // It may have been made all the same.
                    if let Some(node) = self.find_node(session, claim, trouble).await? {
                        return Ok((node, trouble.reply.during(self.list(session, claim)).await));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks for the claim's node, the reply to whose creation was lost.
    async fn find_node(
        &self,
        session: &Session,
        claim: &Claim,
        trouble: &Trouble,
    ) -> Result<Option<Node>, Error> {
        loop {
            let found = async {
                // The creation is over, then, also where this server has not heard of it before.
                self.metrics.round_trips.inc();
                session.client.sync(&claim.directory).await?;
                let listing = self.list(session, claim).await?;
                let mine = listing.names.into_iter().find(|name| name.starts_with(&claim.prefix));
                let Some(name) = mine else { return Ok(None) };
                self.metrics.round_trips.inc();
                let stat = session.client.check_stat(&format!("{}/{name}", claim.directory)).await?;
                let owner = session.client.session_id().0;
                let mine = stat.filter(|stat| stat.ephemeral_owner == owner);
                Ok(mine.map(|stat| Node { name, token: FencingToken(stat.czxid), sequence: None }))
            };
            match retried(trouble.reply.during(found).await, trouble) {
                Some(found) => return found,
                None => sleep(PAUSE).await,
            }
        }
    }

    /// Lists the nodes of a lock. Those who watch all their siblings do it with the listing.
    async fn list(&self, session: &Session, claim: &Claim) -> Result<Listing, Error> {
        self.metrics.round_trips.inc();
        self.metrics.listings.inc();
        Ok(match self.config.watch {
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
    async fn watch(
        &self,
        session: &Session,
        claim: &Claim,
        predecessor: &Contender<'_>,
        change: Option<OneshotWatcher>,
        trouble: &Trouble,
    ) -> Result<(), Error> {
        let watcher = match change {
            Some(change) => Ok(change),
            None => {
                let path = format!("{}/{}", claim.directory, predecessor.name);
                self.metrics.round_trips.inc();
                let watch = trouble.reply.during(session.client.get_and_watch_data(&path)).await;
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
                trouble.note(&error);
                sleep(PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Lock for ZookeeperLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let trouble = Arc::new(Trouble::default());
        let (shared, key, noted) = (Arc::clone(&self.shared), key.to_owned(), Arc::clone(&trouble));
        let acquisition = async move {
            let place = shared.wait(&key, mode, &noted).await.map_err(unavailable)?;
            let (token, sequence, is_contended) = (place.token, place.sequence, place.is_contended);
            let (validity, guard) = place.session.hold(place.path.clone());
            let lease = Lease::new(Some(token), validity, Box::new(HeldPlace { place, _guard: guard }));
            Ok(lease.with_sequence(sequence).contended(is_contended))
        };
        Box::new(Pending::new(acquisition, move || trouble.last().map_or(LockError::Timeout, unavailable)))
    }

    fn lease(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.shared.granted_ms.load(Ordering::Relaxed)))
    }

    async fn ping(&self) -> Result<(), LockError> {
        let session = self.shared.session().await.map_err(unavailable)?;
        session.ping().await.map_err(unavailable)
    }

    async fn census(&self, key: &str) -> Result<Census, LockError> {
        let session = self.shared.session().await.map_err(unavailable)?;
        let directory = directory(&self.shared.root, key);
        let children = match session.client.list_children(&directory).await {
            Ok(children) => children,
            Err(Error::NoNode) => return Ok(Census::default()),
            Err(error) => return Err(unavailable(error)),
        };
        let queue = Queue::of(children.iter().map(String::as_str));
        let mut holders = Vec::new();
        for contender in queue.holders() {
            let node = session.client.get_data(&format!("{directory}/{}", contender.name)).await;
            if let Ok((replica, stat)) = node {
                holders.push(Holder {
                    key: key.into(),
                    mode: contender.mode,
                    token: Some(FencingToken(stat.czxid)),
                    replica: String::from_utf8(replica).ok(),
                    expired: false,
                });
            }
        }
        Ok(Census { holders, waiting: (queue.len() - queue.holders().count()) as u64 })
    }

    async fn shutdown(&self) {
        self.shared.releaser.flush().await;
        // The last client's drop closes the session, and with it whatever is left. It is waited for: a session that
        // is not closed keeps its nodes until its time-out.
        let Some(session) = self.shared.session.lock().await.take() else { return };
        let mut state = session.client.state_watcher();
        drop(session);
        let closed = async { while !session::is_over(state.changed().await) {} };
        // An error says that the ensemble does not answer; then the time-out remains.
        timeout(CLOSING, closed).await.ok();
    }
}

/// One attempt to have a lock.
struct Claim {
    directory: String,
    /// The node's name up to its number.
    prefix: String,
    mode: Mode,
}

impl Claim {
    fn new(root: &str, key: &str, mode: Mode) -> Self {
        let prefix = format!("{}-{}-", Uuid::new_v4(), node::mode_name(mode));
        Self { directory: directory(root, key), prefix, mode }
    }
}

/// Where the nodes of a lock are.
fn directory(root: &str, key: &str) -> String {
    format!("{root}/{key}")
}

/// An attempt's node.
struct Node {
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

/// A node at the front of its queue.
struct Place {
    path: String,
    session: Arc<Session>,
    release: PendingRelease<NodeRelease>,
    /// The directory, where it is to be removed when it is empty.
    worn_directory: Option<String>,
    token: FencingToken,
    sequence: Option<i64>,
    is_contended: bool,
}

/// A place that is held.
struct HeldPlace {
    place: Place,
    _guard: Guard,
}

#[async_trait]
impl Hold for HeldPlace {
    async fn release(self: Box<Self>, _: Option<Note>) {
        let Place { session, release, worn_directory, .. } = self.place;
        release.now(None).await;
        if let Some(directory) = worn_directory {
            // An error leaves it to the next one.
            remove_directory(&session, &directory).await.ok();
        }
    }
}

/// Removes a directory whose numbers come to their end, unless there are nodes in it.
async fn remove_directory(session: &Session, directory: &str) -> Result<(), Error> {
    match timeout(CLOSING, session.client.delete(directory, None)).await {
        Ok(Ok(()) | Err(Error::NoNode)) => session.forget_directory(directory),
        Ok(Err(Error::NotEmpty)) | Err(_) => {}
        Ok(Err(error)) => return Err(error),
    }
    Ok(())
}

/// Why there is no place in a queue.
enum NoPlace {
    /// The directory has no numbers left.
    NumbersAreUsedUp,
    Failed(Error),
}

impl From<Error> for NoPlace {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What went wrong with the connection, and has not been mended since.
#[derive(Default)]
struct Trouble {
    error: std::sync::Mutex<Option<String>>,
    reply: PendingReply,
}

impl Trouble {
    fn note(&self, error: &impl std::fmt::Display) {
        *self.error.lock().expect("nothing panics while it holds this") = Some(error.to_string());
    }

    fn none(&self) {
        self.error.lock().expect("nothing panics while it holds this").take();
    }

    fn last(&self) -> Option<String> {
        let silent = || Some(format!("no answer for {} ms", self.reply.is_suspicious()?.as_millis()));
        self.error.lock().expect("nothing panics while it holds this").clone().or_else(silent)
    }
}

/// `None`: to be tried again, since the connection failed and the session may well live.
fn retried<T>(result: Result<T, Error>, trouble: &Trouble) -> Option<Result<T, Error>> {
    match result {
        Err(error) if is_transient(&error) => {
            trouble.note(&error);
            None
        }
        result => Some(result),
    }
}

/// Whether an error is the connection's, not the session's.
fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionLoss | Error::Timeout | Error::Custom(_) | Error::Throttled | Error::NoHosts
    )
}

fn is_end_of_session(error: &Error) -> bool {
    matches!(error, Error::SessionExpired | Error::ClientClosed | Error::SessionMoved)
}

fn unavailable(error: impl std::fmt::Display) -> LockError {
    LockError::Unavailable { dependency: NAME, reason: error.to_string() }
}
