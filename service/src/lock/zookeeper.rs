//! The lock in ZooKeeper: an ephemeral sequential node for each attempt; the lowest has the lock, and each of
//! the others watches the last one that keeps it out (Hunt et al., "ZooKeeper: wait-free coordination", 2010,
//! §2.4, locks without herd effect; read and write locks).
//!
//! - One session for the process; its expiry is terminal, so the next attempt makes a new one.
//! - A node is named by the attempt's UUID. Where the reply to its creation was lost, it is looked for by
//!   that name and taken only if it is this session's; after a `sync`, since a server that is new to the
//!   client may not have heard of it yet.
//! - A waiter that is woken lists again: its predecessor may just have given up.
//! - A lease is valid for as long as the *leader* is known to keep the session, by what a quorum has
//!   answered: the client learns of an expiry only after the ensemble has acted on it. The lease of a node
//!   that was deleted is lost.
//! - The number of a node ends at 2³¹ − 1, after which further ones have the same. Long before, whoever finds
//!   the directory empty removes it, and numbers begin anew; shortly before, no contender is let in until it
//!   is empty.
//! - The fencing token is the node's creation zxid, which grows with everything that the ensemble does.

mod enqueue;
mod node_release;
mod node;
mod session;
mod reach;
mod tls;
mod attempt_status;
mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Error, SessionState};

use self::attempt_status::AttemptStatus;
use self::enqueue::{Enqueue, EnqueueError, FrontNode};
use self::error::{is_end_of_session, is_transient};
use self::node::{Contenders, NodeClaim, directory};
use self::reach::{reachable, speaks_tls};
use self::session::{HeldNodeGuard, Session};
use self::tls::Tls;
use super::pending_acquire::PendingAcquire;
use super::releaser::Releaser;
use super::{
    Acquire, ConnectError, FencingToken, Hold, Holder, Lease, Lock, LockError, LockState, Mode, Note,
};
use crate::config::ZookeeperSection;
use crate::telemetry::LockMetrics;

/// What ZooKeeper is called in errors.
const NAME: &str = "ZooKeeper";

/// How long the end of the session may take.
const CLOSING: Duration = Duration::from_secs(1);

/// How long the start waits for the ensemble, at least.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long to wait before trying again what failed with the connection.
const PAUSE: Duration = Duration::from_millis(50);

/// A lock in ZooKeeper.
pub(super) struct ZookeeperLock {
    inner: Arc<Inner>,
}

