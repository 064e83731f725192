//! What is written by one commit, for many products. SQLite has one writer at a time, so there is no other to
//! wait for once the transaction has begun.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::Sqlite;
use sqlx::{Error, SqliteConnection};
use uuid::Uuid;

use super::{queries, rows};
use crate::api::OrderTotals;
use crate::db::sqlite::DatabaseFile;
use crate::order::Sku;
use crate::store::flight::{Flight, Uninserted, ordinal};
use crate::store::{CommitError, Rejected, RowLevel, StoreError, Transaction, WriteBatch, Written};

/// What will be written by one commit: a transaction that has the file's only right to write.
pub(super) struct SqliteTransaction {
    transaction: sqlx::Transaction<'static, Sqlite>,
    file: Arc<DatabaseFile>,
}

impl SqliteTransaction {
    pub(super) fn new(transaction: sqlx::Transaction<'static, Sqlite>, file: Arc<DatabaseFile>) -> Self {
        Self { transaction, file }
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn lock_rows(&mut self, skus: &[Sku], _wait: bool) -> Result<Vec<RowLevel>, StoreError> {
        let levels = rows::levels(&mut self.transaction, skus).await?;
        Ok(levels.into_iter().map(|level| level.map_or(RowLevel::Absent, RowLevel::Locked)).collect())
    }

    async fn commit(
        self: Box<Self>,
        batches: &[&WriteBatch],
        _wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<Written, Rejected>>, CommitError> {
        let Self { mut transaction, file } = *self;
        let mut flight = Flight::new(batches);
        flight.reject_expired(may_write);
        if let Err(error) = change(&mut transaction, &mut flight).await {
            // Where it fails, SQLite has rolled back by itself; the pool then replaces the connection.
            transaction.rollback().await.ok();
            return Err(CommitError::NotWritten(error.into()));
        }
        if flight.is_empty() {
            transaction.rollback().await.ok();
        } else {
            let unknown = |error: Error| CommitError::Unknown(error.into());
            transaction.commit().await.map_err(unknown)?;
            // Into the file that others will open, or into one that no replica will ever find.
            file.check().map_err(|error| unknown(error.into()))?;
        }
        Ok(flight.results())
    }
}

/// Changes what can be changed. Where a batch turns out not to be writable after something was done for it,
/// all is undone and done again without it.
async fn change(connection: &mut SqliteConnection, flight: &mut Flight<'_>) -> Result<(), Error> {
    let unchanged = unchanged(connection, flight).await?;
    flight.reject_unwritten(&unchanged);
    reject_resets(connection, flight).await?;
    if flight.is_mixed() {
        sqlx::raw_sql("savepoint before_changes").execute(&mut *connection).await?;
    }
    while !try_to_change(connection, flight).await? {
        sqlx::raw_sql("rollback to savepoint before_changes").execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns whether nothing was done for a batch that is rejected.
async fn try_to_change(connection: &mut SqliteConnection, flight: &mut Flight<'_>) -> Result<bool, Error> {
    let transitions = flight.transitions();
    if !transitions.is_empty() {
        let unchanged = sqlx::query_scalar(rows::UNCHANGED_ORDERS)
            .bind(rows::transitions_json(&transitions))
            .bind(rows::now());
        flight.reject_changed(&parsed(&unchanged.fetch_all(&mut *connection).await?)?);
    }
    keep_answers(connection, flight).await?;
    for sku in flight.resets() {
        for sql in ["delete from orders where sku = ?1", "delete from stock_adjustments where sku = ?1"] {
            sqlx::query(sql).bind(sku).execute(&mut *connection).await?;
        }
    }
    if !insert_orders(connection, flight).await? {
        return Ok(false);
    }
    let transitions = flight.transitions();
    if !transitions.is_empty() {
        let change = sqlx::query(rows::CHANGE_STATUS).bind(rows::transitions_json(&transitions));
        change.execute(&mut *connection).await?;
    }
    let adjustments = flight.adjustments();
    if !adjustments.is_empty() {
        let insert = sqlx::query(rows::INSERT_ADJUSTMENTS).bind(rows::adjustments_json(&adjustments));
        insert.execute(&mut *connection).await?;
    }
    let products: Vec<_> = flight.accepted().map(|(_, batch)| ProductRow::of(batch)).collect();
    if !products.is_empty() {
        sqlx::query(rows::UPDATE_PRODUCTS).bind(rows::json(&products)).execute(&mut *connection).await?;
    }
    Ok(true)
}

/// Rejects the resets of products that have too many orders for it.
async fn reject_resets(connection: &mut SqliteConnection, flight: &mut Flight<'_>) -> Result<(), Error> {
    let mut many = Vec::new();
    for sku in flight.resets() {
        if sqlx::query_scalar(queries::NOT_RESETTABLE).bind(sku).fetch_one(&mut *connection).await? {
            many.push(sku.to_owned());
        }
    }
    flight.reject_resets(&many);
    Ok(())
}

/// Keeps the answers, and takes those of a batch out again that has a taken key among its own.
async fn keep_answers(connection: &mut SqliteConnection, flight: &mut Flight<'_>) -> Result<(), Error> {
    let answers = flight.answers();
    if answers.is_empty() {
        return Ok(());
    }
    let kept = sqlx::query_scalar(rows::KEEP_ANSWERS).bind(rows::answers_json(&answers));
    let kept: Vec<String> = kept.fetch_all(&mut *connection).await?;
    let partly = flight.reject_unkept(&kept.into_iter().collect());
    if !partly.is_empty() {
        sqlx::query(rows::FORGET_ANSWERS).bind(rows::json(&partly)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Inserts the orders, and takes those of a batch out again that has a taken key among its own. Returns
/// whether nothing else was done for such a batch.
async fn insert_orders(connection: &mut SqliteConnection, flight: &mut Flight<'_>) -> Result<bool, Error> {
    let orders = flight.orders();
    if orders.is_empty() {
        return Ok(true);
    }
    let pay_by = flight.payment_window().map(rows::now_and).transpose()?;
    flight.note_pay_by(pay_by);
    let insert = sqlx::query(rows::INSERT_ORDERS)
        .bind(rows::orders_json(&orders))
        .bind(pay_by.map(Timestamp::as_microsecond));
    if insert.execute(&mut *connection).await?.rows_affected() == orders.len() as u64 {
        return Ok(true);
    }
    let all: Vec<_> = orders.iter().map(|(_, order, _)| order.id).collect();
    let inserted = ids(connection, rows::PRESENT, &all).await?;
    let Uninserted::Orders(partly) = flight.reject_uninserted(&inserted) else { return Ok(false) };
    sqlx::query(rows::DELETE_ORDERS).bind(rows::json(&partly)).execute(&mut *connection).await?;
    Ok(true)
}

/// The numbers of the batches whose products are still what was read.
async fn unchanged(connection: &mut SqliteConnection, flight: &Flight<'_>) -> Result<HashSet<i32>, Error> {
    #[derive(Serialize)]
    struct VersionRow<'a> {
        batch: i32,
        sku: &'a str,
        version: Option<i64>,
    }
    let versions = flight.accepted().map(|(number, batch)| VersionRow {
        batch: ordinal(number),
        sku: batch.sku.as_str(),
        version: batch.guarded,
    });
    let query = sqlx::query_scalar(rows::UNCHANGED).bind(rows::json(&versions.collect::<Vec<_>>()));
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

async fn ids(
    connection: &mut SqliteConnection,
    sql: &'static str,
    among: &[Uuid],
) -> Result<HashSet<Uuid>, Error> {
    let ids: Vec<String> = sqlx::query_scalar(sql).bind(rows::json(&among)).fetch_all(connection).await?;
    parsed(&ids)
}

fn parsed(ids: &[String]) -> Result<HashSet<Uuid>, Error> {
    ids.iter().map(|id| id.parse().map_err(|error: uuid::Error| Error::Decode(error.into()))).collect()
}

/// What becomes of a product's row.
#[derive(Serialize)]
struct ProductRow<'a> {
    sku: &'a str,
    stock: i64,
    versions: i64,
    supplied: i64,
    reset_supply: Option<i64>,
    reset_name: Option<&'a str>,
    reset_at: Option<i64>,
    orders: i64,
    units_sold: i64,
    units_reserved: i64,
}

impl<'a> ProductRow<'a> {
    fn of(batch: &'a WriteBatch) -> Self {
        let reset = batch.reset.as_ref();
        let OrderTotals { orders, units_sold, units_reserved } = batch.counted();
        Self {
            sku: batch.sku.as_str(),
            stock: batch.stock_after,
            versions: batch.versions,
            supplied: batch.supplied,
            reset_supply: reset.map(|product| product.supply),
            reset_name: reset.map(|product| product.name.as_str()),
            reset_at: reset.map(|product| product.created_at.as_microsecond()),
            orders,
            units_sold,
            units_reserved,
        }
    }
}
