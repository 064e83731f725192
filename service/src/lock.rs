//! The locks. One is chosen, in [`connect`]; everything else sees a [`Lock`]. A lock knows neither the store
//! nor the checkout.
//!
//! | module | what it holds |
//! |---|---|
//! | `instrumented` | the wrapper around every lock, which measures it |
//! | `none` | no lock, for the strategies that have none |
//! | `local` | a lock inside one process |
//! | `database` | the lock table, in the dialects of SQLite and PostgreSQL: a `leased` backend |
//! | `redis` | the lock in Redis, on one server, in a cluster, by a majority: three `leased` backends |
//! | `etcd` | the lock in etcd: a `leased` backend |
//! | `leased` | what these have in common: owners, waiting, renewal, release |
//! | `zookeeper` | the lock in ZooKeeper, whose leases are those of one session |
//! | `releaser` | the release of what an owner leaves behind, for `leased` and `zookeeper` |
//! | `tls` | which key of the configuration may mend a connection over TLS |
//! | `pending_acquire` | an acquisition that outlasts the deadlines of those who wait for it |
//! | `pending_reply` | since when a backend has not replied |
//! | `lease` | the lease, and for how long it is valid |

mod instrumented;
mod none;
mod local;
mod database;
mod redis;
mod etcd;
mod leased;
mod zookeeper;
mod releaser;
mod tls;
mod pending_acquire;
mod pending_reply;
mod lease;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::config::{Config, ConfigError, LockConfig};
use crate::telemetry::Metrics;

pub use database::DatabaseLock;
pub use lease::{Hold, Lease, Lost, Validity};
pub use pending_acquire::PendingAcquire;

pub use crate::token::{FencingToken, Generation};

/// A lock: of many processes that ask for the same key, one has it, or several that only read.
///
/// # Contract
/// - **Exclusion**: an exclusive lease is alone; a shared one is held concurrently with shared ones only, for
///   as long as the lease is valid. `none` does not keep this, `local` keeps it inside one process, and a
///   Redis or an etcd that loses its data forgets its holders, who learn of it by the end of their leases.
/// - **Order**: a writer waits for all earlier requests, and no later reader passes it; none starves. Where a
///   majority of servers has the lock, what came earlier is what a majority heard earlier, and where some are
///   not heard the order is not promised.
/// - **Tokens**: where leases have a [`FencingToken`], it grows with every exclusive lease of a key,
///   across processes and restarts.
/// - **Deadline**: a wait returns by its deadline, whatever happens to the backend.
/// - **Place**: an [`Acquire`] that was not granted by its deadline keeps its place in the lock's queue.
/// - **Cancellation**: a dropped [`Acquire`] leaves nothing behind that keeps others out, except until the
///   lease would have ended.
/// - **Drop**: a dropped [`Lease`] is released in the background; [`Lease::release`] waits for it.
#[async_trait]
pub trait Lock: Send + Sync {
    /// Asks for the lock on `key`. Nothing is sent before the first [`wait`](Acquire::wait).
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire>;

    /// Waits for the lock on `key` until `deadline`.
    async fn acquire(&self, key: &str, mode: Mode, deadline: Instant) -> Result<Lease, LockError> {
        match self.begin(key, mode).wait(deadline).await {
            Waited::Granted(lease) => Ok(lease),
            Waited::Pending(error) | Waited::Failed(error) => Err(error),
        }
    }

    /// How long the backend keeps a lock that its holder does not renew: what it has granted, which may be
    /// another than what was asked for. `None`: for ever, or there is nothing to renew.
    fn lease(&self) -> Option<Duration> {
        None
    }

    /// Takes a lock and gives it back: a shared one that is no product's, so that nobody is kept out.
    async fn try_out(&self, deadline: Instant) -> Result<(), LockError> {
        self.try_out_at(NO_PRODUCT, deadline).await
    }

    /// The same with this key.
    async fn try_out_at(&self, key: &str, deadline: Instant) -> Result<(), LockError> {
        self.acquire(key, Mode::Shared, deadline).await?.release().await;
        Ok(())
    }

    /// Who has the lock on `key` and how many wait for it, as far as this lock can see: `local` sees its own
    /// process, and what has no lock sees no holder.
    async fn state(&self, key: &str) -> Result<LockState, LockError>;

