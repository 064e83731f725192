//! The use cases: place an order, cancel one, restock a product, start one afresh.
//!
//! Each puts its change into the [line](crate::line) of its product and waits for the answer, until the
//! change's time is over. All that touches the store under a lock is in the [section](crate::section).

use std::time::Duration;

use std::sync::Arc;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::api::{Adjustment, Order, OrderStatus, Product};
use crate::config::Config;
use crate::holds::Holds;
use crate::line::{Change, Lines, Outcome, Ticket};
use crate::lock::Lock;
use crate::order::{OrderRequest, ProductRequest, RestockRequest, Sku};
use crate::section::Section;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// The checkout of one replica.
pub struct Checkout {
    store: Arc<dyn Store>,
    lines: Lines,
    request_timeout: Duration,
    /// How much longer than its time a change may take that had begun when its time was over.
    grace: Duration,
}

/// An order that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The order, as it was answered the first time.
    pub order: Order,
    /// Whether it was there before: the idempotency key had been used for the same request.
    pub replayed: bool,
}

/// Why a change was not made. Only [`OutcomeUnknown`](Self::OutcomeUnknown) leaves it open whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such product.
    #[error("there is no product {0}")]
    NoSuchProduct(Sku),
    /// There is no such order.
    #[error("there is no order {0}")]
    NoSuchOrder(Uuid),
    /// The order was cancelled before.
    #[error("order {0} is cancelled already")]
    NotCancellable(Uuid),
    /// There are not enough units.
    #[error("{requested} units were asked for and {available} are left")]
    InsufficientStock {
        /// Units asked for.
        requested: i64,
        /// Units there were.
        available: i64,
        /// The version of the product at which there were so many.
        version: i64,
    },
    /// The idempotency key belongs to another request.
    #[error("the idempotency key was used for a request with another body")]
    KeyReused,
    /// A request with the same idempotency key is being worked on.
    #[error("a request with the same idempotency key is being worked on")]
    KeyInFlight,
    /// The lock was not free in time.
    #[error("the lock on the product was not free in time")]
    LockTimeout,
    /// Too many wait already, or the change lost the race for the stock too often.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The store or the lock's backend did not do its part.
    #[error("{0}")]
    DependencyDown(String),
    /// The replica is stopping.
    #[error("this replica is stopping; send the request to another")]
    ShuttingDown,
    /// The store failed during the commit.
    #[error(
        "the commit's fate is not known; send the request again with the same idempotency key to find out"
    )]
    OutcomeUnknown,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::DependencyDown(error.to_string())
    }
}

impl Checkout {
    /// A checkout that keeps its orders in `store` and excludes others by `lock`.
    pub fn new(config: &Config, store: Arc<dyn Store>, lock: Arc<dyn Lock>, metrics: &Metrics) -> Self {
        let section = Section::new(config, Arc::clone(&store), metrics);
        let lines = Lines::new(config, lock, section, metrics);
        let grace = config.store.timeout + Duration::from_secs(1);
        Self { store, lines, request_timeout: config.server.request_timeout, grace }
    }

    /// Places an order: first come, first served, as far as the stock goes. An answer says that the order is
    /// in the database. Dropping the future before its batch begins withdraws the order.
    pub async fn place(&self, order: OrderRequest) -> Result<Placed, Refusal> {
        let sku = order.sku.clone();
        match self.make(&sku, Change::Purchase(order)).await? {
            Outcome::Ordered(order) => Ok(Placed { order, replayed: false }),
            Outcome::Replayed(order) => Ok(Placed { order, replayed: true }),
            other => unreachable!("a purchase is not answered with {other:?}"),
        }
    }

    /// Cancels an order and puts its units back.
    pub async fn cancel(&self, id: Uuid) -> Result<Order, Refusal> {
        let order = self.in_time(self.store.order(id)).await?.ok_or(Refusal::NoSuchOrder(id))?;
        if order.status == OrderStatus::Cancelled {
            return Err(Refusal::NotCancellable(id));
        }
        let sku = Sku::parse(&order.sku).map_err(Refusal::DependencyDown)?;
        match self.make(&sku, Change::Cancellation(order)).await? {
            Outcome::Cancelled(order) => Ok(order),
            other => unreachable!("a cancellation is not answered with {other:?}"),
        }
    }

    /// Adds units to a product's stock.
    pub async fn restock(&self, restock: RestockRequest) -> Result<Adjustment, Refusal> {
        let sku = restock.sku.clone();
        match self.make(&sku, Change::Restock(restock)).await? {
            Outcome::Restocked(adjustment) => Ok(adjustment),
            other => unreachable!("a restock is not answered with {other:?}"),
        }
    }

    /// Starts a product afresh: its orders are deleted.
    pub async fn reset(&self, product: ProductRequest) -> Result<Product, Refusal> {
        let sku = product.sku.clone();
        match self.make(&sku, Change::Reset(product)).await? {
            Outcome::Reset(product) => Ok(product),
            other => unreachable!("a reset is not answered with {other:?}"),
        }
    }

    /// The record of the latest lock holds under which changes were made.
    pub fn holds(&self) -> &Holds {
        self.lines.holds()
    }

    /// Takes no further changes, and returns when those that wait are made or refused, or at `deadline`.
    pub async fn close(&self, deadline: Instant) {
        self.lines.close(deadline).await;
    }

    async fn make(&self, sku: &Sku, change: Change) -> Result<Outcome, Refusal> {
        let due = Instant::now() + self.request_timeout;
        if !self.lines.has(sku) && self.in_time(self.store.product(sku)).await?.is_none() {
            return Err(Refusal::NoSuchProduct(sku.clone()));
        }
        let mut ticket = self.lines.join(sku, change, due)?;
        match timeout_at(due, ticket.answer()).await {
            Ok(answer) => answer,
            Err(_) if ticket.withdraw() => Err(Refusal::LockTimeout),
            // Its batch has begun: the answer is on its way.
            Err(_) => self.late(&mut ticket).await,
        }
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
        match timeout(self.request_timeout, read).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Refusal::DependencyDown("the store did not answer in time".into())),
        }
    }

    async fn late(&self, ticket: &mut Ticket) -> Result<Outcome, Refusal> {
        timeout_at(Instant::now() + self.grace, ticket.answer()).await.unwrap_or(Err(Refusal::OutcomeUnknown))
    }
}
