//! The stores. All SQL on products and orders is here; a store knows neither locks nor the checkout.

mod columns;
mod counters;
mod flight;
mod migrations;
mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::api::{Adjustment, Audit, Order, OrderStatus, Product};
use crate::change::{self, KeptAnswer, Outcome};
use crate::config::{ConfigError, StoreSection};
use crate::db::{self, DatabaseKind};
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, ProductRequest, Sku};
use crate::token::{Generation, GenerationRequest};

use columns::{adjustments, orders, products};
use counters::{Latest, audit, examined, resettable};

/// Where products and orders are kept.
///
/// Every method may be cancelled by dropping its future: a write that was not committed by then never will
/// be, except when the drop meets the commit itself; whoever needs to know looks the order up.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads the stock levels of products, all at one moment: one entry for each, in their order, and `None`
    /// where there is no such product.
    async fn levels(&self, skus: &[Sku]) -> Result<Vec<Option<StockLevel>>, StoreError>;

    /// How many transactions that [lock rows](Transaction::lock_rows) are worth having at the same time.
    fn locking_at_once(&self) -> usize;

    /// Begins what will be written by one commit.
    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError>;

    /// Creates a product, unless there is one already, which is left as it is. In one commit with the answer
    /// that is kept under the request's idempotency key, if it has one.
    async fn create_product(&self, product: &ProductRequest) -> Result<Creation, CommitError>;

    /// What was answered to changes with these idempotency keys, of those that have an answer.
    async fn kept_answers(&self, keys: &[&IdempotencyKey]) -> Result<Vec<KeptAnswer>, StoreError>;

    /// The product as it was last committed; `None` where there is none.
    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError>;

    /// At most `limit` products after the product `after`, by SKU.
    async fn products(&self, after: Option<&Sku>, limit: u32) -> Result<Vec<Product>, StoreError>;

    /// The order with this identity; `None` where there is none.
    async fn order(&self, id: Uuid) -> Result<Option<Order>, StoreError>;

    /// The status of an order, and whether it awaits a payment whose time is over, by the store's clock;
    /// `None` where there is no such order.
    async fn order_status(&self, id: Uuid) -> Result<Option<(OrderStatus, bool)>, StoreError>;

    /// At most `limit` orders that await a payment whose time is over, of other products than `except`: those
    /// that `replica` has written, and of the others those whose time has been over for `grace`.
    async fn overdue(
        &self,
        replica: &str,
        grace: Duration,
        except: &[Sku],
        limit: u32,
    ) -> Result<Vec<Order>, StoreError>;

    /// How long it is until the next time to pay is over; `None` where no order awaits its payment.
    async fn next_overdue(&self) -> Result<Option<Duration>, StoreError>;

    /// Orders with their idempotency keys, of those among `keys` that have one.
    async fn orders_by_key(&self, keys: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError>;

    /// At most `limit` orders after the order `after`, oldest first, of one product or of all.
    async fn orders(
        &self,
        sku: Option<&Sku>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError>;

    /// At most `limit` adjustments of a product, by version and identity, after the one with these.
    async fn adjustments(
        &self,
        sku: &Sku,
        after: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Adjustment>, StoreError>;

    /// The audit of a product, read in one transaction; `None` where there is no such product. It takes no
    /// longer the more orders the product has: of very many it reads the latest, and believes its counters.
    async fn audit(&self, sku: &Sku) -> Result<Option<Audit>, StoreError>;

    /// The generation of the fencing tokens of each key, none of which comes twice. A new one begins where
    /// the last one was counted by another server, or is the one that is lost; the first one comes after the
    /// tokens of the product's latest thousand orders.
    async fn token_generations(&self, wanted: &[GenerationRequest]) -> Result<Vec<Generation>, StoreError>;

    /// Commits a write that changes nothing, with all the rights that an order needs.
    async fn try_commit(&self) -> Result<(), StoreError>;

    /// Ends all connections; what is asked afterwards fails.
    async fn close(&self);

    /// What the store is called in `/v1/info`: `sqlite` or `postgres`.
    fn kind(&self) -> &'static str;
}

/// What came of the creation of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is created.
    Created(Product),
    /// There is one already.
    Exists,
    /// The idempotency key has an answer already.
    KeyTaken,
}

/// What will be written by one commit. Its drop writes nothing.
#[async_trait]
pub trait Transaction: Send {
    /// Reads stock levels and locks the products' rows until the commit. Without `wait`, a row that another
    /// transaction has locked is not waited for: [`RowLevel::Busy`]. With, there may be only one product, or
    /// two transactions could wait for each other.
    async fn lock_rows(&mut self, skus: &[Sku], wait: bool) -> Result<Vec<RowLevel>, StoreError>;

    /// Writes the batches, of which no two are of one product, and commits. Each is written whole or not at
    /// all, and one that is rejected does not keep the others from being written.
    ///
    /// `may_write` is asked for each batch as late as possible, and again before it is sent again; one that
    /// may not is [`Rejected::Stale`].
    async fn commit(
        self: Box<Self>,
        batches: &[&WriteBatch],
        wait: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<Written, Rejected>>, CommitError>;
}

/// A batch that was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Until when its orders have to be paid, by the store's clock, where they have to be.
    pub pay_by: Option<Timestamp>,
}

/// What a product's row says to one who wants to lock it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLevel {
    /// It is locked, and says this.
    Locked(StockLevel),
    /// Another transaction has locked it.
    Busy,
    /// There is no such product.
    Absent,
}

