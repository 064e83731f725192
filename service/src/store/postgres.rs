//! The store for more than one machine: PostgreSQL.

mod queries;
mod rows;
mod tables;
mod transaction;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

pub(super) use self::queries::BOUNDED;
use self::transaction::{PostgresTransaction, Replays, execute, not_written, undone};
use super::{
    CommitError, Creation, Latest, OpenError, Store, StoreError, Transaction, audit, created_answer,
    kept_answers, orders, products, status,
};
use crate::api::{Adjustment, Audit, DuplicateRead, Order, OrderStatus, OrderTotals, Product};
use crate::change::KeptAnswer;
use crate::config::StoreSection;
use crate::db::postgres::{Pool, SessionSettings, shares_sessions};
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::token::{Generation, GenerationRequest};

/// How many connections a replica has at most for orders; the lock table has its own.
const CONNECTIONS: usize = 24;

/// How often generations are asked for that others have begun meanwhile.
const GENERATION_ROUNDS: usize = 5;

/// The generations that go on, and those that begin, of all keys but those that another has begun meanwhile.
/// In the order of the keys, so that two replicas do not wait for each other.
const TOKEN_GENERATIONS: &str = "with wanted as (
    select * from unnest($1::text[], $2::text[], $3::bigint[]) as wanted (lock_key, server, lost)
), known as (
    select lock_key, known.generation from wanted join token_generations as known using (lock_key)
    where known.server = wanted.server and known.generation is distinct from wanted.lost
), begun as (
    insert into token_generations as before (lock_key, generation, server)
    select lock_key, coalesce((
        select (max(fencing_token) >> 32) + 1 from (
            select fencing_token from orders where sku = lock_key order by version desc limit 1000
        ) as latest
    ), 0), server
    from wanted where lock_key not in (select lock_key from known) order by lock_key
    on conflict (lock_key) do update set
        generation = greatest(before.generation + 1, excluded.generation), server = excluded.server
    where before.server <> excluded.server
    or before.generation = (select lost from wanted where wanted.lock_key = excluded.lock_key)
    returning lock_key, generation
)
select lock_key, generation, false from known union all select lock_key, generation, true from begun";

/// Why sessions have to be a connection's own.
const SHARED: &str = "its sessions are shared between connections, as by PgBouncer in transaction mode, \
    where what is set and prepared in them is lost: use PgBouncer's pool_mode = session, or the server";

/// Products and orders in PostgreSQL, at READ COMMITTED: the lock and the guard are what orders rely on.
pub struct PostgresStore {
    pool: Pool,
    timeout: Duration,
    replays: Arc<Replays>,
}

impl PostgresStore {
    /// Connects, and brings the tables up to date; replicas that start together do that one after the other.
    pub async fn connect(store: &StoreSection) -> Result<Self, OpenError> {
        // Plans are made once, by index, whatever the tables' statistics say: to plan the statement of a
        // small commit anew takes longer than to execute it.
        let session = SessionSettings::of(store)?.with([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            // A bitmap is made of all rows that an index has, also where a few are asked for.
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
        ]);
        let unavailable = |reason: String| OpenError::Unavailable { url: session.address().into(), reason };
        let pool = Pool::new(session.clone(), CONNECTIONS, store.timeout);
        warn_of_volatility(&pool).await.map_err(|error| unavailable(error.to_string()))?;
        if shares_sessions(&session).await.map_err(|error| unavailable(error.to_string()))? {
            return Err(unavailable(SHARED.into()));
        }
        let limit = Some(tables::AT_START);
        tables::migrate(session.clone(), store.migrate, limit).await.map_err(unavailable)?;
        tables::check_rights(&session).await.map_err(unavailable)?;
        Ok(Self { pool, timeout: store.timeout, replays: Arc::default() })
    }

    /// Brings the tables up to date, however long it takes, and returns how many migrations that took.
    pub async fn migrate(store: &StoreSection) -> Result<usize, OpenError> {
        let session = SessionSettings::of(store)?;
        let url = session.address().to_owned();
        let unavailable = |reason: String| OpenError::Unavailable { url: url.clone(), reason };
        if shares_sessions(&session).await.map_err(|error| unavailable(error.to_string()))? {
            return Err(unavailable(SHARED.into()));
        }
        tables::migrate(session, true, None).await.map_err(unavailable)
    }
}

