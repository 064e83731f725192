//! The embedded store: a file, which several replicas on one machine may share.

mod rows;

use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqlitePool};
use sqlx::{Connection as _, Row as _, Transaction};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Changes, OpenError, Reading, Reads, Store, StoreError, WriteError};
use crate::api::{Adjustment, Audit, DuplicateRead, Order, Product};
use crate::config::{Guard, StoreSection};
use crate::db::sqlite::{is_busy_text, options, pool};
use crate::lock::Lease;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::purchase::Level;

/// Products and orders in a SQLite file.
///
/// The file is in write-ahead mode, so readers and the writer do not wait for each other, and every commit is
/// on the disk before it is answered. One connection writes: SQLite has one writer at a time, and inside the
/// process those who wait for it should wait in order, not poll.
pub struct SqliteStore {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, makes it if it is missing, and brings its tables up to date.
    pub async fn connect(store: &StoreSection) -> Result<Self, OpenError> {
        let options = options(store)?;
        let give_up = Instant::now() + store.timeout;
        // The first change to write-ahead mode does not wait for other processes that do the same.
        let migrated = loop {
            match migrate(&options).await {
                Err(error) if is_busy_text(&error) && Instant::now() < give_up => {
                    let pause = rand::rng().random_range(5..50);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                result => break result,
            }
        };
        migrated.map_err(|reason| OpenError::Unavailable { url: store.url.clone(), reason })?;
        Ok(Self {
            writer: pool(store, 1).connect_lazy_with(options.clone()),
            reader: pool(store, 4).connect_lazy_with(options.read_only(true)),
        })
    }

    async fn writing(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("begin immediate").await?)
    }
}