/// What is to be written for one product: what was decided on one reading of its level.
#[derive(Debug)]
pub struct WriteBatch {
    /// The product to write.
    pub sku: Sku,
    /// The version that the product must still have; `None` writes whatever became of it.
    pub guarded: Option<i64>,
    /// The stock that was decided.
    pub stock_after: i64,
    /// How many versions the changes make.
    pub versions: i64,
    /// Units newly put in stock.
    pub supplied: i64,
    /// Orders to insert, with their idempotency keys.
    pub orders: Vec<(Order, Option<IdempotencyKey>)>,
    /// Within which time the orders have to be paid; `None` where they are confirmed. The same for all
    /// batches of a commit.
    pub payment_window: Option<Duration>,
    /// Orders whose status changes; each order at most once.
    pub transitions: Vec<Transition>,
    /// Adjustments to insert: one for each restock and each transition.
    pub adjustments: Vec<Adjustment>,
    /// Answers to keep under their idempotency keys.
    pub answers: Vec<KeptAnswer>,
    /// Whether the product is reset: its orders and adjustments go before all else.
    pub reset: Option<Product>,
}

impl WriteBatch {
    /// A batch that writes nothing.
    pub fn empty(sku: Sku) -> Self {
        Self {
            sku,
            guarded: None,
            stock_after: 0,
            versions: 0,
            supplied: 0,
            orders: Vec::new(),
            payment_window: None,
            transitions: Vec::new(),
            adjustments: Vec::new(),
            answers: Vec::new(),
            reset: None,
        }
    }

    /// Whether there is nothing but orders, as nearly always.
    pub fn is_only_orders(&self) -> bool {
        !self.orders.is_empty()
            && self.supplied == 0
            && self.transitions.is_empty()
            && self.adjustments.is_empty()
            && self.answers.is_empty()
            && self.reset.is_none()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.versions == 0
    }
}

/// A change of an order's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The order.
    pub order: Uuid,
    /// The status that it must have.
    pub from: OrderStatus,
    /// The status that it gets. It is confirmed only as long as its time to pay is not over, and expires only
    /// when that is.
    pub to: OrderStatus,
    /// How many units the order takes until then.
    pub units_before: i64,
    /// How many it takes from then on.
    pub units_after: i64,
}

impl Transition {
    /// Whether the order's time to pay has to be over, or must not be; `None` where that does not matter.
    fn overdue(&self) -> Option<bool> {
        match self.to {
            OrderStatus::Confirmed => Some(false),
            OrderStatus::Expired => Some(true),
            OrderStatus::AwaitingPayment | OrderStatus::Cancelled => None,
        }
    }
}

