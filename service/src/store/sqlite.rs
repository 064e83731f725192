//! The embedded store: a file, which several replicas on one machine may share.

mod queries;
mod rows;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqlitePool};
use sqlx::{Connection as _, Row as _, SqliteConnection, Transaction};
use tokio::time::Instant;
use uuid::Uuid;

pub(super) use self::queries::BOUNDED;
use self::transaction::SqliteTransaction;
use super::migrations::{SQLITE as MIGRATIONS, has_to_migrate, pending};
use super::{
    CommitError, Creation, Latest, OpenError, Store, StoreError, audit, created_answer, kept_answers, orders,
    products, status,
};
use crate::api::{Adjustment, Audit, DuplicateRead, Order, OrderStatus, Product};
use crate::change::KeptAnswer;
use crate::config::StoreSection;
use crate::db::sqlite::{DatabaseFile, is_busy, is_busy_text, options, pool};
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::token::{Generation, GenerationRequest};

/// Products and orders in a SQLite file.
///
/// The file is in write-ahead mode, so readers and the writer do not wait for each other, and every commit is
/// on the disk before it is answered. One connection writes, since SQLite has one writer at a time: inside
/// the process, those who wait for it wait in order. While another process writes, whoever has the connection
/// asks for the right to write for a few milliseconds, and then goes to the end of the line.
pub struct SqliteStore {
    file: Arc<DatabaseFile>,
    writer: SqlitePool,
    reader: SqlitePool,
    /// How long the right to write is waited for.
    busy: Duration,
}

/// How long the writer's connection asks for the right to write before it is asked again. SQLite's own waits
/// grow to a tenth of a second, in which a busy replica has come back many times: who waits so would hardly
/// ever have its turn.
const ASKS: Duration = Duration::from_millis(5);

impl SqliteStore {
    /// Opens the file, makes it if it is missing, and brings its tables up to date.
    pub async fn connect(store: &StoreSection) -> Result<Self, OpenError> {
        let unavailable = |reason: String| OpenError::Unavailable { url: store.url.clone(), reason };
        let (options, _) = Self::up_to_date(store, store.migrate).await?;
        let file = DatabaseFile::open(&options).await.map_err(|error| unavailable(error.to_string()))?;
        let file = Arc::new(file);
        Ok(Self {
            writer: pool(store, &file, 1).connect_lazy_with(options.clone().busy_timeout(ASKS)),
            reader: pool(store, &file, 4).connect_lazy_with(options.read_only(true)),
            file,
            busy: store.timeout * 3 / 4,
        })
    }

    /// Brings the tables up to date, and returns how many migrations that took.
    pub async fn migrate(store: &StoreSection) -> Result<usize, OpenError> {
        Ok(Self::up_to_date(store, true).await?.1)
    }

    async fn up_to_date(
        store: &StoreSection,
        may_migrate: bool,
    ) -> Result<(SqliteConnectOptions, usize), OpenError> {
        let options = options(store)?;
        let unavailable = |reason: String| OpenError::Unavailable { url: store.url.clone(), reason };
        DatabaseFile::claim(&options).map_err(|error| unavailable(error.to_string()))?;
        let give_up = Instant::now() + store.timeout;
        // The first change to write-ahead mode does not wait for other processes that do the same.
        let migrated = loop {
            match migrate(&options, may_migrate).await {
                Err(error) if is_busy_text(&error) && Instant::now() < give_up => {
                    let pause = rand::rng().random_range(5..50);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                result => break result,
            }
        };
        Ok((options, migrated.map_err(unavailable)?))
    }

    /// A connection to read with.
    async fn reading(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.file.check()?;
        self.reader.acquire().await
    }

    /// The right to write, which only one has at a time.
    async fn writing(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let give_up = Instant::now() + self.busy;
        loop {
            self.file.check()?;
            match self.writer.begin_with("begin immediate").await {
                Err(error) if is_busy(&error) && Instant::now() < give_up => {}
                result => return result,
            }
        }
    }
}

async fn create(
    connection: &mut SqliteConnection,
    product: &ProductRequest,
) -> Result<Creation, sqlx::Error> {
    let row = sqlx::query(
        "insert into products (sku, name, stock, version, supply, created_at)
         values (?1, ?2, ?3, 0, ?3, ?4)
         on conflict (sku) do nothing
         returning sku, name, stock, version, supply, created_at",
    )
    .bind(product.sku.as_str())
    .bind(product.name.as_str())
    .bind(product.stock)
    .bind(rows::now())
    // All rows are asked for: SQLite has done what was asked when it has come to its end.
    .fetch_all(&mut *connection)
    .await?;
    let Some(row) = row.first() else { return Ok(Creation::Exists) };
    let created = rows::product(row)?;
    if let Some(answer) = created_answer(product, &created) {
        let keep = sqlx::query(rows::KEEP_ANSWERS).bind(rows::answers_json(&[&answer]));
        if keep.fetch_all(&mut *connection).await?.is_empty() {
            return Ok(Creation::KeyTaken);
        }
    }
    Ok(Creation::Created(created))
}

fn not_written(error: sqlx::Error) -> CommitError {
    CommitError::NotWritten(error.into())
}

/// Brings the tables up to date, if it `may`, and returns how many migrations that took.
async fn migrate(options: &SqliteConnectOptions, may: bool) -> Result<usize, String> {
    use sqlx::ConnectOptions as _;
    let mut connection = options.connect().await.map_err(|e| e.to_string())?;
    // One transaction around all, so that replicas that start together do it one after the other.
    let mut transaction = connection.begin_with("begin immediate").await.map_err(|e| e.to_string())?;
    let needed = needed(&mut transaction).await.map_err(|e| e.to_string())?;
    if needed > 0 && !may {
        return Err(has_to_migrate(needed));
    }
    if needed > 0 {
        MIGRATIONS.run(&mut *transaction).await.map_err(|e| e.to_string())?;
    }
    transaction.commit().await.map_err(|e| e.to_string())?;
    connection.close().await.map_err(|e| e.to_string())?;
    Ok(needed)
}

async fn needed(connection: &mut SqliteConnection) -> Result<usize, MigrateError> {
    let is_there = sqlx::query("select 1 from sqlite_schema where name = '_sqlx_migrations'");
    if is_there.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(MIGRATIONS.iter().count());
    }
    pending(&MIGRATIONS, connection).await
}

