//! The lock table: whoever inserts the record has the lock, and deletes it to unlock.
//!
//! - The record's identity, never used twice, is the fencing token.
//! - A record has an expiry by the **database's** clock, which its holder renews; an expired one is taken
//!   over in the transaction that finds it expired. With `lease = "never"` it stays until it is deleted; its
//!   holder checks every second whether it is there.
//! - Those who wait queue with tickets: first come first served, readers together, and a newcomer does not
//!   pass those who wait. A ticket lapses a second after its waiter stopped refreshing it, so a dead waiter
//!   holds up no other for long.
//! - Tokens and tickets of a key only rise. So whoever was granted it looks behind its own the next time:
//!   what was deleted can stand in the way for long, beside a transaction that stays open elsewhere.
//! - What many ask for at the same time goes in one statement: claims of many keys are inserted together, and
//!   so are they deleted and renewed. Each has its own outcome.

mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;

use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, Step, Wakeups};
use super::{Acquire, FencingToken, Holder, Lock, LockError, LockState, Mode, Note};
use crate::combine::{FlightLimits, FlightLost, Requests};
use crate::config::{ConfigError, LeaseTime, StoreSection, StrategyName};
use crate::db::DatabaseKind;
use crate::telemetry::{LockMetrics, Metrics};

/// Connects to the lock table in the store's database, whose migrations must have been run.
pub(super) async fn connect(
    store: &StoreSection,
    lease: LeaseTime,
    holder: &str,
    metrics: &LockMetrics,
) -> Result<LeasedLock, LockError> {
    let (table, wakeups) = open(store).await?;
    Ok(leased_lock(table, wakeups, lease, holder, metrics))
}

/// The lock of [`connect`] together with the records of all holders, for an operator.
pub struct DatabaseLock {
    lock: LeasedLock,
    table: Arc<dyn LockTable>,
}

/// The statements of the lock table, in one database's dialect, each for many claims. Times are by that
/// database's clock.
#[async_trait]
trait LockTable: Send + Sync {
    /// Inserts the records of those whose turn it is, and takes over what has expired. Each of the others has
    /// a ticket afterwards: a new one, or the one that it had. Returns the token of each record. `step` is
    /// [`Step::First`] when none of them has a ticket yet.
    async fn insert(&self, claims: &[Arc<Claim>], step: Step) -> Result<Vec<Option<Taken>>, sqlx::Error>;

    /// Says where a waiting claim stands, and changes nothing. Only where that is cheaper than to insert.
    async fn outlook(&self, _claim: &Claim) -> Result<Outlook, sqlx::Error> {
        Ok(Outlook::Insert)
    }

    /// Extends the expiry of records; for each, `false` when it is gone.
    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<bool>, sqlx::Error>;

    /// Deletes the records and the tickets of claims, and announces it.
    async fn delete(&self, claims: &[Arc<Claim>]) -> Result<(), sqlx::Error>;

    /// Deletes and then inserts, each with its own result. In one statement, where that is cheaper.
    async fn exchange(
        &self,
        given: &[Arc<Claim>],
        asked: &[Arc<Claim>],
        step: Step,
    ) -> (Result<(), sqlx::Error>, Result<Vec<Option<Taken>>, sqlx::Error>) {
        (self.delete(given).await, self.insert(asked, step).await)
    }

    /// All records, of every key, expired ones too; by their tokens.
    async fn holders(&self) -> Result<Vec<Holder>, sqlx::Error>;

    /// Deletes a record, whoever has it.
    async fn delete_record(&self, token: FencingToken) -> Result<bool, sqlx::Error>;

    /// How many claims on a key wait.
    async fn waiters(&self, key: &str) -> Result<u64, sqlx::Error>;

    /// How long to wait before the next attempt, with so many ahead. Jittered, so that waiters do not poll in
    /// step.
    fn pause(&self, ahead: u32) -> Duration;

    /// Whether an error says that others kept this one out for too long.
    fn is_busy(&self, error: &sqlx::Error) -> bool;

    /// How long the server may go on with a statement whose connection is broken.
    fn late_write_window(&self) -> Duration;

    /// Ends all connections; what is asked afterwards fails.
    async fn close(&self);
}

/// A record that was inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    token: FencingToken,
    /// What the table says about what is locked.
    note: Option<Note>,
}

