//! The lock table on PostgreSQL. A release that somebody waits for is announced by NOTIFY; the announcement is a
//! hint, and a slow poll the backstop.

use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::postgres::{PgListener, PgPool, PgRow};
use sqlx::{Error, Row as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{LockTable, Outlook, mode_from, mode_name};
use crate::config::{ConfigError, StoreSection};
use crate::db::postgres::{options, pool};
use crate::lock::shell::{Claim, PLACE_TTL};
use crate::lock::{FencingToken, Holder};

/// The channel of the announcements.
const CHANNEL: &str = "stocklock_released";

/// How many connections the lock table has: waiting for a lock takes none, so a few serve many.
const CONNECTIONS: u32 = 4;

/// The lock table, with connections of its own: waiting for a lock never keeps an order from the store.
pub(super) struct PostgresTable {
    pool: PgPool,
    released: watch::Receiver<()>,
    listener: JoinHandle<()>,
    /// After which the server ends a statement.
    statement_timeout: Duration,
}

impl PostgresTable {
    pub(super) fn connect(store: &StoreSection) -> Result<Self, ConfigError> {
        let pool = pool(store, CONNECTIONS).connect_lazy_with(options(store)?);
        let (announce, released) = watch::channel(());
        let listener = tokio::spawn(listen(pool.clone(), announce));
        Ok(Self { pool, released, listener, statement_timeout: store.timeout })
    }
}

/// Inserts the record where nobody has the lock or waits for it, and clears expired ones away.
///
/// Tokens have to be drawn in the order in which their records come to stand, or a holder could follow one with a
/// greater token. So whoever inserts first has the key to himself, for this statement and its commit; only then is
/// the token drawn. What has expired is counted, so that it is deleted before the insert looks for conflicts; a
/// record that this very statement has deleted is none.
const TRY_INSERT: &str = "
    with alone as materialized (select pg_advisory_xact_lock(hashtextextended('stocklock ' || $1, 0))),
         lapsed as (
             delete from locks using alone
             where lock_key = $1 and expires_at <= clock_timestamp()
             returning 1
         )
    insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
    select $1, $5, $2, $3, clock_timestamp(), clock_timestamp() + $4 * interval '1 millisecond'
    from alone, (select count(*) from lapsed) as cleared
    where not exists (select 1 from lock_waiters where lock_key = $1 and expires_at > clock_timestamp())
    on conflict do nothing
    returning token";

/// The same for a claim that waits and has nobody before it any more; its ticket goes.
const TAKE_TURN: &str = "
    with alone as materialized (select pg_advisory_xact_lock(hashtextextended('stocklock ' || $1, 0))),
         lapsed as (
             delete from locks using alone
             where lock_key = $1 and expires_at <= clock_timestamp()
             returning 1
         ),
         taken as (
             insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
             select me.lock_key, me.mode, me.owner, $3, clock_timestamp(),
                 clock_timestamp() + $4 * interval '1 millisecond'
             from alone, (select count(*) from lapsed) as cleared, lock_waiters as me
             where me.owner = $2
             and not exists (
                 select 1 from lock_waiters as w
                 where w.lock_key = me.lock_key and (w.mode = 'exclusive' or me.mode = 'exclusive')
                 and w.ticket < me.ticket and w.expires_at > clock_timestamp()
             )
             on conflict do nothing
             returning token
         ),
         done as (
             delete from lock_waiters using taken
             where owner = $2 or (lock_key = $1 and expires_at <= clock_timestamp())
         )
    select token from taken";

/// Passes the announcements on. After every interruption it announces by itself: something may have been missed.
async fn listen(pool: PgPool, announce: watch::Sender<()>) {
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await
            && listener.listen(CHANNEL).await.is_ok()
        {
            announce.send_replace(());
            while let Ok(Some(_)) = listener.try_recv().await {
                announce.send_replace(());
            }
        }
        announce.send_replace(());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[async_trait]
impl LockTable for PostgresTable {
    async fn try_insert(&self, claim: &Claim) -> Result<Option<FencingToken>, Error> {
        let token = sqlx::query_scalar(TRY_INSERT).bind(&claim.key).bind(claim.owner);
        let token = token.bind(&claim.holder).bind(claim.lease.map(millis)).bind(mode_name(claim.mode));
        Ok(token.fetch_optional(&self.pool).await?.map(FencingToken))
    }

    async fn queue(&self, claim: &Claim) -> Result<(), Error> {
        sqlx::query(
            "insert into lock_waiters (lock_key, mode, owner, expires_at)
             values ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')
             on conflict (owner) do update set expires_at = excluded.expires_at",
        )
        .bind(&claim.key)
        .bind(mode_name(claim.mode))
        .bind(claim.owner)
        .bind(millis(PLACE_TTL))
        .execute(&self.pool)
        .await
        .map(drop)
    }

    async fn look(&self, claim: &Claim) -> Result<Outlook, Error> {
        let row: Option<(bool, i64, bool)> = sqlx::query_as(
            "select
                 exists (
                     select 1 from locks as l
                     where l.lock_key = me.lock_key and (l.mode = 'exclusive' or me.mode = 'exclusive')
                     and (l.expires_at is null or l.expires_at > clock_timestamp())
                 ),
                 (
                     select count(*) from lock_waiters as w
                     where w.lock_key = me.lock_key and (w.mode = 'exclusive' or me.mode = 'exclusive')
                     and w.ticket < me.ticket and w.expires_at > clock_timestamp()
                 ),
                 me.expires_at < clock_timestamp() + $2 * interval '1 millisecond'
             from lock_waiters as me where me.owner = $1",
        )
        .bind(claim.owner)
        .bind(millis(PLACE_TTL * 2 / 3))
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            None => Outlook::Forgotten,
            Some((false, 0, _)) => Outlook::Turn,
            Some((_, ahead, refresh)) => {
                Outlook::Wait { ahead: u32::try_from(ahead).unwrap_or(u32::MAX), refresh }
            }
        })
    }

    async fn take_turn(&self, claim: &Claim) -> Result<Option<FencingToken>, Error> {
        let token = sqlx::query_scalar(TAKE_TURN).bind(&claim.key).bind(claim.owner);
        let token = token.bind(&claim.holder).bind(claim.lease.map(millis));
        Ok(token.fetch_optional(&self.pool).await?.map(FencingToken))
    }

    async fn renew(&self, owner: Uuid, lease: Duration) -> Result<bool, Error> {
        let renewed = sqlx::query(
            "update locks set expires_at = clock_timestamp() + $2 * interval '1 millisecond' where owner = $1",
        )
        .bind(owner)
        .bind(millis(lease))
        .execute(&self.pool)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    async fn delete(&self, owner: Uuid) -> Result<(), Error> {
        // One statement: the record or the ticket goes, and where somebody waits, it is announced.
        sqlx::query(
            "with record as (delete from locks where owner = $1 returning lock_key),
                 ticket as (delete from lock_waiters where owner = $1 returning lock_key)
             select pg_notify($2, '')
             from (select lock_key from record union select lock_key from ticket) as gone
             where exists (
                 select 1 from lock_waiters as w where w.lock_key = gone.lock_key and w.owner <> $1
                 and w.expires_at > clock_timestamp()
             )",
        )
        .bind(owner)
        .bind(CHANNEL)
        .execute(&self.pool)
        .await
        .map(drop)
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let rows = sqlx::query(
            "select lock_key, mode, token, holder, coalesce(expires_at <= clock_timestamp(), false) as expired
             from locks order by token",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(holder).collect()
    }

    async fn delete_record(&self, token: FencingToken) -> Result<bool, Error> {
        let delete = sqlx::query("delete from locks where token = $1").bind(token.0);
        Ok(delete.execute(&self.pool).await?.rows_affected() == 1)
    }

    async fn waiters(&self, key: &str) -> Result<u64, Error> {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from lock_waiters where lock_key = $1 and expires_at > clock_timestamp()",
        )
        .bind(key)
        .fetch_one(&self.pool)
        .await?;
        Ok(waiting.unsigned_abs())
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.released.clone())
    }

    fn pause(&self, _ahead: u32) -> Duration {
        Duration::from_millis(rand::rng().random_range(50..=100))
    }

    fn is_busy(&self, error: &Error) -> bool {
        crate::db::postgres::is_busy(error)
    }

    fn straggles(&self) -> Duration {
        self.statement_timeout
    }

    async fn close(&self) {
        self.listener.abort();
        self.pool.close().await;
    }
}

impl Drop for PostgresTable {
    fn drop(&mut self) {
        self.listener.abort();
    }
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
