//! The store for more than one machine: PostgreSQL.

mod rows;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, Postgres};
use sqlx::{Connection as _, PgConnection, Row as _, Transaction};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::{Changes, OpenError, Reading, Reads, Store, StoreError, WriteError};
use crate::api::{Adjustment, Audit, DuplicateRead, Order, Product};
use crate::config::{Guard, StoreSection};
use crate::db::postgres::{is_definite, options, pool};
use crate::lock::Lease;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::purchase::Level;

/// How many connections a replica has at most for orders; the lock table has its own.
const CONNECTIONS: u32 = 24;

/// How long the migrations may take.
const MIGRATION: Duration = Duration::from_secs(120);

/// Products and orders in PostgreSQL, at READ COMMITTED: the lock and the guard are what orders rely on.
pub struct PostgresStore {
    pool: PgPool,
    timeout: Duration,
}

impl PostgresStore {
    /// Connects, and brings the tables up to date; replicas that start together do that one after the other.
    pub async fn connect(store: &StoreSection) -> Result<Self, OpenError> {
        let options = options(store)?;
        let unavailable =
            |reason: String| OpenError::Unavailable { url: without_password(&store.url), reason };
        let pool = pool(store, CONNECTIONS)
            .connect_with(options.clone())
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let migrated = timeout(MIGRATION, migrate(&options)).await;
        migrated
            .map_err(|_| unavailable(format!("the migrations took more than {} s", MIGRATION.as_secs())))?
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(Self { pool, timeout: store.timeout })
    }
}

