//! The lock table on SQLite, in the store's file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteSynchronous};
use sqlx::{Connection as _, Error, SqliteExecutor};

use super::{HolderRow, LockTable, Outlook, Taken, holder, unavailable};
use crate::config::StoreSection;
use crate::db::sqlite::{DatabaseFile, options, pool};
use crate::lock::leased::{Claim, PLACE_TTL, Step, Wakeups};
use crate::lock::{FencingToken, Holder, LockError};

/// The lock table, with connections of its own: waiting for a lock never keeps an order from the store.
pub(super) struct SqliteTable {
    file: Arc<DatabaseFile>,
    /// One, since SQLite has one writer at a time: who waits for it waits in order, and does not poll.
    writer: SqlitePool,
    reader: SqlitePool,
    /// The waiters of this process.
    wakeups: Arc<Wakeups>,
}

impl SqliteTable {
    pub(super) async fn connect(store: &StoreSection, wakeups: Arc<Wakeups>) -> Result<Self, LockError> {
        // A lock record need not survive a power cut on its own. Those that count do: the commit of an order
        // syncs the whole log, and with it the records written before. So tokens never go back.
        let options = options(store)?.synchronous(SqliteSynchronous::Normal);
        DatabaseFile::claim(&options).map_err(unavailable)?;
        let file = Arc::new(DatabaseFile::open(&options).await.map_err(unavailable)?);
        Ok(Self {
            writer: pool(store, &file, 1).connect_lazy_with(options.clone()),
            reader: pool(store, &file, 2).connect_lazy_with(options.read_only(true)),
            file,
            wakeups,
        })
    }

    /// The connection that writes.
    async fn writing(&self) -> Result<PoolConnection<Sqlite>, Error> {
        self.file.check()?;
        self.writer.acquire().await
    }

    /// One to read with.
    async fn reading(&self) -> Result<PoolConnection<Sqlite>, Error> {
        self.file.check()?;
        self.reader.acquire().await
    }
}

/// Inserts the records of those whose turn it is: with no record that keeps them out, and no earlier ticket;
/// those who have no ticket yet come last, in the order in which they are given, as a JSON array of keys,
/// modes and owners. SQLite has one writer at a time, so that what is not there is not there.
const INSERT: &str = "
    insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
    select asked.lock_key, asked.mode, asked.owner, ?2, now, now + ?3
    from (
        select lock_key, mode, owner, position, ticket,
            count(*) over earlier as before,
            count(*) filter (where mode = 'exclusive') over earlier as writers_before
        from (
            select value ->> 0 as lock_key, value ->> 1 as mode, value ->> 2 as owner, key as position,
                coalesce(
                    (select me.ticket from lock_waiters as me where me.owner = value ->> 2),
                    9223372036854775807
                ) as ticket
            from json_each(?1)
        )
        window earlier as (
            partition by lock_key order by ticket, position rows between unbounded preceding and 1 preceding
        )
    ) as asked,
        (select cast(unixepoch('subsec') * 1000 as integer) as now)
    where case asked.mode when 'exclusive' then asked.before else asked.writers_before end = 0
    and not exists (
        select 1 from locks as l
        where l.lock_key = asked.lock_key and (l.mode = 'exclusive' or asked.mode = 'exclusive')
    )
    and not exists (
        select 1 from lock_waiters as w
        where w.lock_key = asked.lock_key and (w.mode = 'exclusive' or asked.mode = 'exclusive')
        and w.expires_at > now and w.ticket < asked.ticket
    )
    order by position
    on conflict do nothing
    returning owner, token";

/// Gives tickets to those who have none, and refreshes those of the others.
const QUEUE: &str = "
    insert into lock_waiters (lock_key, mode, owner, expires_at)
    select value ->> 0, value ->> 1, value ->> 2, cast(unixepoch('subsec') * 1000 as integer) + ?2
    from json_each(?1) where true order by key
    on conflict (owner) do update set expires_at = excluded.expires_at";

impl SqliteTable {
    /// Inserts the records of those whose turn it is. Returns the tokens by owner.
    async fn take<'c>(
        claims: &[&Claim],
        executor: impl SqliteExecutor<'c>,
    ) -> Result<HashMap<String, FencingToken>, Error> {
        let Some(claim) = claims.first() else { return Ok(HashMap::new()) };
        let insert = sqlx::query_as(INSERT).bind(asked(claims)).bind(&*claim.holder);
        let insert = insert.bind(claim.lease.map(millis));
        // All rows are asked for, also where there is one at most: SQLite commits when the statement has come
        // to its end, and an error of that must not be lost.
        let taken: Vec<(String, i64)> = insert.fetch_all(executor).await?;
        Ok(taken.into_iter().map(|(owner, token)| (owner, FencingToken(token))).collect())
    }

    /// Clears away what has expired, inserts the records of those whose turn it is, and gives the others
    /// tickets.
    async fn take_turns(&self, claims: &[&Claim]) -> Result<HashMap<String, FencingToken>, Error> {
        let keys = json(claims.iter().map(|claim| &*claim.key));
        let mut connection = self.writing().await?;
        let mut transaction = connection.begin_with("begin immediate").await?;
        for expired in [
            "delete from locks where lock_key in (select value from json_each(?1))
             and expires_at <= cast(unixepoch('subsec') * 1000 as integer)",
            "delete from lock_waiters where lock_key in (select value from json_each(?1))
             and expires_at <= cast(unixepoch('subsec') * 1000 as integer)",
        ] {
            sqlx::query(expired).bind(&keys).execute(&mut *transaction).await?;
        }
        let taken = Self::take(claims, &mut *transaction).await?;
        let waiting = asked(&without(claims, &taken));
        let queue = sqlx::query(QUEUE).bind(waiting).bind(millis(PLACE_TTL));
        queue.execute(&mut *transaction).await?;
        if !taken.is_empty() {
            sqlx::query("delete from lock_waiters where owner in (select value from json_each(?1))")
                .bind(json(taken.keys()))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(taken)
    }
}

