//! The lock table on PostgreSQL. A release that another waits for is announced by NOTIFY, with its key; the
//! announcement is a hint, and a slow poll the backstop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::postgres::{PgConnection, PgListener, PgPool, PgRow};
use sqlx::{Error, Row as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::{LockTable, mode_from, mode_name};
use crate::config::{ConfigError, StoreSection};
use crate::db::postgres::{Pool, is_definite, options, pool};
use crate::lock::leased::{Claim, PLACE_TTL, Step, Wakeups};
use crate::lock::{FencingToken, Holder};

/// The channel of the announcements.
const CHANNEL: &str = "stocklock_released";

/// How many connections the lock table has, besides the listener's: two insertions, a deletion, and one for everything
/// else. Waiting for a lock takes none.
const CONNECTIONS: usize = 4;

/// How much longer than the server a statement is waited for, until its connection is taken for dead.
const REPLY: Duration = Duration::from_millis(500);

/// Inserts the records of those whose turn it is; the others get a ticket, or keep the one that they have.
///
/// Tokens have to be drawn in the order in which their records come to stand, or a holder could follow one with a
/// greater token. So whoever inserts has entered its keys first (`stocklock_in_turn`), and has them to himself until
/// the commit; only then are tokens drawn. Uniqueness decides between two who insert.
///
/// A statement that neither inserts nor refreshes a ticket writes nothing.
const INSERT: &str = "
    with asked as materialized (
             select * from unnest($1::text[], $2::text[], $3::uuid[])
                 with ordinality as t (lock_key, mode, owner, position)
         ),
         taken as (
             insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
             select lock_key, mode, owner, $4, clock_timestamp(),
                 clock_timestamp() + $5 * interval '1 millisecond'
             from asked
             where owner = any (array(select stocklock_in_turn($1, $2, $3)))
             order by position
             on conflict do nothing
             returning owner, token
         ),
         waiting as (
             insert into lock_waiters (lock_key, mode, owner, expires_at)
             select lock_key, mode, owner, clock_timestamp() + $6 * interval '1 millisecond'
             from asked
             where owner not in (select owner from taken)
             and not exists (
                 select 1 from lock_waiters as me
                 where me.owner = asked.owner
                 and me.expires_at > clock_timestamp() + $6 * interval '0.67 millisecond'
             )
             order by position
             on conflict (owner) do update set expires_at = excluded.expires_at
         ),
         served as (delete from lock_waiters using taken where lock_waiters.owner = taken.owner)
    select owner, token from taken";

/// Extends records. Under its key, as everything that locks rows of several keys: so that no two wait for each other.
const EXTEND: &str = "
    with alone as materialized (select stocklock_enter($1))
    update locks set expires_at = clock_timestamp() + $3 * interval '1 millisecond'
    from alone, unnest($1::text[], $2::uuid[]) as mine (lock_key, owner)
    where locks.lock_key = mine.lock_key and locks.owner = mine.owner
    returning locks.owner";

/// Deletes the records and tickets of owners, and selects their keys.
///
/// The disk is not waited for where records expire: a server that crashes and comes back with a record that was deleted
/// keeps others out until its lease ends, as its holder's crash would. (An insertion is waited for: without it, another
/// could have the lock while its holder believes to.)
macro_rules! delete {
    ($select:literal) => {
        concat!(
            "with settings as materialized (select set_config('synchronous_commit', $3, true)),
                 alone as materialized (select stocklock_enter($1) from settings),
                 mine as materialized (select * from unnest($1::text[], $2::uuid[]) as t (lock_key, owner)),
                 record as (
                     delete from locks using alone, mine
                     where locks.lock_key = mine.lock_key and locks.owner = mine.owner
                     returning locks.lock_key
                 ),
                 ticket as (
                     delete from lock_waiters using alone, mine where lock_waiters.owner = mine.owner
                     returning lock_waiters.lock_key
                 ),
                 gone as (
                     select array(select lock_key from record union select lock_key from ticket) as keys
                 ) ",
            $select
        )
    };
}

/// Deletes, and announces the keys that another waits for. It has entered the keys, as those who get a ticket have: so it
/// sees each ticket of one who saw the record.
const DELETE: &str =
    delete!("select pg_notify($4, lock_key) from gone, lateral stocklock_awaited(keys) as lock_key");

/// Deletes, and leaves those who wait to their poll.
const DELETE_SILENTLY: &str = delete!("select null from gone where keys is null");

/// The lock table, with connections of its own: waiting for a lock never keeps an order from the store.
pub(super) struct PostgresTable {
    pool: Pool,
    listener: JoinHandle<()>,
    /// After which the server ends a statement.
    statement_timeout: Duration,
}

impl PostgresTable {
    pub(super) fn connect(store: &StoreSection, wakeups: Arc<Wakeups>) -> Result<Self, ConfigError> {
        let options = options(store)?;
        let listener = pool(store, 1).connect_lazy_with(options.clone());
        let listener = tokio::spawn(listen(listener, wakeups));
        // A table whose records come and go has no statistics that hold: the plan is by index, and made once.
        let options = options.options([
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
        ]);
        let pool = Pool::new(options, CONNECTIONS, store.timeout);
        Ok(Self { pool, listener, statement_timeout: store.timeout })
    }

    /// Runs statements on a connection. One that does not answer is closed, so that nothing waits behind it.
    async fn run<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut connection = self.pool.get().await?;
        match timeout(self.statement_timeout + REPLY, statements(&mut connection)).await {
            Ok(result) => connection.finish(result),
            Err(_) => Err(Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))),
        }
    }
}