    /// Finishes the pending releases, and ends all connections.
    async fn shutdown(&self);
}

/// A key that no product has.
const NO_PRODUCT: &str = "-";

/// A lock that was asked for. Its drop withdraws: the place in the lock's queue is given up, and a lease that
/// comes all the same is released in the background.
#[async_trait]
pub trait Acquire: Send {
    /// Waits for the lease until `deadline`. May be called again after [`Waited::Pending`], and may be
    /// dropped at any time: neither costs the place in the lock's queue.
    async fn wait(&mut self, deadline: Instant) -> Waited;
}

/// What came of waiting for a lease.
#[derive(Debug)]
pub enum Waited {
    /// The lock is held.
    Granted(Lease),
    /// Not by the deadline, and why not, as far as is known; the place in the lock's queue is kept.
    Pending(LockError),
    /// The attempt is over; there has to be another.
    Failed(LockError),
}

/// What is noted for the next holder of a lock about what the lock protects. The lock does not know what it
/// means.
pub type Note = Box<str>;

/// Whether a lease excludes all others or only writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Excludes all others.
    Exclusive,
    /// Concurrently with other shared leases.
    Shared,
}

impl Mode {
    /// The mode's name, in the lock's backend and in answers: `exclusive` or `shared`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// Who has a lock and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockState {
    /// The holders: one that excludes all others, or several that share.
    pub holders: Vec<Holder>,
    /// How many attempts wait for it.
    pub waiting: u64,
}

/// A holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key that is locked.
    pub key: String,
    /// Whether it is locked exclusively.
    pub mode: Mode,
    /// The hold's fencing token, where the lock has one.
    pub token: Option<FencingToken>,
    /// The replica, where the lock knows it.
    pub replica: Option<String>,
    /// Whether the lease is over and the lock free for whoever asks next.
    pub expired: bool,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Others had the lock until the deadline.
    #[error("the lock was not free in time")]
    Timeout,
    /// The backend did not answer, or answered with an error.
    #[error("the lock's backend, {dependency}, is not available: {reason}")]
    Unavailable {
        /// The backend's name.
        dependency: &'static str,
        /// The error that it gave, or that there was no answer.
        reason: String,
    },
}

/// Why a lock cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend cannot be reached.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// What is kept about fencing tokens apart from the lock's backend, which may lose its data, and its count
/// with it: the generation of the tokens, which is their upper half, as the epoch is of ZooKeeper's
/// transaction numbers.
#[async_trait]
pub trait TokenGenerations: Send + Sync {
    /// The generation of the tokens of `key`. A new one begins, after all that were before, where the last
    /// one was counted by another `server`, or is the one that is `lost`.
    async fn generation(&self, key: &str, server: &str, lost: Option<i64>) -> Result<Generation, String>;
}

/// Connects to the lock that the configuration names. The one place that knows them all.
pub async fn connect(
    config: &Config,
    generations: Arc<dyn TokenGenerations>,
    metrics: &Metrics,
) -> Result<Arc<dyn Lock>, ConnectError> {
    let lock: Arc<dyn Lock> = match config.lock_config() {
        LockConfig::None | LockConfig::Row | LockConfig::Optimistic => Arc::new(none::NoLock),
        LockConfig::Local => Arc::new(local::LocalLock::default()),
        LockConfig::Database { lease } => {
            Arc::new(database::connect(&config.store, lease, &config.replica(), &metrics.lock).await?)
        }
        LockConfig::Redis(section) => {
            Arc::new(redis::connect(&section, &config.replica(), generations, &metrics.lock).await?)
        }
        LockConfig::Etcd(section) => {
            Arc::new(etcd::connect(&section, &config.replica(), generations, &metrics.lock).await?)
        }
        LockConfig::Zookeeper(section) => {
            Arc::new(zookeeper::connect(&section, &config.replica(), metrics.lock.clone()).await?)
        }
    };
    Ok(Arc::new(instrumented::InstrumentedLock::new(lock, metrics.lock.clone())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn in_one_second() -> Instant {
        Instant::now() + std::time::Duration::from_secs(1)
    }

    pub(crate) fn at_once() -> Instant {
        Instant::now() + std::time::Duration::from_millis(50)
    }
}