async fn migrate(options: &SqliteConnectOptions) -> Result<(), String> {
    use sqlx::ConnectOptions as _;
    let mut connection = options.connect().await.map_err(|e| e.to_string())?;
    // One transaction around all, so that replicas that start together do it one after the other.
    let mut transaction = connection.begin_with("begin immediate").await.map_err(|e| e.to_string())?;
    sqlx::migrate!("../migrations/sqlite").run(&mut *transaction).await.map_err(|e| e.to_string())?;
    transaction.commit().await.map_err(|e| e.to_string())?;
    connection.close().await.map_err(|e| e.to_string())
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self, sku: &Sku, reads: Reads) -> Result<Option<Box<dyn Reading>>, StoreError> {
        const READ: &str = "select stock, version, supply from products where sku = ?1";
        let (row, transaction) = match reads {
            Reads::Plain => (sqlx::query(READ).bind(sku.as_str()).fetch_optional(&self.reader).await?, None),
            Reads::ForUpdate => {
                let mut transaction = self.writing().await?;
                let row = sqlx::query(READ).bind(sku.as_str()).fetch_optional(&mut *transaction).await?;
                (row, Some(transaction))
            }
        };
        let Some(row) = row else { return Ok(None) };
        let level = Level {
            stock: row.try_get("stock")?,
            version: row.try_get("version")?,
            supply: row.try_get("supply")?,
        };
        let writer = self.writer.clone();
        Ok(Some(Box::new(SqliteReading { sku: sku.clone(), level, transaction, writer })))
    }

    async fn create_product(&self, product: &ProductRequest) -> Result<Option<Product>, StoreError> {
        // All rows are asked for, though there is one at most: SQLite commits when the statement has come to its end,
        // and an error of that must not be lost.
        let rows = sqlx::query(
            "insert into products (sku, name, stock, version, supply, created_at)
             values (?1, ?2, ?3, 0, ?3, ?4)
             on conflict (sku) do nothing
             returning *",
        )
        .bind(product.sku.as_str())
        .bind(product.name.as_str())
        .bind(product.stock)
        .bind(rows::now())
        .fetch_all(&self.writer)
        .await?;
        Ok(rows.first().map(rows::product).transpose()?)
    }

    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query("select * from products where sku = ?1").bind(sku.as_str());
        Ok(row.fetch_optional(&self.reader).await?.as_ref().map(rows::product).transpose()?)
    }

    async fn products(&self) -> Result<Vec<Product>, StoreError> {
        let rows = sqlx::query("select * from products order by sku").fetch_all(&self.reader).await?;
        Ok(rows.iter().map(rows::product).collect::<Result<_, _>>()?)
    }

    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        let row = sqlx::query("select * from orders where id = ?1").bind(id.to_string());
        Ok(row.fetch_optional(&self.reader).await?.as_ref().map(rows::order).transpose()?)
    }

    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError> {
        let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let rows =
            sqlx::query("select * from orders where idempotency_key in (select value from json_each(?1))")
                .bind(rows::json(&keys))
                .fetch_all(&self.reader)
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
        let after = after.map_or_else(String::new, |id| id.to_string());
        let query = match sku {
            Some(sku) => sqlx::query("select * from orders where id > ?1 and sku = ?3 order by id limit ?2")
                .bind(after)
                .bind(limit)
                .bind(sku.as_str().to_owned()),
            None => {
                sqlx::query("select * from orders where id > ?1 order by id limit ?2").bind(after).bind(limit)
            }
        };
        let rows = query.fetch_all(&self.reader).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn adjustments(&self, sku: &Sku) -> Result<Vec<Adjustment>, StoreError> {
        let rows = sqlx::query("select * from stock_adjustments where sku = ?1 order by version, id")
            .bind(sku.as_str())
            .fetch_all(&self.reader)
            .await?;
        Ok(rows.iter().map(rows::adjustment).collect::<Result<_, _>>()?)
    }

    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError> {
        let mut snapshot = self.reader.begin().await?;
        let product = sqlx::query("select stock, version, supply from products where sku = ?1")
            .bind(sku.as_str())
            .fetch_optional(&mut *snapshot)
            .await?;
        let Some(product) = product else { return Ok(None) };
        let totals = sqlx::query(
            "select count(*) as orders,
                 coalesce(sum(quantity) filter (where status = 'confirmed'), 0) as units_sold
             from orders where sku = ?1",
        )
        .bind(sku.as_str())
        .fetch_one(&mut *snapshot)
        .await?;
        let duplicates = sqlx::query(
            "select stock_before, version, json_group_array(id) as orders from orders
             where sku = ?1
             group by version, stock_before having count(*) > 1
             order by version limit 10",
        )
        .bind(sku.as_str())
        .fetch_all(&mut *snapshot)
        .await?;
        snapshot.commit().await?;

        let (supply, stock): (i64, i64) = (product.try_get("supply")?, product.try_get("stock")?);
        let units_sold: i64 = totals.try_get("units_sold")?;
        let duplicate_reads = duplicates.iter().map(|row| {
            let orders: String = row.try_get("orders")?;
            let orders = serde_json::from_str(&orders).map_err(|e| sqlx::Error::Decode(e.into()))?;
            let (stock_before, version) = (row.try_get("stock_before")?, row.try_get("version")?);
            Ok(DuplicateRead { stock_before, version, orders })
        });
        Ok(Some(Audit {
            supply,
            stock,
            version: product.try_get("version")?,
            units_sold,
            orders: totals.try_get("orders")?,
            oversold_units: (units_sold - supply).max(0),
            balanced: stock == supply - units_sold,
            duplicate_reads: duplicate_reads.collect::<Result<_, sqlx::Error>>()?,
        }))
    }

    async fn greatest_token(&self, sku: &Sku) -> Result<Option<i64>, StoreError> {
        let token = sqlx::query_scalar(
            "select max(fencing_token) from (
                 select fencing_token from orders where sku = ?1 order by version desc limit 1000
             )",
        );
        Ok(token.bind(sku.as_str()).fetch_one(&self.reader).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1 from products limit 1").fetch_optional(&self.reader).await?;
        Ok(())
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}

/// A level, and the transaction in which it was read, where it was read to be updated.
struct SqliteReading {
    sku: Sku,
    level: Level,
    transaction: Option<Transaction<'static, Sqlite>>,
    writer: SqlitePool,
}

#[async_trait]
impl Reading for SqliteReading {
    fn level(&self) -> Level {
        self.level
    }

    async fn write(
        mut self: Box<Self>,
        lease: &Lease,
        guard: Guard,
        changes: &Changes,
    ) -> Result<(), WriteError> {
        let mut transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.writer.begin_with("begin immediate").await.map_err(not_written)?,
        };
        if guard == Guard::Version && lease.check().is_err() {
            return Err(WriteError::Stale);
        }
        match self.change(&mut transaction, guard, changes).await {
            Ok(()) => transaction.commit().await.map_err(|error| WriteError::Unknown(error.into())),
            Err(error) => {
                // Where it fails, SQLite has rolled back by itself; the pool then replaces the connection.
                transaction.rollback().await.ok();
                Err(error)
            }
        }
    }
}

