//! The lock table on PostgreSQL. A release that another waits for is announced by NOTIFY, with its key; the
//! announcement is a hint, and a slow poll the backstop.

mod horizons;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::Error;
use sqlx::postgres::{PgArguments, PgConnection, PgListener, Postgres};
use sqlx::query::QueryAs;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use self::horizons::Horizons;
use super::{HolderRow, LockTable, Taken, holder, unavailable};
use crate::config::StoreSection;
use crate::db::postgres::{Connection, Pool, SessionSettings, denied, is_definite, places};
use crate::lock::leased::{Claim, PLACE_TTL, Step, Wakeups};
use crate::lock::{FencingToken, Holder, LockError};

/// The channel of the announcements.
const CHANNEL: &str = "stocklock_released";

/// What locks need.
const NEEDED: [(&str, &[&str]); 2] = [
    ("locks", &["select", "insert", "update", "delete"]),
    ("lock_waiters", &["select", "insert", "update", "delete"]),
];

/// How many connections the lock table has, besides the listener's: one for records that come and go, one for
/// renewals, and one for everything else. Waiting for a lock takes none.
const CONNECTIONS: usize = 3;

/// How much longer than the server a statement is waited for, until its connection is taken for dead.
const REPLY: Duration = Duration::from_millis(500);

/// How long the listener waits for an announcement before it asks whether the server is there.
const QUIET: Duration = Duration::from_secs(2);

/// How long a connection for the listener, or its server's answer, may take.
const LISTENER: Duration = Duration::from_secs(2);

/// Inserts the records of those whose turn it is; the others get a ticket, or keep the one that they have.
const TAKE: &str = "select owner, token, note, ticket
    from stocklock_take($1, $2, $3, $4, $5, $6, $7, $8, $9::text[]::tid[])";

/// Deletes the records and tickets of owners, and announces it.
const GIVE: &str = "select stocklock_give($1, $2, $3, $4, $5, $6)";

/// Both: deletes first.
const EXCHANGE: &str = "select owner, token, note, ticket
    from stocklock_exchange($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text[]::tid[])";

/// Extends records.
const EXTEND: &str = "select owner from stocklock_extend($1, $2, $3, $4)";

/// The lock table, with connections of its own: waiting for a lock never keeps an order from the store.
pub(super) struct PostgresTable {
    pool: Pool,
    horizons: Horizons,
    listener: JoinHandle<()>,
    /// After which the server ends a statement.
    statement_timeout: Duration,
}

impl PostgresTable {
    /// Connects to the table. Fails where the role may not do with it what locks need.
    pub(super) async fn connect(store: &StoreSection, wakeups: Arc<Wakeups>) -> Result<Self, LockError> {
        let session = SessionSettings::of(store)?;
        let asking = async { denied(&mut session.connect().await?, &NEEDED).await };
        let denied = timeout(store.timeout, asking).await.map_err(|_| unavailable("no answer in time"))?;
        match denied.map_err(unavailable)? {
            none if none.is_empty() => {}
            denied => return Err(unavailable(denied)),
        }
        let listener = tokio::spawn(listen(session.clone(), wakeups));
        // A table whose records come and go has no statistics that hold: the plan is by index, and made once.
        // (A bitmap is made of all that the index has of a key, also of what is gone.)
        let session = session.with([
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
        ]);
        let pool = Pool::new(session, CONNECTIONS, store.timeout);
        Ok(Self { pool, horizons: Horizons::new(CONNECTIONS), listener, statement_timeout: store.timeout })
    }

    /// Runs statements on a connection. One that does not answer is closed, so that nothing waits behind it.
    async fn run<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.run_on(self.pool.get().await?, statements).await
    }

    async fn run_on<T>(
        &self,
        mut connection: Connection,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match timeout(self.statement_timeout + REPLY, statements(&mut connection)).await {
            Ok(result) => connection.finish(result),
            Err(_) => Err(connection.abandon()),
        }
    }

    /// Runs a statement that grants locks: what each of the claims has, in their order.
    async fn grant<'a>(
        &self,
        claims: &'a [Arc<Claim>],
        statement: impl FnOnce(u64) -> QueryAs<'a, Postgres, GrantRow, PgArguments>,
    ) -> Result<Vec<Option<Taken>>, Error> {
        let connection = self.pool.get().await?;
        let session = connection.number();
        let statement = statement(session);
        let rows = self.run_on(connection, async |connection| statement.fetch_all(connection).await).await?;
        let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.0, row)).collect();
        let rows: Vec<_> = claims.iter().map(|claim| rows.remove(&claim.owner)).collect();
        let granted = claims.iter().zip(&rows);
        let granted = granted.filter_map(|(claim, row)| Some((claim, row.as_ref()?)));
        let granted: Vec<_> =
            granted.map(|(claim, (_, token, _, ticket))| (&**claim, FencingToken(*token), *ticket)).collect();
        self.horizons.granted(session, &granted).map_err(|error| Error::Protocol(error.to_string()))?;
        let taken = |(claim, (_, token, note, _)): (&Arc<Claim>, GrantRow)| {
            // The last word is where the product's row stands, if there is one.
            let note = note.rsplit_once(' ').map(|(note, place)| {
                places::saw(&claim.key, place);
                Box::from(note)
            });
            Taken { token: FencingToken(token), note }
        };
        Ok(claims.iter().zip(rows).map(|(claim, row)| row.map(|row| taken((claim, row)))).collect())
    }
}

