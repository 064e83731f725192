//! What is written by one commit, for many products.
//!
//! Orders alone are one statement, so one round trip, which commits by itself. It fails as a whole where an
//! idempotency key has an order already; then everything is sent again in a transaction that no key can fail,
//! and that leaves out what is concerned. So a taken key costs those who share its commit one retry, and no
//! more. While such keys come, they are looked up beforehand.
//!
//! No commit ever waits for a product's row that another transaction has locked, unless it has that product
//! alone: one row that is locked for long does not keep other products from being sold, and two commits
//! cannot wait for each other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::queries;
use super::rows::{self, Micros, OrderColumns};
use crate::db::postgres::{Connection, Pool, is_definite, places};
use crate::order::Sku;
use crate::store::flight::{Flight, Uninserted, ordinal};
use crate::store::{
    CommitError, Rejected, RowLevel, StoreError, Transaction, Transition, WriteBatch, Written, status_name,
};

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
    pool: Pool,
    timeout: Duration,
    replays: Arc<Replays>,
    /// With a transaction open, in which rows are locked.
    open: Option<Connection>,
}

impl PostgresTransaction {
    pub(super) fn new(pool: Pool, timeout: Duration, replays: Arc<Replays>) -> Self {
        Self { pool, timeout, replays, open: None }
    }