struct Inner {
    config: ZookeeperSection,
    tls: Option<Tls>,
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
) -> Result<ZookeeperLock, ConnectError> {
    let inner = Inner {
        config: config.clone(),
        tls: Tls::of(config)?,
        root: config.absolute_root(),
        holder: holder.into(),
        session: AsyncMutex::new(None),
        granted_ms: AtomicU64::new(0),
        releaser: Releaser::start(),
        metrics,
    };
    reachable(config, inner.tls.as_ref()).await.map_err(unavailable)?;
    let error = match timeout(config.session_timeout.max(CONNECTING), inner.session()).await {
        Ok(Ok(_)) => return Ok(ZookeeperLock { inner: Arc::new(inner) }),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let reason = if config.tls { None } else { speaks_tls(config).await };
    Err(unavailable(reason.unwrap_or(error)).into())
}

impl Inner {
    /// The session, or a new one where there is none or it has expired.
    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.as_ref().filter(|session| session.is_alive()) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::connect(&self.config, self.tls.as_ref(), &self.metrics).await?);
        let granted_ms = u64::try_from(session.timeout.as_millis()).unwrap_or(u64::MAX);
        self.granted_ms.store(granted_ms, Ordering::Relaxed);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Says that no server is connected, if that is so: the client keeps requests until one is, and so an
    /// attempt's reply may not have been pending for long.
    fn disconnected(&self) -> Option<String> {
        let session = self.session.try_lock().ok()?;
        let is_disconnected = session.as_ref()?.client.state() == SessionState::Disconnected;
        is_disconnected.then(|| "no server of the ensemble is connected".to_owned())
    }

    /// Waits until a node of ours is at the front; a session that expires meanwhile is replaced.
    async fn wait(&self, key: &str, mode: Mode, status: &AttemptStatus) -> Result<FrontNode, Error> {
        loop {
            // Under a name of its own each time: the release of the last one must not find this one.
            let claim = NodeClaim::new(&self.root, key, mode);
            match self.enqueue(&claim, status).await {
                Ok(front) => return Ok(front),
                Err(EnqueueError::NumbersAreUsedUp) => {
                    status
                        .failed(&"the numbers of its directory are used up; it is removed when it is empty");
                    sleep(PAUSE).await;
                }
                Err(EnqueueError::Failed(error)) if is_transient(&error) || is_end_of_session(&error) => {
                    status.failed(&error);
                    sleep(PAUSE).await;
                }
                Err(EnqueueError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Waits until the claim's node is at the front, and the session valid.
    async fn enqueue(&self, claim: &NodeClaim, status: &AttemptStatus) -> Result<FrontNode, EnqueueError> {
        let session = status.reply.during(self.session()).await?;
        // Before the node stands in others' way.
        status.reply.during(session.until_valid()).await?;
        let enqueue = Enqueue {
            claim,
            session: &session,
            holder: &self.holder,
            watch: self.config.watch,
            status,
            metrics: &self.metrics,
        };
        let front = enqueue.run(&self.releaser).await?;
        status.reply.during(session.until_valid()).await?;
        Ok(front)
    }
}

#[async_trait]
impl Lock for ZookeeperLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let status = Arc::new(AttemptStatus::default());
        let (inner, key, noted) = (Arc::clone(&self.inner), key.to_owned(), Arc::clone(&status));
        let acquisition = async move {
            let node = inner.wait(&key, mode, &noted).await.map_err(unavailable)?;
            let (token, sequence, is_contended) = (node.token, node.sequence, node.is_contended);
            let (validity, guard) = node.session.hold(node.path.clone());
            let lease = Lease::new(Some(token), validity, Box::new(NodeHold { node, _guard: guard }));
            Ok(lease.with_sequence(sequence).contended(is_contended))
        };
        let inner = Arc::clone(&self.inner);
        let reason = move || {
            let error = status.last_error().or_else(|| inner.disconnected());
            error.map_or(LockError::Timeout, unavailable)
        };
        Box::new(PendingAcquire::new(acquisition, reason))
    }

    fn lease(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.inner.granted_ms.load(Ordering::Relaxed)))
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        let session = self.inner.session().await.map_err(unavailable)?;
        let directory = directory(&self.inner.root, key);
        let children = match session.client.list_children(&directory).await {
            Ok(children) => children,
            Err(Error::NoNode) => return Ok(LockState::default()),
            Err(error) => return Err(unavailable(error)),
        };
        let queue = Contenders::of(children.iter().map(String::as_str));
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
        Ok(LockState { holders, waiting: (queue.len() - queue.holders().count()) as u64 })
    }

    async fn shutdown(&self) {
        self.inner.releaser.flush().await;
        // The last client's drop closes the session, and with it whatever is left. It is waited for: a
        // session that is not closed keeps its nodes until its time-out.
        let Some(session) = self.inner.session.lock().await.take() else { return };
        let mut state = session.client.state_watcher();
        drop(session);
        let closed = async { while !session::is_over(state.changed().await) {} };
        // An error says that the ensemble does not answer; then the time-out remains.
        timeout(CLOSING, closed).await.ok();
    }
}

/// A node whose lease is held.
struct NodeHold {
    node: FrontNode,
    _guard: HeldNodeGuard,
}

#[async_trait]
impl Hold for NodeHold {
    async fn release(self: Box<Self>, _: Option<Note>) {
        let FrontNode { session, release, worn_directory, .. } = self.node;
        release.now(None).await;
        if let Some(directory) = worn_directory {
            // An error leaves it to the next one.
            session.remove_directory(&directory).await.ok();
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> LockError {
    LockError::Unavailable { dependency: NAME, reason: error.to_string() }
}