/// Passes the announcements on. After every interruption it wakes all by itself: something may have been
/// missed.
async fn listen(session: SessionSettings, wakeups: Arc<Wakeups>) {
    loop {
        let listening = async {
            let mut listener = session.listener().await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, Error>(listener)
        };
        if let Ok(Ok(mut listener)) = timeout(LISTENER, listening).await {
            wakeups.wake_all();
            while pass_on(&mut listener, &wakeups).await.is_ok() {}
        }
        wakeups.wake_all();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Passes the next announcement on. Where none comes for a while, the server is asked whether it is there: a
/// connection may end without a sign of it.
async fn pass_on(listener: &mut PgListener, wakeups: &Wakeups) -> Result<(), Error> {
    match timeout(QUIET, listener.try_recv()).await {
        Ok(Ok(Some(announcement))) => {
            wakeups.announced(announcement.payload());
            Ok(())
        }
        Ok(Ok(None)) => Err(Error::WorkerCrashed),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let asked = timeout(LISTENER, sqlx::query("select 1").execute(listener)).await;
            asked.map_err(|_| Error::PoolTimedOut)?.map(drop)
        }
    }
}

#[async_trait]
impl LockTable for PostgresTable {
    async fn insert(&self, claims: &[Arc<Claim>], _: Step) -> Result<Vec<Option<Taken>>, Error> {
        let take = |session| bind_claims(sqlx::query_as(TAKE), claims, self.horizons.of(session, claims));
        self.grant(claims, take).await
    }

    async fn exchange(
        &self,
        given: &[Arc<Claim>],
        asked: &[Arc<Claim>],
        step: Step,
    ) -> (Result<(), Error>, Result<Vec<Option<Taken>>, Error>) {
        let exchange = |session| {
            let (keys, owners) = keys_and_owners(given);
            let (first_tokens, first_tickets) = self.horizons.of(session, given);
            let exchange = sqlx::query_as(EXCHANGE).bind(keys).bind(owners).bind(CHANNEL);
            let exchange = exchange.bind(first_tokens).bind(first_tickets);
            bind_claims(exchange, asked, self.horizons.of(session, asked))
        };
        match self.grant(asked, exchange).await {
            Ok(taken) => (Ok(()), Ok(taken)),
            // Each by itself, so that neither fails for the other's sake.
            Err(error) if is_definite(&error) => (self.delete(given).await, self.insert(asked, step).await),
            Err(error) => (Err(Error::Protocol(error.to_string())), Err(error)),
        }
    }

    async fn extend(&self, claims: &[Arc<Claim>]) -> Result<Vec<bool>, Error> {
        let Some(claim) = claims.first() else { return Ok(Vec::new()) };
        let (keys, owners) = keys_and_owners(claims);
        let connection = self.pool.get().await?;
        let (first_tokens, _) = self.horizons.of(connection.number(), claims);
        let extend = sqlx::query_scalar(EXTEND).bind(keys).bind(&owners);
        let extend = extend.bind(claim.lease.map(millis)).bind(first_tokens);
        let extended = self.run_on(connection, async |connection| extend.fetch_all(connection).await);
        let extended: HashSet<Uuid> = extended.await?.into_iter().collect();
        Ok(owners.iter().map(|owner| extended.contains(owner)).collect())
    }

    async fn delete(&self, claims: &[Arc<Claim>]) -> Result<(), Error> {
        let (keys, owners) = keys_and_owners(claims);
        let durable = claims.iter().any(|claim| claim.lease.is_none());
        let give = async |channel: Option<&'static str>| {
            let connection = self.pool.get().await?;
            let (first_tokens, first_tickets) = self.horizons.of(connection.number(), claims);
            let give = sqlx::query(GIVE).bind(&keys).bind(&owners).bind(channel).bind(durable);
            let give = give.bind(first_tokens).bind(first_tickets);
            self.run_on(connection, async |connection| give.execute(connection).await.map(drop)).await
        };
        match give(Some(CHANNEL)).await {
            Err(error) if is_definite(&error) && !self.is_busy(&error) => {
                tracing::warn!(%error, "a release could not be announced; those who wait poll");
                give(None).await
            }
            deleted => deleted,
        }
    }

    async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let holders = sqlx::query_as::<_, HolderRow>(
            "select lock_key, mode, token, holder, coalesce(expires_at <= clock_timestamp(), false) as expired
             from locks order by token",
        );
        let rows = self.run(async |connection| holders.fetch_all(connection).await).await?;
        Ok(rows.into_iter().map(holder).collect())
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

/// An owner that was granted its lock, its token, what the table says of what is locked, and the ticket that
/// it had waited with.
type GrantRow = (Uuid, i64, String, Option<i64>);

/// Binds the nine parameters of claims: the last are what is known in the session, and of the products.
fn bind_claims<'a, O>(
    query: QueryAs<'a, Postgres, O, PgArguments>,
    claims: &'a [Arc<Claim>],
    (first_tokens, first_tickets): (Vec<i64>, Vec<i64>),
) -> QueryAs<'a, Postgres, O, PgArguments> {
    let (keys, owners) = keys_and_owners(claims);
    let modes: Vec<_> = claims.iter().map(|claim| claim.mode.name()).collect();
    let (holder, lease) = claims.first().map_or(("", None), |claim| (&*claim.holder, claim.lease));
    let query = query.bind(keys).bind(modes).bind(owners).bind(holder).bind(lease.map(millis));
    let places: Vec<_> = claims.iter().map(|claim| places::place_of(&claim.key)).collect();
    query.bind(millis(PLACE_TTL)).bind(first_tokens).bind(first_tickets).bind(places)
}

fn keys_and_owners(claims: &[Arc<Claim>]) -> (Vec<&str>, Vec<Uuid>) {
    claims.iter().map(|claim| (&*claim.key, claim.owner)).unzip()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