impl SqliteReading {
    /// Orders first, the product last, as on a store where the product's row is what others wait for.
    async fn change(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        guard: Guard,
        changes: &Changes,
    ) -> Result<(), WriteError> {
        if changes.reset.is_some() {
            for sql in ["delete from orders where sku = ?1", "delete from stock_adjustments where sku = ?1"] {
                let delete = sqlx::query(sql).bind(self.sku.as_str());
                delete.execute(&mut **transaction).await.map_err(not_written)?;
            }
        }
        if !changes.orders.is_empty() {
            sqlx::query(rows::INSERT_ORDERS)
                .bind(rows::orders_json(&changes.orders))
                .execute(&mut **transaction)
                .await
                .map_err(
                    |error| if is_key_taken(&error) { WriteError::KeyTaken } else { not_written(error) },
                )?;
        }
        if !changes.cancelled.is_empty() {
            let cancelled = sqlx::query(
                "update orders set status = 'cancelled'
                 where id in (select value from json_each(?1)) and status = 'confirmed'",
            )
            .bind(rows::json(&changes.cancelled))
            .execute(&mut **transaction)
            .await
            .map_err(not_written)?;
            if cancelled.rows_affected() != changes.cancelled.len() as u64 {
                return Err(WriteError::NotCancellable);
            }
        }
        if !changes.adjustments.is_empty() {
            sqlx::query(rows::INSERT_ADJUSTMENTS)
                .bind(rows::adjustments_json(&changes.adjustments))
                .execute(&mut **transaction)
                .await
                .map_err(not_written)?;
        }
        // Without the guard, the stock that was decided is written over whatever stands there. The version still
        // only grows, so that such a writer cannot make another's guard believe that nothing happened.
        let product = sqlx::query(
            "update products set
                 stock = ?1, version = version + ?2,
                 supply = coalesce(?3, supply) + ?4,
                 name = coalesce(?5, name), created_at = coalesce(?6, created_at)
             where sku = ?7 and (?8 is null or version = ?8)",
        )
        .bind(changes.stock_after)
        .bind(changes.versions)
        .bind(changes.reset.as_ref().map(|product| product.supply))
        .bind(changes.supplied)
        .bind(changes.reset.as_ref().map(|product| product.name.as_str()))
        .bind(changes.reset.as_ref().map(|product| product.created_at.as_microsecond()))
        .bind(self.sku.as_str())
        .bind((guard == Guard::Version).then_some(self.level.version))
        .execute(&mut **transaction)
        .await
        .map_err(not_written)?;
        if product.rows_affected() == 1 { Ok(()) } else { Err(WriteError::Stale) }
    }
}

fn not_written(error: sqlx::Error) -> WriteError {
    WriteError::NotWritten(error.into())
}

fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation() && error.message().contains("orders.idempotency_key")
    })
}