#[async_trait]
impl Store for SqliteStore {
    async fn levels(&self, skus: &[Sku]) -> Result<Vec<Option<StockLevel>>, StoreError> {
        rows::levels(&mut *self.reading().await?, skus).await.map_err(StoreError::from)
    }

    fn locking_at_once(&self) -> usize {
        1
    }

    async fn begin(&self) -> Result<Box<dyn super::Transaction>, StoreError> {
        Ok(Box::new(SqliteTransaction::new(self.writing().await?, Arc::clone(&self.file))))
    }

    async fn create_product(&self, product: &ProductRequest) -> Result<Creation, CommitError> {
        let mut transaction = self.writing().await.map_err(not_written)?;
        let creation = create(&mut transaction, product).await.map_err(not_written)?;
        if !matches!(creation, Creation::Created(_)) {
            transaction.rollback().await.ok();
            return Ok(creation);
        }
        let unknown = |error: sqlx::Error| CommitError::Unknown(error.into());
        transaction.commit().await.map_err(unknown)?;
        self.file.check().map_err(|error| unknown(error.into()))?;
        Ok(creation)
    }

    async fn kept_answers(&self, keys: &[&IdempotencyKey]) -> Result<Vec<KeptAnswer>, StoreError> {
        let asked: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let rows = sqlx::query_as(
            "select idempotency_key, request, answer from kept_answers
             where idempotency_key in (select value from json_each(?1))",
        );
        let rows = rows.bind(rows::json(&asked)).fetch_all(&mut *self.reading().await?).await?;
        Ok(kept_answers(rows, keys))
    }

    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(concat!(products!(), " where sku = ?1")).bind(sku.as_str());
        Ok(row.fetch_optional(&mut *self.reading().await?).await?.as_ref().map(rows::product).transpose()?)
    }

    async fn products(&self, after: Option<&Sku>, limit: u32) -> Result<Vec<Product>, StoreError> {
        let query = sqlx::query(concat!(products!(), " where sku > ?1 order by sku limit ?2"))
            .bind(after.map_or_else(String::new, |sku| sku.as_str().to_owned()))
            .bind(limit);
        let rows = query.fetch_all(&mut *self.reading().await?).await?;
        Ok(rows.iter().map(rows::product).collect::<Result<_, _>>()?)
    }

    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError> {
        let row = sqlx::query(concat!(orders!(), " where id = ?1")).bind(id.to_string());
        Ok(row.fetch_optional(&mut *self.reading().await?).await?.as_ref().map(rows::order).transpose()?)
    }

    async fn order_status(&self, id: Uuid) -> Result<Option<(OrderStatus, bool)>, StoreError> {
        let query = sqlx::query(
            "select status, (status = 'awaiting_payment' and pay_by <= ?2) is true as overdue
             from orders where id = ?1",
        );
        let query = query.bind(id.to_string()).bind(rows::now());
        let Some(row) = query.fetch_optional(&mut *self.reading().await?).await? else { return Ok(None) };
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
            " where status = 'awaiting_payment' and pay_by <= ?2 and (replica = ?1 or pay_by <= ?2 - ?3)
             and sku not in (select value from json_each(?5)) order by pay_by limit ?4"
        ));
        let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        let except: Vec<_> = except.iter().map(Sku::as_str).collect();
        let query = query.bind(replica.to_owned()).bind(rows::now()).bind(grace).bind(limit);
        let query = query.bind(rows::json(&except));
        let rows = query.fetch_all(&mut *self.reading().await?).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn next_overdue(&self) -> Result<Option<Duration>, StoreError> {
        let query = sqlx::query_scalar("select min(pay_by) from orders where status = 'awaiting_payment'");
        let next: Option<i64> = query.fetch_one(&mut *self.reading().await?).await?;
        Ok(next.map(|next| Duration::from_micros(u64::try_from(next - rows::now()).unwrap_or(0))))
    }

    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError> {
        let keys: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let rows =
            sqlx::query(concat!(orders!(), " where idempotency_key in (select value from json_each(?1))"))
                .bind(rows::json(&keys))
                .fetch_all(&mut *self.reading().await?)
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
            Some(sku) => sqlx::query(queries::ORDERS_OF_A_PRODUCT)
                .bind(after)
                .bind(limit)
                .bind(sku.as_str().to_owned()),
            None => sqlx::query(queries::ORDERS).bind(after).bind(limit),
        };
        let rows = query.fetch_all(&mut *self.reading().await?).await?;
        Ok(rows.iter().map(rows::order).collect::<Result<_, _>>()?)
    }

    async fn adjustments(
        &self,
        sku: &Sku,
        after: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Adjustment>, StoreError> {
        let (version, id) =
            after.map_or((i64::MIN, String::new()), |(version, id)| (version, id.to_string()));
        let query = sqlx::query(queries::ADJUSTMENTS).bind(sku.as_str()).bind(version).bind(id).bind(limit);
        let rows = query.fetch_all(&mut *self.reading().await?).await?;
        Ok(rows.iter().map(rows::adjustment).collect::<Result<_, _>>()?)
    }

    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError> {
        let mut connection = self.reading().await?;
        let mut snapshot = connection.begin().await?;
        let product = sqlx::query(queries::LEVEL_AND_COUNTERS).bind(sku.as_str());
        let Some(product) = product.fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let latest = sqlx::query(queries::LATEST_TOTALS).bind(sku.as_str());
        let latest = latest.fetch_one(&mut *snapshot).await?;
        let duplicates = sqlx::query(queries::DUPLICATE_READS).bind(sku.as_str());
        let duplicates = duplicates.fetch_all(&mut *snapshot).await?;
        snapshot.commit().await?;

        let duplicate_reads = duplicates.iter().map(|row| {
            let orders: String = row.try_get("orders")?;
            let orders = serde_json::from_str(&orders).map_err(|e| sqlx::Error::Decode(e.into()))?;
            let (stock_before, version) = (row.try_get("stock_before")?, row.try_get("version")?);
            Ok(DuplicateRead { stock_before, version, orders })
        });
        let duplicate_reads = duplicate_reads.collect::<Result<_, sqlx::Error>>()?;
        let latest = Latest { totals: rows::totals(&latest)?, duplicate_reads };
        Ok(Some(audit(rows::stock_level(&product)?, rows::totals(&product)?, latest)))
    }

    async fn token_generations(&self, wanted: &[GenerationRequest]) -> Result<Vec<Generation>, StoreError> {
        let mut known = Vec::with_capacity(wanted.len());
        let mut reading = self.reading().await?;
        for request in wanted {
            known.push(known_generation(&mut reading, request).await?);
        }
        drop(reading);
        if let Some(known) = known.into_iter().collect() {
            return Ok(known);
        }
        let mut transaction = self.writing().await?;
        let mut generations = Vec::with_capacity(wanted.len());
        for request in wanted {
            // Another may have begun it in between.
            generations.push(match known_generation(&mut transaction, request).await? {
                Some(generation) => generation,
                None => begin_generation(&mut transaction, request).await?,
            });
        }
        transaction.commit().await?;
        Ok(generations)
    }

    async fn try_commit(&self) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        // Nothing reads it. What it is set to is what it is, and written all the same.
        sqlx::raw_sql("pragma user_version = 0").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
        self.file.close().await;
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}

