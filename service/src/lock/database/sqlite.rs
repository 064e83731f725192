//! The lock table on SQLite, in the store's file.

use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::sqlite::{SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{Error, Row as _};
use tokio::sync::watch;
use uuid::Uuid;

use super::{LockTable, Outlook, mode_from, mode_name};
use crate::config::{ConfigError, StoreSection};
use crate::db::sqlite::{options, pool};
use crate::lock::shell::{Claim, PLACE_TTL};
use crate::lock::{FencingToken, Holder};

/// The lock table, with connections of its own: waiting for a lock never keeps an order from the store.
pub(super) struct SqliteTable {
    /// One, since SQLite has one writer at a time: who waits for it waits in order, and does not poll.
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteTable {
    pub(super) fn connect(store: &StoreSection) -> Result<Self, ConfigError> {
        // A lock record need not survive a power cut on its own. Those that count do: the commit of an order
        // syncs the whole log, and with it the records written before. So tokens never go back.
        let options = options(store)?.synchronous(SqliteSynchronous::Normal);
        Ok(Self {
            writer: pool(store, 1).connect_lazy_with(options.clone()),
            reader: pool(store, 2).connect_lazy_with(options.read_only(true)),
        })
    }
}

#[async_trait]
impl LockTable for SqliteTable {
    async fn try_insert(&self, claim: &Claim) -> Result<Option<FencingToken>, Error> {
        let token = sqlx::query_scalar(
            "insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
             select ?1, ?2, ?3, ?4, now, now + ?5
             from (select cast(unixepoch('subsec') * 1000 as integer) as now)
             where not exists (
                 select 1 from locks where lock_key = ?1 and (mode = 'exclusive' or ?2 = 'exclusive')
             )
             and not exists (select 1 from lock_waiters where lock_key = ?1 and expires_at > now)
             returning token",
        );
        let token = token.bind(&claim.key).bind(mode_name(claim.mode)).bind(claim.owner.to_string());
        let token = token.bind(&claim.holder).bind(claim.lease.map(millis));
        // All rows are asked for, though there is one at most: SQLite commits when the statement has come to its end,
        // and an error of that must not be lost.
        Ok(token.fetch_all(&self.writer).await?.pop().map(FencingToken))
    }

    async fn queue(&self, claim: &Claim) -> Result<(), Error> {
        sqlx::query(
            "insert into lock_waiters (lock_key, mode, owner, expires_at)
             values (?1, ?2, ?3, cast(unixepoch('subsec') * 1000 as integer) + ?4)
             on conflict (owner) do update set expires_at = excluded.expires_at",
        )
        .bind(&claim.key)
        .bind(mode_name(claim.mode))
        .bind(claim.owner.to_string())
        .bind(millis(PLACE_TTL))
        .execute(&self.writer)
        .await
        .map(drop)
    }

    async fn look(&self, claim: &Claim) -> Result<Outlook, Error> {
        let row: Option<(bool, u32, bool)> = sqlx::query_as(
            "select
                 exists (
                     select 1 from locks as l
                     where l.lock_key = me.lock_key and (l.mode = 'exclusive' or me.mode = 'exclusive')
                     and (l.expires_at is null or l.expires_at > now)
                 ),
                 (
                     select count(*) from lock_waiters as w
                     where w.lock_key = me.lock_key and (w.mode = 'exclusive' or me.mode = 'exclusive')
                     and w.ticket < me.ticket and w.expires_at > now
                 ),
                 me.expires_at < now + ?2
             from lock_waiters as me,
                 (select cast(unixepoch('subsec') * 1000 as integer) as now)
             where me.owner = ?1",
        )
        .bind(claim.owner.to_string())
        .bind(millis(PLACE_TTL * 2 / 3))
        .fetch_optional(&self.reader)
        .await?;
        Ok(match row {
            None => Outlook::Forgotten,
            Some((false, 0, _)) => Outlook::Turn,
            Some((_, ahead, refresh)) => Outlook::Wait { ahead, refresh },
        })
    }

    async fn take_turn(&self, claim: &Claim) -> Result<Option<FencingToken>, Error> {
        let mut transaction = self.writer.begin_with("begin immediate").await?;
        sqlx::query(
            "delete from locks
             where lock_key = ?1 and expires_at <= cast(unixepoch('subsec') * 1000 as integer)",
        )
        .bind(&claim.key)
        .execute(&mut *transaction)
        .await?;
        let token = sqlx::query_scalar(
            "insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
             select me.lock_key, me.mode, me.owner, ?2, now, now + ?3
             from lock_waiters as me,
                 (select cast(unixepoch('subsec') * 1000 as integer) as now)
             where me.owner = ?1
             and not exists (
                 select 1 from locks as l
                 where l.lock_key = me.lock_key and (l.mode = 'exclusive' or me.mode = 'exclusive')
             )
             and not exists (
                 select 1 from lock_waiters as w
                 where w.lock_key = me.lock_key and (w.mode = 'exclusive' or me.mode = 'exclusive')
                 and w.ticket < me.ticket and w.expires_at > now
             )
             returning token",
        )
        .bind(claim.owner.to_string())
        .bind(&claim.holder)
        .bind(claim.lease.map(millis))
        .fetch_optional(&mut *transaction)
        .await?;
        if token.is_some() {
            sqlx::query(
                "delete from lock_waiters
                 where owner = ?1
                 or (lock_key = ?2 and expires_at <= cast(unixepoch('subsec') * 1000 as integer))",
            )
            .bind(claim.owner.to_string())
            .bind(&claim.key)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(token.map(FencingToken))
    }

    async fn renew(&self, owner: Uuid, lease: Duration) -> Result<bool, Error> {
        let renewed = sqlx::query(
            "update locks set expires_at = cast(unixepoch('subsec') * 1000 as integer) + ?2
             where owner = ?1",
        )
        .bind(owner.to_string())
        .bind(millis(lease))
        .execute(&self.writer)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    async fn delete(&self, owner: Uuid) -> Result<(), Error> {
        let owner = owner.to_string();
        let record = sqlx::query("delete from locks where owner = ?1").bind(&owner);
        if record.execute(&self.writer).await?.rows_affected() == 0 {
            sqlx::query("delete from lock_waiters where owner = ?1")
                .bind(&owner)
                .execute(&self.writer)
                .await?;
        }
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let rows = sqlx::query(
            "select lock_key, mode, token, holder,
                 coalesce(expires_at <= cast(unixepoch('subsec') * 1000 as integer), 0) as expired
             from locks order by token",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(holder).collect()
    }

    async fn delete_record(&self, token: FencingToken) -> Result<bool, Error> {
        let delete = sqlx::query("delete from locks where token = ?1").bind(token.0);
        Ok(delete.execute(&self.writer).await?.rows_affected() == 1)
    }

    async fn waiters(&self, key: &str) -> Result<u64, Error> {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from lock_waiters
             where lock_key = ?1 and expires_at > cast(unixepoch('subsec') * 1000 as integer)",
        )
        .bind(key)
        .fetch_one(&self.reader)
        .await?;
        Ok(waiting.unsigned_abs())
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }

    fn pause(&self, ahead: u32) -> Duration {
        let most = if ahead == 0 { 2_000 } else { 4_000 * u64::from(ahead.min(8)) };
        Duration::from_micros(rand::rng().random_range(most / 4..=most))
    }

    fn is_busy(&self, error: &Error) -> bool {
        crate::db::sqlite::is_busy(error)
    }

    fn straggles(&self) -> Duration {
        // There is no connection to break: a statement ends with the process.
        Duration::ZERO
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn holder(row: &SqliteRow) -> Result<Holder, Error> {
    Ok(Holder {
        key: row.try_get("lock_key")?,
        mode: mode_from(row.try_get("mode")?),
        token: Some(FencingToken(row.try_get("token")?)),
        replica: row.try_get("holder")?,
        expired: row.try_get("expired")?,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
