//! The stores. All SQL on products and orders is here; a store knows nothing of locks but that a write
//! takes a lease.

mod postgres;
mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::api::{Adjustment, Audit, Order, Product};
use crate::config::{ConfigError, Guard, StoreSection};
use crate::db::{self, DatabaseKind};
use crate::lock::Lease;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::purchase::Level;

/// Where products and orders are kept.
///
/// Every method may be cancelled by dropping its future: a write that was not committed by then never will
/// be, except when the drop meets the commit itself; whoever needs to know looks the order up.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads a product's level for a change that will be written through the [`Reading`]. `None`: there is no
    /// such product.
    async fn read(&self, sku: &Sku, reads: Reads) -> Result<Option<Box<dyn Reading>>, StoreError>;

    /// Makes a product; `None` when there is one already, which is left as it is.
    async fn create_product(&self, product: &ProductRequest) -> Result<Option<Product>, StoreError>;

    /// A product.
    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError>;

    /// All products, by SKU.
    async fn products(&self) -> Result<Vec<Product>, StoreError>;

    /// An order.
    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError>;

    /// Orders with their idempotency keys, of those among `keys` that have one.
    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError>;

    /// At most `limit` orders after the order `after`, oldest first, of one product or of all.
    async fn orders(
        &self,
        sku: Option<&Sku>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError>;

    /// The adjustments of a product, by version.
    async fn adjustments(&self, sku: &Sku) -> Result<Vec<Adjustment>, StoreError>;

    /// The books of a product, read in one transaction.
    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError>;

    /// The greatest fencing token that the latest orders of the product have, of which a thousand are looked at:
    /// tokens grow with the versions, but for what a guard would have refused.
    async fn greatest_token(&self, sku: &Sku) -> Result<Option<i64>, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Ends all connections.
    async fn close(&self);

    /// `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;
}

/// How the critical section reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A plain read of the last committed value.
    Plain,
    /// A read that locks the row until the write's commit.
    ForUpdate,
}

/// A level that was read, and the way to write what follows from it.
#[async_trait]
pub trait Reading: Send {
    /// What was read.
    fn level(&self) -> Level;

    /// Writes the changes and commits them, all or nothing.
    ///
    /// With the guard, the write is refused as [`WriteError::Stale`] when the lease is lost or the product's
    /// version is no longer the one that was read. Without, what was decided is written whatever happened.
    async fn write(self: Box<Self>, lease: &Lease, guard: Guard, changes: &Changes)
    -> Result<(), WriteError>;
}

/// What one batch changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The level that was decided for the product.
    pub stock_after: i64,
    /// How many versions the changes make.
    pub versions: i64,
    /// Units newly put in stock.
    pub supplied: i64,
    /// Orders to insert, with their idempotency keys.
    pub orders: Vec<(Order, Option<IdempotencyKey>)>,
    /// Orders to cancel.
    pub cancelled: Vec<Uuid>,
    /// Adjustments to insert.
    pub adjustments: Vec<Adjustment>,
    /// Whether the product starts afresh: its orders and adjustments go before all else.
    pub reset: Option<Product>,
}

impl Changes {
    /// Whether there is nothing but orders, as nearly always.
    pub fn is_only_orders(&self) -> bool {
        !self.orders.is_empty()
            && self.supplied == 0
            && self.cancelled.is_empty()
            && self.adjustments.is_empty()
            && self.reset.is_none()
    }
}

/// Why a store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Others kept it from answering in time.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// It failed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// Why changes were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What was read has changed since, or the lease is lost. Nothing was written.
    #[error("what was read has changed")]
    Stale,
    /// One of the idempotency keys has an order already. Nothing was written.
    #[error("an idempotency key has an order already")]
    KeyTaken,
    /// One of the orders to cancel is not there or not confirmed. Nothing was written.
    #[error("an order cannot be cancelled")]
    NotCancellable,
    /// The store failed before the commit. Nothing was written.
    #[error("nothing was written: {0}")]
    NotWritten(StoreError),
    /// The store failed during the commit. Everything was written, or nothing.
    #[error("it is not known what was written: {0}")]
    Unknown(StoreError),
}

/// Opens the store that the configuration names and brings its tables up to date.
pub async fn connect(store: &StoreSection) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match DatabaseKind::of(store)? {
        DatabaseKind::Sqlite => Arc::new(sqlite::SqliteStore::connect(store).await?),
        DatabaseKind::Postgres => Arc::new(postgres::PostgresStore::connect(store).await?),
    })
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be reached.
    #[error("{url}: {reason}")]
    Unavailable {
        /// Which store.
        url: String,
        /// What it said.
        reason: String,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if db::is_busy(&error) { Self::Busy(error.to_string()) } else { Self::Unavailable(error.to_string()) }
    }
}