async fn create(connection: &mut PgConnection, product: &ProductRequest) -> Result<Creation, CommitError> {
    execute(connection, "begin").await.map_err(not_written)?;
    let insert = sqlx::query(
        "insert into products (sku, name, stock, version, supply, created_at)
         values ($1, $2, $3, 0, $3, date_trunc('microseconds', clock_timestamp()))
         on conflict (sku) do nothing
         returning sku, name, stock, version, supply, created_at",
    );
    let insert = insert.bind(product.sku.as_str()).bind(product.name.as_str()).bind(product.stock);
    let creation = async {
        let Some(row) = insert.fetch_optional(&mut *connection).await? else { return Ok(Creation::Exists) };
        let created = rows::product(&row)?;
        if let Some(answer) = created_answer(product, &created)
            && rows::keep_answers(&[&answer]).fetch_optional(&mut *connection).await?.is_none()
        {
            return Ok(Creation::KeyTaken);
        }
        Ok(Creation::Created(created))
    };
    let creation = match creation.await {
        Ok(creation) => creation,
        Err(error) => return Err(undone(connection, error).await),
    };
    let end = if matches!(creation, Creation::Created(_)) { "commit" } else { "rollback" };
    execute(connection, end).await.map_err(|error| CommitError::Unknown(error.into()))?;
    Ok(creation)
}

