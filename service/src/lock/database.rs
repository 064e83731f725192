//! The lock table: whoever inserts the record has the lock, and deletes it to unlock.
//!
//! - The record's identity, never used twice, is the fencing token.
//! - A record has an expiry by the **database's** clock, which its holder renews; an expired one is taken
//!   over in the transaction that finds it expired. With `lease = "never"` it stays until it is deleted.
//! - Those who wait queue with tickets: first come first served, readers together, and a newcomer does not
//!   pass those who wait. A ticket lapses a second after its waiter stopped refreshing it, so a dead waiter
//!   holds nobody up for long.
//! - Every attempt is an owner of its own. Whatever becomes of it, its release goes to the [`Releaser`], also
//!   where the acquire seemed to fail: its reply may have been lost.

mod postgres;
mod releaser;
mod renewal;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use self::releaser::{Obligation, Releaser};
use self::renewal::{Renewal, valid_until};
use super::{Census, FencingToken, Hold, Holder, Lease, Lock, LockError, Mode, Validity};
use crate::config::{ConfigError, LeaseTime, StoreSection};
use crate::store::StoreKind;

/// How long a ticket counts that is not refreshed.
const TICKET_TTL: Duration = Duration::from_secs(1);

/// A lock in a table of the store's database.
pub struct DatabaseLock {
    table: Arc<dyn LockTable>,
    lease: LeaseTime,
    holder: String,
    releaser: Releaser,
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

    /// Ends all connections.
    async fn close(&self);
}

/// One attempt to have a lock.
#[derive(Debug, Clone)]
struct Claim {
    key: String,
    mode: Mode,
    owner: Uuid,
    holder: String,
    lease: Option<Duration>,
}

/// Where a waiting claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It seems to be its turn.
    Turn,
    /// Somebody has the lock, or so many stand before it.
    Wait { ahead: u32 },
    /// Its ticket lapsed and was cleared away.
    Forgotten,
}

impl DatabaseLock {
    /// Connects to the lock table in the store's database, whose migrations must have been run.
    pub async fn connect(store: &StoreSection, lease: LeaseTime, holder: &str) -> Result<Self, LockError> {
        let table: Arc<dyn LockTable> = match StoreKind::of(store).map_err(unavailable)? {
            StoreKind::Sqlite => Arc::new(sqlite::SqliteTable::connect(store).await.map_err(unavailable)?),
            StoreKind::Postgres => {
                Arc::new(postgres::PostgresTable::connect(store).await.map_err(unavailable)?)
            }
        };
        let releaser = Releaser::start(Arc::clone(&table), lease);
        Ok(Self { table, lease, holder: holder.into(), releaser })
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

    /// Inserts at once if nobody is there; queues otherwise.
    async fn insert_or_queue(&self, claim: &Claim) -> Result<Option<(FencingToken, Instant)>, sqlx::Error> {
        let asked = Instant::now();
        if let Some(token) = self.table.try_insert(claim).await? {
            return Ok(Some((token, asked)));
        }
        self.table.queue(claim).await?;
        Ok(None)
    }

    /// Waits for the claim's turn. Answers the token and when it was asked for.
    async fn wait(&self, claim: &Claim) -> Result<(FencingToken, Instant), sqlx::Error> {
        let mut refresh_at = Instant::now() + TICKET_TTL / 3;
        let mut changes = self.table.changes();
        loop {
            // Whatever changes from here on is noticed below, also when the look came too early for it.
            changes.as_mut().map(watch::Receiver::borrow_and_update);
            let asked = Instant::now();
            let ahead = match self.table.look(claim).await? {
                Outlook::Turn => match self.table.take_turn(claim).await? {
                    Some(token) => return Ok((token, asked)),
                    None => 0,
                },
                Outlook::Wait { ahead } => ahead,
                Outlook::Forgotten => {
                    self.table.queue(claim).await?;
                    continue;
                }
            };
            if asked >= refresh_at {
                self.table.queue(claim).await?;
                refresh_at = asked + TICKET_TTL / 3;
            }
            let changed = async {
                let announced = match &mut changes {
                    Some(changes) => changes.changed().await.is_ok(),
                    None => false,
                };
                if !announced {
                    std::future::pending::<()>().await;
                }
            };
            // An error says that the pause is over.
            timeout(self.table.pause(ahead), changed).await.ok();
        }
    }

    fn lease(&self, mut obligation: Obligation, token: FencingToken, asked: Instant) -> Lease {
        let (validity, renewal) = match self.lease {
            LeaseTime::Never => (Validity::unlimited(), None),
            LeaseTime::For(lease) => {
                let validity = Validity::until(valid_until(asked, lease));
                let renewal = Renewal::start(Arc::clone(&self.table), obligation.owner(), lease, &validity);
                (validity, Some(renewal))
            }
        };
        obligation.held();
        Lease::new(Some(token), validity, Box::new(Record { obligation, _renewal: renewal }))
    }
}

#[async_trait]
impl Lock for DatabaseLock {
    async fn acquire(&self, key: &str, mode: Mode, deadline: Instant) -> Result<Lease, LockError> {
        let claim = Claim {
            key: key.into(),
            mode,
            owner: Uuid::new_v4(),
            holder: self.holder.clone(),
            lease: self.lease.duration(),
        };
        // From here on the record or ticket is deleted, whatever becomes of this attempt.
        let obligation = self.releaser.obligation(claim.owner);
        let attempt = async {
            match self.insert_or_queue(&claim).await? {
                Some(had) => Ok(had),
                None => self.wait(&claim).await,
            }
        };
        match timeout_at(deadline, attempt).await {
            Ok(Ok((token, asked))) => {
                let lease = self.lease(obligation, token, asked);
                // A reply that took longer than the lease brought nothing.
                lease.check().map_err(|_| LockError::Timeout)?;
                Ok(lease)
            }
            Ok(Err(error)) if self.table.is_busy(&error) => Err(LockError::Timeout),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(LockError::Timeout),
        }
    }

    async fn ping(&self) -> Result<(), LockError> {
        self.table.waiters("").await.map(drop).map_err(unavailable)
    }

    async fn census(&self, key: &str) -> Result<Census, LockError> {
        let mut holders = self.holders().await?;
        holders.retain(|holder| holder.key == key);
        Ok(Census { holders, waiting: self.table.waiters(key).await.map_err(unavailable)? })
    }

    async fn shutdown(&self) {
        self.releaser.flush().await;
        self.table.close().await;
    }
}

/// The record of a lease.
struct Record {
    obligation: Obligation,
    _renewal: Option<Renewal>,
}

#[async_trait]
impl Hold for Record {
    async fn release(self: Box<Self>) {
        let Self { obligation, _renewal: renewal } = *self;
        drop(renewal);
        obligation.fulfil().await;
    }
}

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
    LockError::Unavailable { dependency: "lock table", reason: error.to_string() }
}

impl From<ConfigError> for LockError {
    fn from(error: ConfigError) -> Self {
        unavailable(error)
    }
}
