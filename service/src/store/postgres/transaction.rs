//! What is written by one commit, for many products.
//!
//! Orders alone are one statement, so one round trip, which commits by itself. It fails as a whole where an idempotency
//! key has an order already; then everything is sent again in a transaction that no key can fail, and that leaves out
//! what is concerned. So a taken key costs those who share its commit one retry, and no more. While such keys come, they
//! are looked up beforehand.
//!
//! No commit ever waits for a product's row that another transaction has locked, unless it has that product alone: one
//! row that is locked for long does not keep other products from being sold, and two commits cannot wait for each
//! other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::{Connection as _, PgConnection, Row as _, Transaction as SqlxTransaction};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::rows::{self, Micros, OrderColumns};
use crate::db::postgres::is_definite;
use crate::order::Sku;
use crate::store::flight::Flight;
use crate::store::{CommitError, Rejected, RowLevel, StoreError, Transaction, WriteBatch};

/// For how long after a taken key the next ones are looked up before they are written.
const REPLAYS_LAST: Duration = Duration::from_secs(1);

/// When an idempotency key was last sent again.
#[derive(Default)]
pub(super) struct Replays(Mutex<Option<Instant>>);

impl Replays {
    fn noted(&self) {
        *self.0.lock().expect("nothing panics while it holds this") = Some(Instant::now());
    }

    fn are_likely(&self) -> bool {
        let last = *self.0.lock().expect("nothing panics while it holds this");
        last.is_some_and(|last| last.elapsed() < REPLAYS_LAST)
    }
}

/// What will be written by one commit.
pub(super) struct PostgresTransaction {
    pool: PgPool,
    timeout: Duration,
    replays: Arc<Replays>,
    /// Open where rows were locked.
    open: Option<SqlxTransaction<'static, Postgres>>,
}

impl PostgresTransaction {
    pub(super) fn new(pool: PgPool, timeout: Duration, replays: Arc<Replays>) -> Self {
        Self { pool, timeout, replays, open: None }
    }