    /// Over a connection that has no transaction open.
    async fn write(
        &self,
        connection: &mut PgConnection,
        batches: &[&WriteBatch],
        wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<Written, Rejected>>, CommitError> {
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
            match sell(connection, &mut flight).await {
                Ok(written) => {
                    flight.reject_unwritten(&written);
                    return Ok(flight.results());
                }
                Err(error) if is_key_taken(&error) => self.replays.noted(),
                // An error that the server reports has undone the statement, except when the server was being
                // stopped; with a broken connection it is not known.
                Err(error) if !is_definite(&error) => return Err(CommitError::Unknown(error.into())),
                Err(error) => return Err(not_written(error)),
            }
            flight.reject_expired(may_write);
        }
        execute(connection, "begin").await.map_err(not_written)?;
        match lock_versions(connection, &flight, wait).await {
            Ok(written) => flight.reject_unwritten(&written),
            Err(error) => return Err(undone(connection, error).await),
        }
        change_and_commit(connection, flight).await
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn lock_rows(&mut self, skus: &[Sku], wait: bool) -> Result<Vec<RowLevel>, StoreError> {
        let connection = timeout(self.timeout / 2, self.pool.get()).await;
        let connection =
            connection.map_err(|_| StoreError::Unavailable("no connection in time".into()))??;
        // Kept only when the rows are locked: its drop ends the transaction with the connection.
        let mut connection = connection;
        execute(&mut connection, "begin").await?;
        let mut levels = vec![RowLevel::Absent; skus.len()];
        for row in rows::lock_levels(skus, wait).fetch_all(&mut *connection).await? {
            let (number, level) = rows::level(&row)?;
            levels[number] = RowLevel::Locked(level);
        }
        if !wait && levels.contains(&RowLevel::Absent) {
            // What was passed over is there for a plain read.
            for row in rows::levels(skus).fetch_all(&mut *connection).await? {
                let (number, _) = rows::level(&row)?;
                if levels[number] == RowLevel::Absent {
                    levels[number] = RowLevel::Busy;
                }
            }
        }
        self.open = Some(connection);
        Ok(levels)
    }

    async fn commit(
        mut self: Box<Self>,
        batches: &[&WriteBatch],
        wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<Written, Rejected>>, CommitError> {
        let open = self.open.take();
        let is_open = open.is_some();
        let mut connection = match open {
            Some(connection) => connection,
            None => self.pool.get().await.map_err(not_written)?,
        };
        let writing = async {
            if is_open {
                let mut flight = Flight::new(batches);
                flight.reject_expired(may_write);
                return change_and_commit(&mut connection, flight).await;
            }
            self.write(&mut connection, batches, wait, may_write).await
        };
        // The server ends a statement at the time-out. One that has not answered after it is out of reach,
        // and must not keep the lock from those who do reach it.
        let Ok(results) = timeout(self.pool.reply(), writing).await else {
            return Err(CommitError::Unknown(connection.abandon().into()));
        };
        // With anything but results, the connection is closed.
        connection.finish(Ok(results?)).map_err(not_written)
    }
}

/// Orders and products in one statement; returns the numbers of the batches that are written.
async fn sell(connection: &mut PgConnection, flight: &mut Flight<'_>) -> Result<HashSet<i32>, sqlx::Error> {
    let (orders, window) = (flight.orders(), window_ms(flight));
    if let (Some((number, batch)), None) = (flight.only(), window) {
        // All rows are asked for, also where there is one at most: an error of the commit comes after it.
        let sold = rows::sell_one(batch, &orders).fetch_all(connection).await?;
        if let Some(place) = sold.first() {
            places::saw(batch.sku.as_str(), place);
        }
        return Ok(sold.first().map(|_| ordinal(number)).into_iter().collect());
    }
    let query = OrderColumns::of(&orders).bind(sqlx::query(rows::SELL));
    let query = rows::BatchColumns::of(flight).bind(query).bind(window);
    let mut written = HashSet::new();
    for row in query.fetch_all(connection).await? {
        written.insert(row.try_get("batch")?);
        flight.note_pay_by(row.try_get::<Option<Micros>, _>("pay_by")?.map(|micros| micros.0));
    }
    Ok(written)
}

/// Within how many milliseconds the orders have to be paid.
fn window_ms(flight: &Flight<'_>) -> Option<f64> {
    flight.payment_window().map(|window| window.as_secs_f64() * 1_000.0)
}

/// Locks the rows of the products that still have the version that was read; returns the numbers of their
/// batches.
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
    connection: &mut PgConnection,
    mut flight: Flight<'_>,
) -> Result<Vec<Result<Written, Rejected>>, CommitError> {
    if let Err(error) = change(connection, &mut flight).await {
        return Err(undone(connection, error).await);
    }
    let end = if flight.is_empty() { "rollback" } else { "commit" };
    execute(connection, end).await.map_err(|error| CommitError::Unknown(error.into()))?;
    Ok(flight.results())
}

/// Rolls back. Where that fails too, the connection is broken, and the server does it by itself.
pub(super) async fn undone(connection: &mut PgConnection, error: sqlx::Error) -> CommitError {
    execute(connection, "rollback").await.ok();
    not_written(error)
}

pub(super) async fn execute(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}

/// Changes what can be changed. Where a batch turns out not to be writable after something was done for it,
/// all is undone and done again without it.
async fn change(connection: &mut PgConnection, flight: &mut Flight<'_>) -> Result<(), sqlx::Error> {
    let resets = flight.resets();
    if !resets.is_empty() {
        let many = sqlx::query_scalar(queries::NOT_RESETTABLE).bind(&resets);
        flight.reject_resets(&many.fetch_all(&mut *connection).await?);
    }
    if flight.is_mixed() {
        execute(connection, "savepoint before_changes").await?;
    }
    while !try_to_change(connection, flight).await? {
        execute(connection, "rollback to savepoint before_changes").await?;
    }
    Ok(())
}

/// Returns whether nothing was done for a batch that is rejected.
async fn try_to_change(connection: &mut PgConnection, flight: &mut Flight<'_>) -> Result<bool, sqlx::Error> {
    let transitions = flight.transitions();
    if !transitions.is_empty() {
        let unchanged = sqlx::query_scalar(rows::LOCK_UNCHANGED)
            .bind(column(&transitions, |transition| transition.order))
            .bind(column(&transitions, |transition| status_name(transition.from)))
            .bind(column(&transitions, Transition::overdue));
        let unchanged: Vec<Uuid> = unchanged.fetch_all(&mut *connection).await?;
        flight.reject_changed(&unchanged.into_iter().collect());
    }
    let answers = flight.answers();
    if !answers.is_empty() {
        let kept: Vec<String> = rows::keep_answers(&answers).fetch_all(&mut *connection).await?;
        let partly = flight.reject_unkept(&kept.into_iter().collect());
        if !partly.is_empty() {
            let forget = sqlx::query("delete from kept_answers where idempotency_key = any($1)").bind(partly);
            forget.execute(&mut *connection).await?;
        }
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
        let insert = OrderColumns::of(&orders).bind(sqlx::query(rows::INSERT_ORDERS)).bind(window_ms(flight));
        let mut inserted = HashSet::new();
        for row in insert.fetch_all(&mut *connection).await? {
            inserted.insert(row.try_get("id")?);
            flight.note_pay_by(row.try_get::<Option<Micros>, _>("pay_by")?.map(|micros| micros.0));
        }
        match flight.reject_uninserted(&inserted) {
            Uninserted::All => return Ok(false),
            Uninserted::Orders(partly) if partly.is_empty() => {}
            Uninserted::Orders(partly) => {
                let delete = sqlx::query("delete from orders where id = any($1)").bind(partly);
                delete.execute(&mut *connection).await?;
            }
        }
    }
    let transitions = flight.transitions();
    if !transitions.is_empty() {
        sqlx::query(rows::CHANGE_STATUS)
            .bind(column(&transitions, |transition| transition.order))
            .bind(column(&transitions, |transition| status_name(transition.to)))
            .execute(&mut *connection)
            .await?;
    }
    let adjustments = flight.adjustments();
    if !adjustments.is_empty() {
        rows::insert_adjustments(&adjustments).execute(&mut *connection).await?;
    }
    if flight.is_empty() {
        return Ok(true);
    }
    let accepted: Vec<_> = flight.accepted().map(|(_, batch)| batch).collect();
    let numbers =
        |value: fn(&WriteBatch) -> i64| accepted.iter().map(|batch| value(batch)).collect::<Vec<_>>();
    let reset = |batch: &&WriteBatch| batch.reset.clone();
    sqlx::query(rows::UPDATE_PRODUCTS)
        .bind(accepted.iter().map(|batch| batch.sku.as_str()).collect::<Vec<_>>())
        .bind(numbers(|batch| batch.stock_after))
        .bind(numbers(|batch| batch.versions))
        .bind(numbers(|batch| batch.supplied))
        .bind(accepted.iter().map(|batch| reset(batch).map(|product| product.supply)).collect::<Vec<_>>())
        .bind(accepted.iter().map(|batch| reset(batch).map(|product| product.name)).collect::<Vec<_>>())
        .bind(
            accepted
                .iter()
                .map(|batch| reset(batch).map(|product| Micros(product.created_at)))
                .collect::<Vec<_>>(),
        )
        .bind(accepted.iter().map(|batch| batch.counted().orders).collect::<Vec<_>>())
        .bind(accepted.iter().map(|batch| batch.counted().units_sold).collect::<Vec<_>>())
        .bind(accepted.iter().map(|batch| batch.counted().units_reserved).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    Ok(true)
}

fn column<T>(transitions: &[Transition], value: impl Fn(&Transition) -> T) -> Vec<T> {
    transitions.iter().map(value).collect()
}

pub(super) fn not_written(error: sqlx::Error) -> CommitError {
    CommitError::NotWritten(error.into())
}

fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.constraint() == Some("one_order_per_idempotency_key"))
}