/// A record: its key, mode, token and holder, and whether it has expired.
type HolderRow = (String, String, i64, Option<String>, bool);

fn holder((key, mode, token, replica, expired): HolderRow) -> Holder {
    let mode = if mode == Mode::Shared.name() { Mode::Shared } else { Mode::Exclusive };
    Holder { key, mode, token: Some(FencingToken(token)), replica, expired }
}

/// Where a waiting claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It may be its turn, or its ticket has to be refreshed.
    Insert,
    /// Another holder has the lock, or so many stand before it.
    Wait { ahead: u32 },
}

impl DatabaseLock {
    /// Connects to the lock table in the store's database, whose migrations must have been run.
    pub async fn connect(store: &StoreSection, lease: LeaseTime, holder: &str) -> Result<Self, LockError> {
        let (table, wakeups) = open(store).await?;
        let metrics = Metrics::new(StrategyName::Database).lock;
        let lock = leased_lock(Arc::clone(&table), wakeups, lease, holder, &metrics);
        Ok(Self { lock, table })
    }

    /// All records, of every key, expired ones too; by their tokens.
    pub async fn holders(&self) -> Result<Vec<Holder>, LockError> {
        self.table.holders().await.map_err(unavailable)
    }

    /// Deletes a record whose holder is known to be dead; returns whether there was one. The holder, if it
    /// lives, finds at its next renewal that it has lost the lock.
    pub async fn delete_record(&self, token: FencingToken) -> Result<bool, LockError> {
        self.table.delete_record(token).await.map_err(unavailable)
    }
}

#[async_trait]
impl Lock for DatabaseLock {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        self.lock.begin(key, mode)
    }

    fn lease(&self) -> Option<Duration> {
        self.lock.lease()
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        self.lock.state(key).await
    }

    async fn shutdown(&self) {
        self.lock.shutdown().await;
    }
}

/// Opens the table, and says what it announces releases to.
async fn open(store: &StoreSection) -> Result<(Arc<dyn LockTable>, Arc<Wakeups>), LockError> {
    let wakeups = Arc::new(Wakeups::default());
    let table: Arc<dyn LockTable> = match DatabaseKind::of(store)? {
        DatabaseKind::Sqlite => Arc::new(sqlite::SqliteTable::connect(store, Arc::clone(&wakeups)).await?),
        DatabaseKind::Postgres => {
            Arc::new(postgres::PostgresTable::connect(store, Arc::clone(&wakeups)).await?)
        }
    };
    Ok((table, wakeups))
}

fn leased_lock(
    table: Arc<dyn LockTable>,
    wakeups: Arc<Wakeups>,
    lease: LeaseTime,
    holder: &str,
    metrics: &LockMetrics,
) -> LeasedLock {
    let backend = Table::new(table, wakeups, metrics.round_trips.clone());
    LeasedLock::new(Arc::new(backend), lease, true, holder, metrics)
}

/// How many claims one statement is for. One of them at a time, from each of many replicas, fits into the
/// server's table of locks.
const MOST_CLAIMS: usize = 128;

/// A lock table as a backend: what many claims ask for at the same time is combined into few statements.
struct Table {
    asked: CountedTable,
    wakeups: Arc<Wakeups>,
    jobs: Requests<TableJob, Result<TableJobDone, BackendError>, BackendError>,
}

/// What the table is asked for, together with others.
enum TableJob {
    /// To insert the claim's record, or to see to it that it has a ticket.
    Insert(Arc<Claim>, Step),
    /// To delete the claim's record, or its ticket.
    Delete(Arc<Claim>),
}

/// What came of a job.
enum TableJobDone {
    Attempted(Attempt),
    Deleted,
}

/// A lock table that is counted.
#[derive(Clone)]
struct CountedTable {
    table: Arc<dyn LockTable>,
    /// How many operations the table was asked for; on PostgreSQL, each is one statement.
    round_trips: Counter,
}

impl Table {
    fn new(table: Arc<dyn LockTable>, wakeups: Arc<Wakeups>, round_trips: Counter) -> Self {
        let asked = CountedTable { table, round_trips };
        let flying = asked.clone();
        let jobs = Requests::new(FlightLimits { flights: 1, jobs: MOST_CLAIMS }, move |jobs| {
            let asked = flying.clone();
            async move { Ok(asked.carry_out(jobs).await) }
        });
        Self { asked, wakeups, jobs }
    }
}

