//! The lock table: whoever inserts the record has the lock, and deletes it to unlock.
//!
//! - The record's identity, never used twice, is the fencing token.
//! - A record has an expiry by the **database's** clock, which its holder renews; an expired one is taken
//!   over in the transaction that finds it expired. With `lease = "never"` it stays until it is deleted.
//! - Those who wait queue with tickets: first come first served, readers together, and a newcomer does not
//!   pass those who wait. A ticket lapses a second after its waiter stopped refreshing it, so a dead waiter
//!   holds nobody up for long.

mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use uuid::Uuid;

use super::shell::{Attempt, Backend, BackendError, Claim, LeasedLock, Step};
use super::{Acquire, Census, FencingToken, Holder, Lock, LockError, Mode};
use crate::config::{ConfigError, LeaseTime, StoreSection, StrategyName};
use crate::db::DatabaseKind;
use crate::telemetry::{LockMetrics, Metrics};

/// A lock in a table of the store's database.
pub struct DatabaseLock {
    lock: LeasedLock,
    table: Arc<dyn LockTable>,
}

/// The statements of the lock table, in one database's dialect. Times are by that database's clock.
#[async_trait]
trait LockTable: Send + Sync {
    /// Inserts the record if nobody has the lock or waits for it.
    async fn try_insert(&self, claim: &Claim) -> Result<Option<FencingToken>, sqlx::Error>;

    /// Joins those who wait; a claim that waits already keeps its place.
    async fn queue(&self, claim: &Claim) -> Result<(), sqlx::Error>;

    /// Says where a waiting claim stands, and changes nothing.
    async fn look(&self, claim: &Claim) -> Result<Outlook, sqlx::Error>;

    /// Takes over what has expired and inserts the record, if it is this claim's turn.
    async fn take_turn(&self, claim: &Claim) -> Result<Option<FencingToken>, sqlx::Error>;

    /// Extends the record's expiry; `false` when the record is gone.
    async fn renew(&self, owner: Uuid, lease: Duration) -> Result<bool, sqlx::Error>;

    /// Deletes the record and the ticket of an owner.
    async fn delete(&self, owner: Uuid) -> Result<(), sqlx::Error>;

    /// All records.
    async fn holders(&self) -> Result<Vec<Holder>, sqlx::Error>;

    /// Deletes a record, whoever has it.
    async fn delete_record(&self, token: FencingToken) -> Result<bool, sqlx::Error>;

    /// How many claims on a key wait.
    async fn waiters(&self, key: &str) -> Result<u64, sqlx::Error>;

    /// Fires when a lock that somebody waits for may have become free; `None` where nobody says so.
    fn changes(&self) -> Option<watch::Receiver<()>>;

    /// How long to wait before looking again, with so many ahead. Jittered, so that those who wait do not look in
    /// step.
    fn pause(&self, ahead: u32) -> Duration;

    /// Whether an error says that others kept this one out for too long.
    fn is_busy(&self, error: &sqlx::Error) -> bool;

    /// How long the server may go on with a statement whose connection is broken.
    fn straggles(&self) -> Duration;

    /// Ends all connections.
    async fn close(&self);
}

/// Where a waiting claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It seems to be its turn.
    Turn,
    /// Somebody has the lock, or so many stand before it.
    Wait {
        ahead: u32,
        /// Whether its ticket is about to lapse.
        refresh: bool,
    },
    /// Its ticket lapsed and was cleared away.
    Forgotten,
}

impl DatabaseLock {
    /// Connects to the lock table in the store's database, whose migrations must have been run.
    pub async fn connect(store: &StoreSection, lease: LeaseTime, holder: &str) -> Result<Self, LockError> {
        Self::measured(store, lease, holder, &Metrics::new(StrategyName::Database).lock).await
    }

    pub(super) async fn measured(
        store: &StoreSection,
        lease: LeaseTime,
        holder: &str,
        metrics: &LockMetrics,
    ) -> Result<Self, LockError> {
        let table: Arc<dyn LockTable> = match DatabaseKind::of(store)? {
            DatabaseKind::Sqlite => Arc::new(sqlite::SqliteTable::connect(store)?),
            DatabaseKind::Postgres => Arc::new(postgres::PostgresTable::connect(store)?),
        };
        let lock = {
            let round_trips = metrics.round_trips.clone();
            let backend = Arc::new(Table { table: Arc::clone(&table), round_trips });
            LeasedLock::new(backend, lease, true, holder, metrics)
        };
        Ok(Self { lock, table })
    }