/// Brings the tables up to date over a connection of its own: a migration, and the wait for another replica's, may
/// take longer than a statement of an order.
async fn migrate(options: &PgConnectOptions) -> Result<(), MigrateError> {
    let options = options.clone().options([("statement_timeout", "0")]);
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::migrate!("../migrations/postgres").run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// A URL that may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    match rest.split_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default()),
        None => url.into(),
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn read(&self, sku: &Sku, reads: Reads) -> Result<Option<Box<dyn Reading>>, StoreError> {
        let (row, place) = match reads {
            Reads::Plain => {
                // The write goes over the same connection: it is known to be alive, and needs no further round trip.
                // A little less than whoever reads has patience for.
                let give_up = Instant::now() + self.timeout * 9 / 10;
                let mut connection = self.pool.acquire().await?;
                let row = sqlx::query("select stock, version, supply from products where sku = $1")
                    .bind(sku.as_str())
                    .fetch_optional(&mut *connection);
                let Ok(row) = timeout_at(give_up, row).await else {
                    // It would take its place in the pool for as long as the kernel hopes for an answer.
                    connection.close_on_drop();
                    return Err(StoreError::Unavailable("no answer in time".into()));
                };
                (row?, Place::Connection(connection))
            }
            Reads::ForUpdate => {
                // Apart from the wait for the row, which may be as long as one for a lock.
                let begun = timeout(self.timeout / 2, self.pool.begin()).await;
                let no_connection = |_| StoreError::Unavailable("no connection in time".into());
                let mut transaction = begun.map_err(no_connection)??;
                let row =
                    sqlx::query("select stock, version, supply from products where sku = $1 for update")
                        .bind(sku.as_str())
                        .fetch_optional(&mut *transaction)
                        .await?;
                (row, Place::Transaction(transaction))
            }
        };
        let Some(row) = row else { return Ok(None) };
        let level = Level {
            stock: row.try_get("stock")?,
            version: row.try_get("version")?,
            supply: row.try_get("supply")?,
        };
        Ok(Some(Box::new(PostgresReading { sku: sku.clone(), level, place, timeout: self.timeout })))
    }

    async fn create_product(&self, product: &ProductRequest) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(
            "insert into products (sku, name, stock, version, supply, created_at)
             values ($1, $2, $3, 0, $3, date_trunc('microseconds', clock_timestamp()))
             on conflict (sku) do nothing
             returning *",
        )
        .bind(product.sku.as_str())
        .bind(product.name.as_str())
        .bind(product.stock)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.as_ref().map(rows::product).transpose()?)
    }

    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query("select * from products where sku = $1").bind(sku.as_str());
        Ok(row.fetch_optional(&self.pool).await?.as_ref().map(rows::product).transpose()?)
    }

    async fn products(&self) -> Result<Vec<Product>, StoreError> {
        let rows = sqlx::query("select * from products order by sku").fetch_all(&self.pool).await?;
        Ok(rows.iter().map(rows::product).collect::<Result<_, _>>()?)
    }

    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        let row = sqlx::query("select * from orders where id = $1").bind(id);
        Ok(row.fetch_optional(&self.pool).await?.as_ref().map(rows::order).transpose()?)
    }

    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError> {
        let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let rows = sqlx::query("select * from orders where idempotency_key = any($1)")
            .bind(keys)
            .fetch_all(&self.pool)
            .await?;
        let with_key = |row| Ok((sqlx::Row::try_get(row, "idempotency_key")?, rows::order(row)?));
        Ok(rows.iter().map(with_key).collect::<Result<_, sqlx::Error>>()?)
    }

    async fn orders(
        &self,
        sku: Option<&Sku>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let (after, limit) = (after.unwrap_or(Uuid::nil()), i64::from(limit));
        let query = match sku {
            Some(sku) => sqlx::query("select * from orders where id > $1 and sku = $3 order by id limit $2")
                .bind(after)
                .bind(limit)
                .bind(sku.as_str().to_owned()),
            None => {
                sqlx::query("select * from orders where id > $1 order by id limit $2").bind(after).bind(limit)
            }
        };
        let rows = query.fetch_all(&self.pool).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn adjustments(&self, sku: &Sku) -> Result<Vec<Adjustment>, StoreError> {
        let rows = sqlx::query("select * from stock_adjustments where sku = $1 order by version, id")
            .bind(sku.as_str())
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(rows::adjustment).collect::<Result<_, _>>()?)
    }

    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError> {
        // One statement, so one snapshot.
        let row = sqlx::query(
            "select p.stock, p.version, p.supply,
                 (select count(*) from orders as o where o.sku = p.sku) as orders,
                 (
                     select coalesce(sum(o.quantity), 0)::bigint from orders as o
                     where o.sku = p.sku and o.status = 'confirmed'
                 ) as units_sold,
                 (
                     select coalesce(jsonb_agg(to_jsonb(d) order by d.version, d.stock_before), '[]'::jsonb)
                     from (
                         select o.stock_before, o.version, jsonb_agg(o.id order by o.id) as orders
                         from orders as o where o.sku = p.sku
                         group by o.version, o.stock_before having count(*) > 1
                         order by o.version, o.stock_before limit 10
                     ) as d
                 )::text as duplicate_reads
             from products as p where p.sku = $1",
        )
        .bind(sku.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (supply, stock): (i64, i64) = (row.try_get("supply")?, row.try_get("stock")?);
        let units_sold: i64 = row.try_get("units_sold")?;
        let duplicate_reads: Vec<DuplicateRead> = serde_json::from_str(row.try_get("duplicate_reads")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Some(Audit {
            supply,
            stock,
            version: row.try_get("version")?,
            units_sold,
            orders: row.try_get("orders")?,
            oversold_units: (units_sold - supply).max(0),
            balanced: stock == supply - units_sold,
            duplicate_reads,
        }))
    }

    async fn greatest_token(&self, sku: &Sku) -> Result<Option<i64>, StoreError> {
        let token = sqlx::query_scalar(
            "select max(fencing_token) from (
                 select fencing_token from orders where sku = $1 order by version desc limit 1000
             ) as latest",
        );
        Ok(token.bind(sku.as_str()).fetch_one(&self.pool).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1 from products limit 1").fetch_optional(&self.pool).await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}

/// A level, and where it was read: where it was read to be updated, in a transaction that has its row's lock.
struct PostgresReading {
    sku: Sku,
    level: Level,
    place: Place,
    timeout: Duration,
}

enum Place {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

#[async_trait]
impl Reading for PostgresReading {
    fn level(&self) -> Level {
        self.level
    }

    async fn write(
        self: Box<Self>,
        lease: &Lease,
        guard: Guard,
        changes: &Changes,
    ) -> Result<(), WriteError> {
        if guard == Guard::Version && lease.check().is_err() {
            return Err(WriteError::Stale);
        }
        let Self { sku, level, place, timeout: patience } = *self;
        let writing = Writing { sku, guarded: (guard == Guard::Version).then_some(level.version), changes };
        // The server ends a statement at the time-out. One that has not answered long after is out of reach, and must
        // not keep the lock from those who do reach it.
        let no_answer = || WriteError::Unknown(StoreError::Unavailable("no answer in time".into()));
        match place {
            Place::Connection(mut connection) => {
                let written = timeout(patience * 2, writing.over(&mut connection)).await;
                if written.is_err() {
                    connection.close_on_drop();
                }
                written.unwrap_or_else(|_| Err(no_answer()))
            }
            Place::Transaction(transaction) => {
                let written = timeout(patience * 2, writing.in_transaction(transaction)).await;
                written.unwrap_or_else(|_| Err(no_answer()))
            }
        }
    }
}

/// Changes on their way into the database.
struct Writing<'a> {
    sku: Sku,
    /// The version that the product must still have.
    guarded: Option<i64>,
    changes: &'a Changes,
}

/// Why a statement did not do what it was to.
enum Failed {
    Stale,
    NotCancellable,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Failed {
    /// Of a statement in a transaction that is going to be rolled back.
    fn before_the_commit(self) -> WriteError {
        match self {
            Self::Stale => WriteError::Stale,
            Self::NotCancellable => WriteError::NotCancellable,
            Self::Database(error) if is_key_taken(&error) => WriteError::KeyTaken,
            Self::Database(error) => not_written(error),
        }
    }

    /// Of a statement that commits by itself: an error that the server reports has undone it, except when the
    /// server was being stopped; with a broken connection nobody knows.
    fn of_a_commit(self) -> WriteError {
        match self {
            Self::Database(error) if !is_definite(&error) => WriteError::Unknown(error.into()),
            failed => failed.before_the_commit(),
        }
    }
}

impl Writing<'_> {
    async fn over(&self, connection: &mut PgConnection) -> Result<(), WriteError> {
        if self.changes.is_only_orders() {
            // One statement, so one round trip, and it commits by itself.
            return self.sell(connection).await.map_err(Failed::of_a_commit);
        }
        let transaction = connection.begin().await.map_err(not_written)?;
        self.in_transaction(transaction).await
    }

    async fn in_transaction<'c>(&self, mut transaction: Transaction<'c, Postgres>) -> Result<(), WriteError> {
        match self.change(&mut transaction).await {
            Ok(()) => transaction.commit().await.map_err(|error| WriteError::Unknown(error.into())),
            Err(failed) => {
                // Where it fails the connection is broken, and the server rolls back by itself.
                transaction.rollback().await.ok();
                Err(failed.before_the_commit())
            }
        }
    }

    /// Orders and product in one statement. The product's row comes first, since the orders are inserted only if
    /// it was still what was read; its lock is kept for this statement and its commit alone.
    async fn sell(&self, connection: &mut PgConnection) -> Result<(), Failed> {
        let columns = rows::OrderColumns::of(&self.changes.orders);
        let inserted = columns
            .bind(sqlx::query(rows::SELL))
            .bind(self.changes.stock_after)
            .bind(self.changes.versions)
            .bind(self.sku.as_str())
            .bind(self.guarded)
            .execute(connection)
            .await?;
        if inserted.rows_affected() == 0 { Err(Failed::Stale) } else { Ok(()) }
    }

    async fn change(&self, connection: &mut PgConnection) -> Result<(), Failed> {
        if self.changes.is_only_orders() {
            return self.sell(connection).await;
        }
        // The product's row first, as in a sale: whoever changes a product in another order could deadlock with one.
        let reset = self.changes.reset.as_ref();
        let product = sqlx::query(
            "update products set
                 stock = $1, version = version + $2,
                 supply = coalesce($3, supply) + $4,
                 name = coalesce($5, name), created_at = coalesce($6::timestamptz, created_at)
             where sku = $7 and ($8::bigint is null or version = $8)",
        )
        .bind(self.changes.stock_after)
        .bind(self.changes.versions)
        .bind(reset.map(|product| product.supply))
        .bind(self.changes.supplied)
        .bind(reset.map(|product| product.name.as_str()))
        .bind(reset.map(|product| rows::Micros(product.created_at)))
        .bind(self.sku.as_str())
        .bind(self.guarded)
        .execute(&mut *connection)
        .await?;
        if product.rows_affected() != 1 {
            return Err(Failed::Stale);
        }
        if self.changes.reset.is_some() {
            for sql in ["delete from orders where sku = $1", "delete from stock_adjustments where sku = $1"] {
                sqlx::query(sql).bind(self.sku.as_str()).execute(&mut *connection).await?;
            }
        }
        if !self.changes.orders.is_empty() {
            let columns = rows::OrderColumns::of(&self.changes.orders);
            columns.bind(sqlx::query(rows::INSERT_ORDERS)).execute(&mut *connection).await?;
        }
        if !self.changes.cancelled.is_empty() {
            let cancelled = sqlx::query(
                "update orders set status = 'cancelled' where id = any($1) and status = 'confirmed'",
            )
            .bind(&self.changes.cancelled)
            .execute(&mut *connection)
            .await?;
            if cancelled.rows_affected() != self.changes.cancelled.len() as u64 {
                return Err(Failed::NotCancellable);
            }
        }
        if !self.changes.adjustments.is_empty() {
            rows::insert_adjustments(&self.changes.adjustments).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

fn not_written(error: sqlx::Error) -> WriteError {
    WriteError::NotWritten(error.into())
}

fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.constraint() == Some("one_order_per_idempotency_key"))
}