/// The generation that goes on.
async fn known_generation(
    connection: &mut SqliteConnection,
    request: &GenerationRequest,
) -> Result<Option<Generation>, sqlx::Error> {
    let known = sqlx::query("select generation, server from token_generations where lock_key = ?1");
    let Some(row) = known.bind(&request.key).fetch_optional(connection).await? else { return Ok(None) };
    let number: i64 = row.try_get("generation")?;
    let goes_on = row.try_get::<&str, _>("server")? == request.server && request.lost != Some(number);
    Ok(goes_on.then_some(Generation { number, is_new: false }))
}

async fn begin_generation(
    connection: &mut SqliteConnection,
    GenerationRequest { key, server, .. }: &GenerationRequest,
) -> Result<Generation, sqlx::Error> {
    let latest = sqlx::query_scalar(
        "select max(fencing_token) from (
             select fencing_token from orders where sku = ?1 order by version desc limit 1000
         )",
    );
    let token: Option<i64> = latest.bind(key).fetch_one(&mut *connection).await?;
    let number = sqlx::query_scalar(
        "insert into token_generations (lock_key, generation, server) values (?1, ?3, ?2)
         on conflict (lock_key) do update set
             generation = max(generation + 1, excluded.generation), server = excluded.server
         returning generation",
    );
    let number = number.bind(key).bind(server).bind(token.map_or(0, Generation::after));
    Ok(Generation { number: number.fetch_one(connection).await?, is_new: true })
}