    /// Over a connection that has no transaction open.
    async fn write(
        &self,
        connection: &mut PgConnection,
        batches: &[&WriteBatch],
        wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<(), Rejected>>, CommitError> {
        let mut flight = Flight::new(batches);
        flight.reject_expired(may_write);
        if flight.is_only_orders() && !wait {
            if self.replays.are_likely() {
                let taken = rows::taken_keys(connection, &flight.keys()).await.map_err(not_written)?;
                flight.reject_keys(&taken);
            }
            if flight.is_empty() {
                return Ok(flight.results());
            }
            match sell(connection, &flight).await {
                Ok(written) => {
                    flight.reject_unwritten(&written);
                    return Ok(flight.results());
                }
                Err(error) if is_key_taken(&error) => self.replays.noted(),
                // An error that the server reports has undone the statement, except when the server was being stopped;
                // with a broken connection nobody knows.
                Err(error) if !is_definite(&error) => return Err(CommitError::Unknown(error.into())),
                Err(error) => return Err(not_written(error)),
            }
            flight.reject_expired(may_write);
        }
        let mut transaction = connection.begin().await.map_err(not_written)?;
        let locked = lock_versions(&mut transaction, &flight, wait).await;
        match locked {
            Ok(written) => flight.reject_unwritten(&written),
            Err(error) => return Err(undone(transaction, error).await),
        }
        change_and_commit(transaction, flight).await
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn lock_rows(&mut self, skus: &[Sku], wait: bool) -> Result<Vec<RowLevel>, StoreError> {
        let begun = timeout(self.timeout / 2, self.pool.begin()).await;
        let begun = begun.map_err(|_| StoreError::Unavailable("no connection in time".into()))?;
        let transaction = self.open.insert(begun?);
        let mut levels = vec![RowLevel::Absent; skus.len()];
        for row in rows::lock_levels(skus, wait).fetch_all(&mut **transaction).await? {
            let (number, level) = rows::level(&row)?;
            levels[number] = RowLevel::Locked(level);
        }
        if !wait && levels.contains(&RowLevel::Absent) {
            // What was passed over is there for a plain read.
            for row in rows::levels(skus).fetch_all(&mut **transaction).await? {
                let (number, _) = rows::level(&row)?;
                if levels[number] == RowLevel::Absent {
                    levels[number] = RowLevel::Busy;
                }
            }
        }
        Ok(levels)
    }

    async fn commit(
        mut self: Box<Self>,
        batches: &[&WriteBatch],
        wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<(), Rejected>>, CommitError> {
        // The server ends a statement at the time-out. One that has not answered long after is out of reach, and must
        // not keep the lock from those who do reach it.
        let no_answer = || CommitError::Unknown(StoreError::Unavailable("no answer in time".into()));
        if let Some(transaction) = self.open.take() {
            let mut flight = Flight::new(batches);
            flight.reject_expired(may_write);
            let written = timeout(self.timeout * 2, change_and_commit(transaction, flight)).await;
            return written.unwrap_or_else(|_| Err(no_answer()));
        }
        let mut connection = self.pool.acquire().await.map_err(not_written)?;
        let writing = self.write(&mut connection, batches, wait, may_write);
        match timeout(self.timeout * 2, writing).await {
            Ok(written) => written,
            Err(_) => {
                connection.close_on_drop();
                Err(no_answer())
            }
        }
    }
}

/// Orders and products in one statement; returns the numbers of the batches that are written.
async fn sell(connection: &mut PgConnection, flight: &Flight<'_>) -> Result<HashSet<i32>, sqlx::Error> {
    let orders = flight.orders();
    let query = OrderColumns::of(&orders).bind(sqlx::query_scalar(rows::SELL));
    let query = rows::BatchColumns::of(flight).bind(query);
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

/// Locks the rows of the products that still have the version that was read; returns the numbers of their batches.
async fn lock_versions(
    connection: &mut PgConnection,
    flight: &Flight<'_>,
    wait: bool,
) -> Result<HashSet<i32>, sqlx::Error> {
    let sql = if wait { rows::LOCK_VERSIONS } else { rows::LOCK_FREE_VERSIONS };
    let mut locked = HashSet::new();
    for row in rows::BatchColumns::of(flight).bind_versions(sqlx::query(sql)).fetch_all(connection).await? {
        locked.insert(row.try_get("batch")?);
    }
    Ok(locked)
}

/// Writes what can be written, in a transaction that has the products' rows locked, and commits.
async fn change_and_commit(
    mut transaction: SqlxTransaction<'_, Postgres>,
    mut flight: Flight<'_>,
) -> Result<Vec<Result<(), Rejected>>, CommitError> {
    if let Err(error) = change(&mut transaction, &mut flight).await {
        return Err(undone(transaction, error).await);
    }
    if flight.is_empty() {
        transaction.rollback().await.ok();
        return Ok(flight.results());
    }
    transaction.commit().await.map_err(|error| CommitError::Unknown(error.into()))?;
    Ok(flight.results())
}

async fn undone(transaction: SqlxTransaction<'_, Postgres>, error: sqlx::Error) -> CommitError {
    // Where it fails the connection is broken, and the server rolls back by itself.
    transaction.rollback().await.ok();
    not_written(error)
}

async fn change(connection: &mut PgConnection, flight: &mut Flight<'_>) -> Result<(), sqlx::Error> {
    let cancelled = flight.cancelled();
    if !cancelled.is_empty() {
        let cancellable = sqlx::query_scalar(
            "select id from orders where id = any($1) and status = 'confirmed' for update",
        );
        let cancellable: Vec<Uuid> = cancellable.bind(cancelled).fetch_all(&mut *connection).await?;
        flight.reject_not_cancellable(&cancellable.into_iter().collect());
    }
    let resets = flight.resets();
    if !resets.is_empty() {
        for sql in
            ["delete from orders where sku = any($1)", "delete from stock_adjustments where sku = any($1)"]
        {
            sqlx::query(sql).bind(&resets).execute(&mut *connection).await?;
        }
    }
    let orders = flight.orders();
    if !orders.is_empty() {
        let insert = OrderColumns::of(&orders).bind(sqlx::query_scalar(rows::INSERT_ORDERS));
        let inserted: Vec<Uuid> = insert.fetch_all(&mut *connection).await?;
        let partly = flight.reject_uninserted(&inserted.into_iter().collect());
        if !partly.is_empty() {
            let delete = sqlx::query("delete from orders where id = any($1)").bind(partly);
            delete.execute(&mut *connection).await?;
        }
    }
    let cancelled = flight.cancelled();
    if !cancelled.is_empty() {
        let cancel = sqlx::query("update orders set status = 'cancelled' where id = any($1)");
        cancel.bind(cancelled).execute(&mut *connection).await?;
    }
    let adjustments = flight.adjustments();
    if !adjustments.is_empty() {
        rows::insert_adjustments(&adjustments).execute(&mut *connection).await?;
    }
    if flight.is_empty() {
        return Ok(());
    }
    let accepted: Vec<_> = flight.accepted().map(|(_, batch)| batch).collect();
    let column =
        |value: fn(&WriteBatch) -> i64| accepted.iter().map(|batch| value(batch)).collect::<Vec<_>>();
    let reset = |batch: &&WriteBatch| batch.reset.clone();
    sqlx::query(rows::UPDATE_PRODUCTS)
        .bind(accepted.iter().map(|batch| batch.sku.as_str()).collect::<Vec<_>>())
        .bind(column(|batch| batch.stock_after))
        .bind(column(|batch| batch.versions))
        .bind(column(|batch| batch.supplied))
        .bind(accepted.iter().map(|batch| reset(batch).map(|product| product.supply)).collect::<Vec<_>>())
        .bind(accepted.iter().map(|batch| reset(batch).map(|product| product.name)).collect::<Vec<_>>())
        .bind(
            accepted
                .iter()
                .map(|batch| reset(batch).map(|product| Micros(product.created_at)))
                .collect::<Vec<_>>(),
        )
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn not_written(error: sqlx::Error) -> CommitError {
    CommitError::NotWritten(error.into())
}

fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.constraint() == Some("one_order_per_idempotency_key"))
}
