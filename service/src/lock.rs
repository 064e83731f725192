//! The locks. A strategy is chosen once, in [`connect`]; everything else sees a [`Strategy`], which is a
//! [`Lock`] and how the critical section is run under it.

mod database;
mod instrumented;
mod lease;
mod local;
mod none;
mod redis;
mod shell;
mod silence;
mod zookeeper;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::config::{Config, ConfigError, Guard, LockConfig, StrategyName};
use crate::store::Store;
use crate::telemetry::Metrics;

pub use database::DatabaseLock;
pub use lease::{Hold, Lease, Lost, Validity};

/// A lock: of many processes that ask for the same key, one has it, or several that only read.
///
/// # Contract
/// - **Exclusion**: an exclusive lease is alone; a shared one is beside shared ones only, for as long as the
///   lease is valid. `none` does not keep this, `local` keeps it inside one process, and a Redis that loses its data
///   forgets its holders, who learn of it by the end of their leases.
/// - **Order**: a writer waits for all earlier requests, and no later reader passes it; nobody starves.
/// - **Tokens**: where leases have a [`FencingToken`], it grows with every exclusive lease of a key,
///   across processes and restarts.
/// - **Deadline**: `acquire` answers by its deadline, whatever happens to the backend.
/// - **Cancellation**: a dropped `acquire` leaves nothing behind that keeps others out, except until the
///   lease would have ended.
/// - **Drop**: a dropped [`Lease`] is released in the background; [`Lease::release`] waits for it.
#[async_trait]
pub trait Lock: Send + Sync {
    /// Waits for the lock on `key` until `deadline`.
    async fn acquire(&self, key: &str, mode: Mode, deadline: Instant) -> Result<Lease, LockError>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<(), LockError>;

    /// Who has the lock on `key` and how many wait for it, as far as this lock can see: `local` sees its own
    /// process, and what has no lock sees nobody.
    async fn census(&self, key: &str) -> Result<Census, LockError>;

    /// Finishes the releases that are under way.
    async fn shutdown(&self);
}

/// Whether a lease excludes everybody or only writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Beside other shared leases.
    Shared,
}

/// Who has a lock and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Who has it.
    pub holders: Vec<Holder>,
    /// How many wait.
    pub waiting: u64,
}

/// Somebody who has a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What is locked.
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

/// A number that grows with every exclusive lease of a key: what is written with a smaller one came from a
/// holder that has lost the lock (Kleppmann, "How to do distributed locking", 2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub i64);

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Others had the lock until the deadline.
    #[error("the lock was not free in time")]
    Timeout,
    /// The backend did not answer, or answered with an error.
    #[error("the lock's backend, {dependency}, is not available: {reason}")]
    Unavailable {
        /// Which backend.
        dependency: &'static str,
        /// What it said.
        reason: String,
    },
}

/// How the critical section reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A plain read of the last committed value.
    Plain,
    /// A read that locks the row until the write's commit.
    ForUpdate,
}

/// A locking strategy: a lock, and how the critical section is run under it.
#[derive(Clone)]
pub struct Strategy {
    /// The name in the configuration.
    pub name: StrategyName,
    /// The lock.
    pub lock: Arc<dyn Lock>,
    /// What protects the write from what happened since the read.
    pub guard: Guard,
    /// How the stock is read.
    pub reads: Reads,
    /// Whether orders for one product go through one line; without, all run at once.
    pub combines: bool,
    /// Whether there is a lock at all; without, everybody has a lease at once.
    pub has_lock: bool,
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strategy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a strategy cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend cannot be reached.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Makes the strategy that the configuration names. The one place that knows them all. Where fencing tokens are
/// counted by a backend that may lose its data, the orders in `store` say where to go on.
pub async fn connect(
    config: &Config,
    store: &Arc<dyn Store>,
    metrics: &Metrics,
) -> Result<Strategy, ConnectError> {
    let name = config.lock.strategy;
    let some = |lock: Arc<dyn Lock>| Some(lock);
    let (lock, reads, combines) = match config.lock_config()? {
        LockConfig::None => (None, Reads::Plain, false),
        LockConfig::Local => (some(Arc::new(local::LocalLock::default())), Reads::Plain, true),
        LockConfig::Database { lease } => {
            let holder = config.replica();
            let lock = DatabaseLock::measured(&config.store, lease, &holder, &metrics.lock).await?;
            (some(Arc::new(lock)), Reads::Plain, true)
        }
        LockConfig::Redis(section) => {
            let lock = redis::connect(&section, &config.replica(), Arc::clone(store), &metrics.lock).await?;
            (some(Arc::new(lock)), Reads::Plain, true)
        }
        LockConfig::Zookeeper(section) => {
            let lock = zookeeper::connect(&section, &config.replica(), metrics.lock.clone()).await?;
            (some(Arc::new(lock)), Reads::Plain, true)
        }
        LockConfig::Row => (None, Reads::ForUpdate, true),
        LockConfig::Optimistic => (None, Reads::Plain, true),
    };
    let has_lock = lock.is_some();
    let lock = lock.unwrap_or_else(|| Arc::new(none::NoLock));
    let lock = Arc::new(instrumented::InstrumentedLock::new(lock, metrics.lock.clone()));
    Ok(Strategy { name, lock, guard: config.guard(), reads, combines, has_lock })
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