/// Why a batch was not written. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// What was read has changed since, or is about to, or the lease is lost.
    #[error("what was read has changed")]
    Stale,
    /// Another transaction has locked the product's row, and there is no version that would show what it
    /// does.
    #[error("the product's row is locked")]
    Busy,
    /// One of the idempotency keys has an order already.
    #[error("an idempotency key has an order already")]
    KeyTaken,
    /// One of the orders to change is not there, or has not the status that it must have.
    #[error("an order has another status")]
    OrderChanged,
    /// The product to reset has more orders, or adjustments, than can be deleted at once.
    #[error("the product has too many orders to be reset")]
    TooManyOrders,
}

/// Why nothing is known to be committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The store failed before the commit. Nothing was written.
    #[error("nothing was written: {0}")]
    NotWritten(StoreError),
    /// The store failed during the commit. Everything was written, or nothing.
    #[error("it is not known what was written: {0}")]
    Unknown(StoreError),
}

/// Why a store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Others kept it from answering in time.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// It failed, or could not be reached.
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// Opens the store that the configuration names and brings its tables up to date, unless it says not to.
pub async fn connect(store: &StoreSection) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match DatabaseKind::of(store)? {
        DatabaseKind::Sqlite => Arc::new(sqlite::SqliteStore::connect(store).await?),
        DatabaseKind::Postgres => Arc::new(postgres::PostgresStore::connect(store).await?),
    })
}

/// Brings the tables of the store that the configuration names up to date, whatever it says of the start, and
/// returns how many migrations that took.
pub async fn migrate(store: &StoreSection) -> Result<usize, OpenError> {
    match DatabaseKind::of(store)? {
        DatabaseKind::Sqlite => sqlite::SqliteStore::migrate(store).await,
        DatabaseKind::Postgres => postgres::PostgresStore::migrate(store).await,
    }
}

/// The statements of the store of this [kind](Store::kind) that have to read no more rows the more orders a
/// product has, by name. For a test, which has them explained.
pub fn bounded_statements(kind: &str) -> &'static [(&'static str, &'static str)] {
    if kind == "sqlite" { &sqlite::BOUNDED } else { &postgres::BOUNDED }
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
        /// The URL of the store, without a password.
        url: String,
        /// The error that it gave, or that there was no answer.
        reason: String,
    },
}

/// The answer that a request to create a product gets, if it is to be known again.
fn created_answer(product: &ProductRequest, created: &Product) -> Option<KeptAnswer> {
    let outcome = Outcome::Created(created.clone());
    KeptAnswer::of(product.key.as_ref(), || change::product_put(product), &outcome)
}

/// What a status is called in the tables.
fn status_name(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::AwaitingPayment => "awaiting_payment",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Cancelled => "cancelled",
        OrderStatus::Expired => "expired",
    }
}

/// The status with this name.
fn status(name: &str) -> Result<OrderStatus, sqlx::Error> {
    let all =
        [OrderStatus::AwaitingPayment, OrderStatus::Confirmed, OrderStatus::Cancelled, OrderStatus::Expired];
    let found = all.into_iter().find(|status| status_name(*status) == name);
    found.ok_or_else(|| sqlx::Error::Decode(format!("an order cannot be {name}").into()))
}

/// The columns of kept answers, and what is in them.
type AnswerRow = (String, String, String);

fn kept_answers(rows: Vec<AnswerRow>, asked: &[&IdempotencyKey]) -> Vec<KeptAnswer> {
    let of = |(key, request, answer): AnswerRow| {
        let key = asked.iter().find(|asked| asked.as_str() == key)?;
        Some(KeptAnswer { key: (*key).clone(), request, answer })
    };
    rows.into_iter().filter_map(of).collect()
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if db::is_busy(&error) { Self::Busy(error.to_string()) } else { Self::Unavailable(error.to_string()) }
    }
}