    /// All records, for an operator.
    pub async fn holders(&self) -> Result<Vec<Holder>, LockError> {
        self.table.holders().await.map_err(unavailable)
    }

    /// Deletes a record whose holder is known to be dead; answers whether there was one. For an operator: the
    /// holder, if it lives, finds at its next renewal that it has lost the lock.
    pub async fn delete_record(&self, token: FencingToken) -> Result<bool, LockError> {
        self.table.delete_record(token).await.map_err(unavailable)
    }
}

#[async_trait]
impl Lock for DatabaseLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        self.lock.begin(key, mode)
    }

    async fn ping(&self) -> Result<(), LockError> {
        self.lock.ping().await
    }

    async fn census(&self, key: &str) -> Result<Census, LockError> {
        self.lock.census(key).await
    }

    async fn shutdown(&self) {
        self.lock.shutdown().await;
    }
}

/// A lock table as a backend.
struct Table {
    table: Arc<dyn LockTable>,
    /// How many operations the table was asked for; on PostgreSQL, each is one statement.
    round_trips: Counter,
}

impl Table {
    /// The table, to be asked for one operation.
    fn ask(&self) -> &dyn LockTable {
        self.round_trips.inc();
        &*self.table
    }

    fn error(&self, error: sqlx::Error) -> BackendError {
        let is_busy = self.table.is_busy(&error);
        if is_busy { BackendError::Busy(error.to_string()) } else { BackendError::Failed(error.to_string()) }
    }

    async fn look_or_take(&self, claim: &Claim) -> Result<Attempt, sqlx::Error> {
        let ahead = match self.ask().look(claim).await? {
            Outlook::Turn => match self.ask().take_turn(claim).await? {
                Some(token) => return Ok(Attempt::Acquired(token)),
                None => 0,
            },
            Outlook::Wait { ahead, refresh } => {
                if refresh {
                    self.ask().queue(claim).await?;
                }
                ahead
            }
            Outlook::Forgotten => {
                self.ask().queue(claim).await?;
                0
            }
        };
        Ok(Attempt::Waits { ahead })
    }

    async fn insert_or_queue(&self, claim: &Claim) -> Result<Attempt, sqlx::Error> {
        if let Some(token) = self.ask().try_insert(claim).await? {
            return Ok(Attempt::Acquired(token));
        }
        self.ask().queue(claim).await?;
        Ok(Attempt::Waits { ahead: 0 })
    }
}

#[async_trait]
impl Backend for Table {
    async fn attempt(&self, claim: &Claim, step: Step) -> Result<Attempt, BackendError> {
        let attempt = match step {
            Step::First => self.insert_or_queue(claim).await,
            Step::Again => self.look_or_take(claim).await,
        };
        attempt.map_err(|error| self.error(error))
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, BackendError> {
        self.ask().renew(claim.owner, lease).await.map_err(|error| self.error(error))
    }

    async fn release(&self, claim: &Claim) -> Result<(), BackendError> {
        self.ask().delete(claim.owner).await.map_err(|error| self.error(error))
    }

    async fn census(&self, key: &str) -> Result<Census, BackendError> {
        let census = async {
            let mut holders = self.ask().holders().await?;
            holders.retain(|holder| holder.key == key);
            Ok(Census { holders, waiting: self.ask().waiters(key).await? })
        };
        census.await.map_err(|error| self.error(error))
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.ask().waiters("").await.map(drop).map_err(|error| self.error(error))
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        self.table.changes()
    }

    fn pause(&self, ahead: u32) -> Duration {
        self.table.pause(ahead)
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn straggles(&self) -> Duration {
        self.table.straggles()
    }

    async fn close(&self) {
        self.table.close().await;
    }
}

/// What the lock table is called in errors.
const NAME: &str = "lock table";

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    }
}

fn mode_from(name: &str) -> Mode {
    if name == "shared" { Mode::Shared } else { Mode::Exclusive }
}

fn unavailable(error: impl std::fmt::Display) -> LockError {
    LockError::Unavailable { dependency: NAME, reason: error.to_string() }
}

impl From<ConfigError> for LockError {
    fn from(error: ConfigError) -> Self {
        unavailable(error)
    }
}