/// Says so if the server does not keep what it has confirmed, which no session can change.
async fn warn_of_volatility(pool: &Pool) -> Result<(), sqlx::Error> {
    let query =
        "select name from pg_settings where name in ('fsync', 'full_page_writes') and setting = 'off'";
    for row in pool.fetch(sqlx::query(query)).await? {
        let setting: &str = row.try_get(0)?;
        tracing::warn!(
            "PostgreSQL runs with {setting} = off: orders that are confirmed may be lost in a crash"
        );
    }
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    async fn levels(&self, skus: &[Sku]) -> Result<Vec<Option<StockLevel>>, StoreError> {
        let mut connection = self.pool.get().await?;
        // A little less than whoever reads will wait; the connection is closed then.
        let rows = timeout(self.timeout * 9 / 10, rows::levels(skus).fetch_all(&mut *connection)).await;
        let Ok(rows) = rows else { return Err(connection.abandon().into()) };
        let mut levels = vec![None; skus.len()];
        for row in connection.finish(rows)? {
            let (number, level) = rows::level(&row)?;
            levels[number] = Some(level);
        }
        Ok(levels)
    }

    fn locking_at_once(&self) -> usize {
        2
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError> {
        Ok(Box::new(PostgresTransaction::new(self.pool.clone(), self.timeout, Arc::clone(&self.replays))))
    }

    async fn create_product(&self, product: &ProductRequest) -> Result<Creation, CommitError> {
        let mut connection = self.pool.get().await.map_err(not_written)?;
        let Ok(created) = timeout(self.pool.reply(), create(&mut connection, product)).await else {
            return Err(CommitError::Unknown(connection.abandon().into()));
        };
        // With anything but a result, the connection is closed.
        connection.finish(Ok(created?)).map_err(not_written)
    }

    async fn kept_answers(&self, keys: &[&IdempotencyKey]) -> Result<Vec<KeptAnswer>, StoreError> {
        let asked: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let query = sqlx::query(
            "select idempotency_key, request, answer from kept_answers where idempotency_key = any($1)",
        );
        let rows = self.pool.fetch(query.bind(asked)).await?;
        let rows = rows.iter().map(sqlx::FromRow::from_row).collect::<Result<_, sqlx::Error>>()?;
        Ok(kept_answers(rows, keys))
    }

    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let query = sqlx::query(concat!(products!(), " where sku = $1")).bind(sku.as_str());
        Ok(self.pool.fetch(query).await?.first().map(rows::product).transpose()?)
    }

    async fn products(&self, after: Option<&Sku>, limit: u32) -> Result<Vec<Product>, StoreError> {
        let query = sqlx::query(concat!(products!(), " where sku > $1 order by sku limit $2"))
            .bind(after.map_or_else(String::new, |sku| sku.as_str().to_owned()))
            .bind(i64::from(limit));
        let rows = self.pool.fetch(query).await?;
        Ok(rows.iter().map(rows::product).collect::<Result<_, _>>()?)
    }

    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        let query = sqlx::query(concat!(orders!(), " where id = $1")).bind(id);
        Ok(self.pool.fetch(query).await?.first().map(rows::order).transpose()?)
    }

    async fn order_status(&self, id: Uuid) -> Result<Option<(OrderStatus, bool)>, StoreError> {
        let query = sqlx::query(
            "select status,
                 (status = 'awaiting_payment' and pay_by <= statement_timestamp()) is true as overdue
             from orders where id = $1",
        );
        let rows = self.pool.fetch(query.bind(id)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some((status(row.try_get("status")?)?, row.try_get("overdue")?)))
    }

    async fn overdue(
        &self,
        replica: &str,
        grace: Duration,
        except: &[Sku],
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let query = sqlx::query(concat!(
            orders!(),
            " where status = 'awaiting_payment' and pay_by <= statement_timestamp()
             and (replica = $1 or pay_by <= statement_timestamp() - $2 * interval '1 millisecond')
             and sku <> all ($4) order by pay_by limit $3"
        ));
        let query = query.bind(replica.to_owned()).bind(grace.as_secs_f64() * 1_000.0);
        let except: Vec<_> = except.iter().map(|sku| sku.as_str().to_owned()).collect();
        let rows = self.pool.fetch(query.bind(i64::from(limit)).bind(except)).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn next_overdue(&self) -> Result<Option<Duration>, StoreError> {
        let query = sqlx::query(
            "select extract(epoch from min(pay_by) - statement_timestamp())::float8 as seconds
             from orders where status = 'awaiting_payment'",
        );
        let rows = self.pool.fetch(query).await?;
        let seconds: Option<f64> = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("seconds")?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)))
    }

    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError> {
        let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let query = sqlx::query(concat!(orders!(), " where idempotency_key = any($1)")).bind(keys);
        let rows = self.pool.fetch(query).await?;
        let with_key = |row| Ok((sqlx::Row::try_get(row, "idempotency_key")?, rows::order(row)?));
        Ok(rows.iter().map(with_key).collect::<Result<_, sqlx::Error>>()?)
    }

    async fn orders(
        &self,
        sku: Option<&Sku>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let (after, limit) = (after.unwrap_or_default(), i64::from(limit));
        let query = match sku {
            Some(sku) => sqlx::query(queries::ORDERS_OF_A_PRODUCT)
                .bind(after)
                .bind(limit)
                .bind(sku.as_str().to_owned()),
            None => sqlx::query(queries::ORDERS).bind(after).bind(limit),
        };
        let rows = self.pool.fetch(query).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn adjustments(
        &self,
        sku: &Sku,
        after: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Adjustment>, StoreError> {
        let (version, id) = after.unwrap_or((i64::MIN, Uuid::nil()));
        let query = sqlx::query(queries::ADJUSTMENTS).bind(sku.as_str().to_owned());
        let query = query.bind(version).bind(id).bind(i64::from(limit));
        let rows = self.pool.fetch(query).await?;
        Ok(rows.iter().map(rows::adjustment).collect::<Result<_, _>>()?)
    }

    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError> {
        let rows = self.pool.fetch(sqlx::query(queries::AUDIT).bind(sku.as_str())).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let duplicate_reads: Vec<DuplicateRead> = serde_json::from_str(row.try_get("duplicate_reads")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let totals = OrderTotals {
            orders: row.try_get("orders")?,
            units_sold: row.try_get("latest_sold")?,
            units_reserved: row.try_get("latest_reserved")?,
        };
        let counters = OrderTotals {
            orders: row.try_get("order_count")?,
            units_sold: row.try_get("units_sold")?,
            units_reserved: row.try_get("units_reserved")?,
        };
        Ok(Some(audit(rows::stock_level(row)?, counters, Latest { totals, duplicate_reads })))
    }

    async fn token_generations(&self, wanted: &[GenerationRequest]) -> Result<Vec<Generation>, StoreError> {
        let mut generations = HashMap::new();
        let mut left: Vec<_> = wanted.iter().collect();
        for _ in 0..GENERATION_ROUNDS {
            let keys: Vec<_> = left.iter().map(|request| &*request.key).collect();
            let servers: Vec<_> = left.iter().map(|request| &*request.server).collect();
            let lost: Vec<_> = left.iter().map(|request| request.lost).collect();
            let begin = sqlx::query(TOKEN_GENERATIONS).bind(keys).bind(servers).bind(lost);
            for row in self.pool.fetch(begin).await? {
                let generation = Generation { number: row.try_get(1)?, is_new: row.try_get(2)? };
                generations.insert(row.try_get::<String, _>(0)?, generation);
            }
            // What another has begun meanwhile is seen by the next statement.
            left.retain(|request| !generations.contains_key(&request.key));
            if left.is_empty() {
                return Ok(wanted.iter().map(|request| generations[&request.key]).collect());
            }
        }
        Err(StoreError::Unavailable("others begin generations of fencing tokens all the time".into()))
    }

    async fn try_commit(&self) -> Result<(), StoreError> {
        // Rights are asked for where no row is concerned, too, and a message that nobody reads is written and
        // committed as an order is.
        let commit = sqlx::query(
            "with orders_inserted as (insert into orders select * from orders where false),
                 orders_changed as (update orders set status = status where false),
                 stock_changed as (update products set stock = stock where false),
                 adjusted as (insert into stock_adjustments select * from stock_adjustments where false),
                 answers_kept as (insert into kept_answers select * from kept_answers where false)
             select pg_logical_emit_message(true, 'stocklock', 'an order could be committed')",
        );
        self.pool.fetch(commit).await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close();
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}