impl CountedTable {
    /// The table, to be asked for one operation.
    fn once(&self) -> &dyn LockTable {
        self.round_trips.inc();
        &*self.table
    }

    fn error(&self, error: sqlx::Error) -> BackendError {
        let is_busy = self.table.is_busy(&error);
        if is_busy { BackendError::Busy(error.to_string()) } else { BackendError::Failed(error.to_string()) }
    }

    /// Carries jobs out together: one result for each, in their order.
    async fn carry_out(&self, jobs: Vec<TableJob>) -> Vec<Result<TableJobDone, BackendError>> {
        let (mut given, mut asked, mut step) = (Vec::new(), Vec::new(), Step::First);
        for job in &jobs {
            match job {
                TableJob::Delete(claim) => given.push(Arc::clone(claim)),
                TableJob::Insert(claim, its_step) => {
                    asked.push(Arc::clone(claim));
                    if *its_step == Step::Again {
                        step = Step::Again;
                    }
                }
            }
        }
        let (deleted, inserted) = match (given.is_empty(), asked.is_empty()) {
            (false, false) => self.once().exchange(&given, &asked, step).await,
            (false, true) => (self.once().delete(&given).await, Ok(Vec::new())),
            (true, _) => (Ok(()), self.once().insert(&asked, step).await),
        };
        let waits = || Attempt::Waits { ahead: 0 };
        let attempts: Vec<Result<Attempt, BackendError>> = match inserted {
            Ok(taken) => taken
                .into_iter()
                .map(|taken| Ok(taken.map_or_else(waits, |taken| Attempt::Acquired(taken.token, taken.note))))
                .collect(),
            // One kept them all out: each tries again by itself.
            Err(error) if self.table.is_busy(&error) => asked.iter().map(|_| Ok(waits())).collect(),
            Err(error) => vec![Err(self.error(error)); asked.len()],
        };
        let deleted = deleted.map_err(|error| self.error(error));
        let mut attempts = attempts.into_iter();
        let done = |job: &TableJob| match job {
            TableJob::Delete(_) => deleted.clone().map(|()| TableJobDone::Deleted),
            TableJob::Insert(..) => attempts.next().expect("one for each").map(TableJobDone::Attempted),
        };
        jobs.iter().map(done).collect()
    }
}

#[async_trait]
impl Backend for Table {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, step: Step) -> Result<Attempt, BackendError> {
        if step == Step::Again
            && let Outlook::Wait { ahead } =
                self.asked.table.outlook(&claim).await.map_err(|e| self.asked.error(e))?
        {
            return Ok(Attempt::Waits { ahead });
        }
        match self.jobs.submit(TableJob::Insert(claim, step)).await?? {
            TableJobDone::Attempted(attempt) => Ok(attempt),
            TableJobDone::Deleted => unreachable!("an insertion deletes nothing"),
        }
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let mut renewed = Vec::with_capacity(claims.len());
        for claims in claims.chunks(MOST_CLAIMS) {
            match self.asked.once().extend(claims).await {
                Ok(extended) => renewed.extend(extended.into_iter().map(Ok)),
                Err(error) => renewed.extend(vec![Err(self.asked.error(error)); claims.len()]),
            }
        }
        renewed
    }

    async fn release(&self, claim: &Arc<Claim>, _: Option<&str>) -> Result<(), BackendError> {
        self.jobs.submit(TableJob::Delete(Arc::clone(claim))).await?.map(drop)
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let state = async {
            let mut holders = self.asked.once().holders().await?;
            holders.retain(|holder| holder.key == key);
            Ok(LockState { holders, waiting: self.asked.once().waiters(key).await? })
        };
        state.await.map_err(|error| self.asked.error(error))
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    fn pause(&self, ahead: u32) -> Duration {
        self.asked.table.pause(ahead)
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn late_write_window(&self) -> Duration {
        self.asked.table.late_write_window()
    }

    async fn close(&self) {
        self.asked.table.close().await;
    }
}

impl From<FlightLost> for BackendError {
    fn from(error: FlightLost) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What the lock table is called in errors.
const NAME: &str = "lock table";

fn unavailable(error: impl std::fmt::Display) -> LockError {
    LockError::Unavailable { dependency: NAME, reason: error.to_string() }
}

impl From<ConfigError> for LockError {
    fn from(error: ConfigError) -> Self {
        unavailable(error)
    }
}