/// Passes the announcements on. After every interruption it wakes all by itself: something may have been missed.
async fn listen(pool: PgPool, wakeups: Arc<Wakeups>) {
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await
            && listener.listen(CHANNEL).await.is_ok()
        {
            wakeups.wake_all();
            while let Ok(Some(announcement)) = listener.try_recv().await {
                match announcement.payload() {
                    // From a replica of an older version, which names no key.
                    "" => wakeups.wake_all(),
                    key => wakeups.wake(key),
                }
            }
        }
        wakeups.wake_all();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[async_trait]
impl LockTable for PostgresTable {
    async fn insert(&self, claims: &[Arc<Claim>], _: Step) -> Result<Vec<Option<FencingToken>>, Error> {
        let Some(claim) = claims.first() else { return Ok(Vec::new()) };
        let (keys, owners) = keys_and_owners(claims);
        let modes: Vec<_> = claims.iter().map(|claim| mode_name(claim.mode)).collect();
        let insert = sqlx::query_as(INSERT).bind(keys).bind(modes).bind(&owners);
        let insert = insert.bind(&*claim.holder).bind(claim.lease.map(millis)).bind(millis(PLACE_TTL));
        let taken: Vec<(Uuid, i64)> = self.run(async |connection| insert.fetch_all(connection).await).await?;
        let taken: HashMap<_, _> = taken.into_iter().collect();
        Ok(owners.iter().map(|owner| taken.get(owner).copied().map(FencingToken)).collect())
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<bool>, Error> {
        let Some(claim) = claims.first() else { return Ok(Vec::new()) };
        let (keys, owners) = keys_and_owners(claims);
        let extend = sqlx::query_scalar(EXTEND).bind(keys).bind(&owners).bind(claim.lease.map(millis));
        let extended: Vec<Uuid> = self.run(async |connection| extend.fetch_all(connection).await).await?;
        let extended: HashSet<_> = extended.into_iter().collect();
        Ok(owners.iter().map(|owner| extended.contains(owner)).collect())
    }

    async fn delete(&self, claims: &[Arc<Claim>]) -> Result<(), Error> {
        let (keys, owners) = keys_and_owners(claims);
        let expire = claims.iter().all(|claim| claim.lease.is_some());
        let synchronous_commit = if expire { "off" } else { "on" };
        let delete = sqlx::query(DELETE).bind(&keys).bind(&owners).bind(synchronous_commit).bind(CHANNEL);
        match self.run(async |connection| delete.execute(connection).await).await {
            Err(error) if is_definite(&error) && !self.is_busy(&error) => {
                tracing::warn!(%error, "a release could not be announced; those who wait poll");
                let delete = sqlx::query(DELETE_SILENTLY).bind(&keys).bind(&owners).bind(synchronous_commit);
                self.run(async |connection| delete.execute(connection).await).await.map(drop)
            }
            deleted => deleted.map(drop),
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let holders = sqlx::query(
            "select lock_key, mode, token, holder, coalesce(expires_at <= clock_timestamp(), false) as expired
             from locks order by token",
        );
        let rows = self.run(async |connection| holders.fetch_all(connection).await).await?;
        rows.iter().map(holder).collect()
    }

    async fn delete_record(&self, token: FencingToken) -> Result<bool, Error> {
        let delete = sqlx::query("delete from locks where token = $1").bind(token.0);
        let deleted = self.run(async |connection| delete.execute(connection).await).await?;
        Ok(deleted.rows_affected() == 1)
    }

    async fn waiters(&self, key: &str) -> Result<u64, Error> {
        let waiting = sqlx::query_scalar(
            "select count(*) from lock_waiters where lock_key = $1 and expires_at > clock_timestamp()",
        );
        let waiting = waiting.bind(key);
        let waiting: i64 = self.run(async |connection| waiting.fetch_one(connection).await).await?;
        Ok(waiting.unsigned_abs())
    }

    fn flights(&self) -> usize {
        2
    }

    fn pause(&self, _ahead: u32) -> Duration {
        Duration::from_millis(rand::rng().random_range(50..=100))
    }

    fn is_busy(&self, error: &Error) -> bool {
        crate::db::postgres::is_busy(error)
    }

    fn late_write_window(&self) -> Duration {
        self.statement_timeout
    }

    async fn close(&self) {
        self.listener.abort();
        self.pool.close();
    }
}

impl Drop for PostgresTable {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn keys_and_owners(claims: &[Arc<Claim>]) -> (Vec<&str>, Vec<Uuid>) {
    claims.iter().map(|claim| (&*claim.key, claim.owner)).unzip()
}

fn holder(row: &PgRow) -> Result<Holder, Error> {
    Ok(Holder {
        key: row.try_get("lock_key")?,
        mode: mode_from(row.try_get("mode")?),
        token: Some(FencingToken(row.try_get("token")?)),
        replica: row.try_get("holder")?,
        expired: row.try_get("expired")?,
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