/// The claims that have no record.
fn without<'c>(claims: &[&'c Claim], taken: &HashMap<String, FencingToken>) -> Vec<&'c Claim> {
    claims.iter().copied().filter(|claim| !taken.contains_key(&claim.owner.to_string())).collect()
}

/// Claims in JSON: an array of key, mode and owner for each.
fn asked(claims: &[&Claim]) -> String {
    json(claims.iter().map(|claim| (&*claim.key, claim.mode.name(), claim.owner)))
}

/// Something of each claim, in JSON.
fn json<T: serde::Serialize>(of_each: impl Iterator<Item = T>) -> String {
    serde_json::to_string(&of_each.collect::<Vec<_>>()).expect("text is JSON")
}

#[async_trait]
impl LockTable for SqliteTable {
    async fn insert(&self, claims: &[Arc<Claim>], step: Step) -> Result<Vec<Option<Taken>>, Error> {
        let claims: Vec<_> = claims.iter().map(|claim| &**claim).collect();
        let mut taken = match step {
            // Where nothing has expired and no other waits, one statement is all.
            Step::First => Self::take(&claims, &mut *self.writing().await?).await?,
            Step::Again => HashMap::new(),
        };
        let others = without(&claims, &taken);
        if !others.is_empty() {
            match self.take_turns(&others).await {
                Ok(taken_now) => taken.extend(taken_now),
                // Those who have their records have the lock all the same.
                Err(error) if self.is_busy(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let of = |claim: &&Claim| {
            let token = taken.get(&claim.owner.to_string()).copied();
            token.map(|token| Taken { token, note: None })
        };
        Ok(claims.iter().map(of).collect())
    }

    async fn outlook(&self, claim: &Claim) -> Result<Outlook, Error> {
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
        .fetch_optional(&mut *self.reading().await?)
        .await?;
        Ok(match row {
            // Its ticket lapsed and was cleared away; or it is its turn; or its ticket is about to lapse.
            None | Some((false, 0, _) | (_, _, true)) => Outlook::Insert,
            Some((_, ahead, false)) => Outlook::Wait { ahead },
        })
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<bool>, Error> {
        let Some(claim) = claims.first() else { return Ok(Vec::new()) };
        let extended: Vec<String> = sqlx::query_scalar(
            "update locks set expires_at = cast(unixepoch('subsec') * 1000 as integer) + ?2
             where owner in (select value from json_each(?1))
             returning owner",
        )
        .bind(json(claims.iter().map(|claim| claim.owner)))
        .bind(claim.lease.map(millis))
        .fetch_all(&mut *self.writing().await?)
        .await?;
        let extended: HashSet<_> = extended.into_iter().collect();
        Ok(claims.iter().map(|claim| extended.contains(&claim.owner.to_string())).collect())
    }

    async fn delete(&self, claims: &[Arc<Claim>]) -> Result<(), Error> {
        let owners = json(claims.iter().map(|claim| claim.owner));
        let records = sqlx::query("delete from locks where owner in (select value from json_each(?1))");
        let records = records.bind(&owners).execute(&mut *self.writing().await?).await?.rows_affected();
        if records < claims.len() as u64 {
            sqlx::query("delete from lock_waiters where owner in (select value from json_each(?1))")
                .bind(&owners)
                .execute(&mut *self.writing().await?)
                .await?;
        }
        // Those in other processes poll.
        claims.iter().for_each(|claim| self.wakeups.wake(&claim.key, None));
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let rows = sqlx::query_as::<_, HolderRow>(
            "select lock_key, mode, token, holder,
                 coalesce(expires_at <= cast(unixepoch('subsec') * 1000 as integer), 0) as expired
             from locks order by token",
        )
        .fetch_all(&mut *self.reading().await?)
        .await?;
        Ok(rows.into_iter().map(holder).collect())
    }

    async fn delete_record(&self, token: FencingToken) -> Result<bool, Error> {
        let delete = sqlx::query("delete from locks where token = ?1").bind(token.0);
        Ok(delete.execute(&mut *self.writing().await?).await?.rows_affected() == 1)
    }

    async fn waiters(&self, key: &str) -> Result<u64, Error> {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from lock_waiters
             where lock_key = ?1 and expires_at > cast(unixepoch('subsec') * 1000 as integer)",
        )
        .bind(key)
        .fetch_one(&mut *self.reading().await?)
        .await?;
        Ok(waiting.unsigned_abs())
    }

    fn pause(&self, ahead: u32) -> Duration {
        let most = if ahead == 0 { 2_000 } else { 4_000 * u64::from(ahead.min(8)) };
        Duration::from_micros(rand::rng().random_range(most / 4..=most))
    }

    fn is_busy(&self, error: &Error) -> bool {
        crate::db::sqlite::is_busy(error)
    }

    fn late_write_window(&self) -> Duration {
        // There is no connection to break: a statement ends with the process.
        Duration::ZERO
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
        self.file.close().await;
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
