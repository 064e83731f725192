//! The use cases: place an order, cancel one, restock a product, reset one.
//!
//! Each puts its change into the [queue](queues) of its product and waits for the result, until the request's time is
//! over. All that happens under a lock is in the [critical section](crate::critical_section).

mod pace;
mod queue;
mod queues;
mod ticket;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use self::queues::Queues;
use self::ticket::Ticket;
use crate::api::{Adjustment, Order, OrderStatus, Product};
use crate::change::{Change, ChangeError, ChangeResult, Outcome};
use crate::config::Config;
use crate::critical_section::CriticalSection;
use crate::holds::Holds;
use crate::lock::Lock;
use crate::order::{OrderRequest, ProductRequest, RestockRequest, Sku};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// The checkout of one replica.
pub struct Checkout {
    store: Arc<dyn Store>,
    queues: Queues,
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

impl Checkout {
    /// A checkout that keeps its orders in `store` and excludes others by `lock`.
    pub fn new(config: &Config, store: Arc<dyn Store>, lock: Arc<dyn Lock>, metrics: &Metrics) -> Self {
        let section = CriticalSection::new(config, Arc::clone(&store), lock, metrics);
        let queues = Queues::new(config, section, metrics);
        let grace = config.store.timeout + Duration::from_secs(1);
        Self { store, queues, request_timeout: config.server.request_timeout, grace }
    }

    /// Places an order: first come, first served, as far as the stock goes. An answer says that the order is
    /// in the database. Dropping the future before its batch begins withdraws the order.
    pub async fn place(&self, order: OrderRequest) -> Result<Placed, ChangeError> {
        let sku = order.sku.clone();
        match self.submit(&sku, Change::Purchase(order)).await? {
            Outcome::Ordered(order) => Ok(Placed { order, replayed: false }),
            Outcome::Replayed(order) => Ok(Placed { order, replayed: true }),
            other => unreachable!("a purchase does not come to {other:?}"),
        }
    }

    /// Cancels an order and puts its units back.
    pub async fn cancel(&self, id: Uuid) -> Result<Order, ChangeError> {
        let order = self.in_time(self.store.order(id)).await?.ok_or(ChangeError::NoSuchOrder(id))?;
        if order.status == OrderStatus::Cancelled {
            return Err(ChangeError::NotCancellable(id));
        }
        let sku = Sku::parse(&order.sku).map_err(ChangeError::DependencyDown)?;
        match self.submit(&sku, Change::Cancellation(order)).await? {
            Outcome::Cancelled(order) => Ok(order),
            other => unreachable!("a cancellation does not come to {other:?}"),
        }
    }

    /// Adds units to a product's stock.
    pub async fn restock(&self, restock: RestockRequest) -> Result<Adjustment, ChangeError> {
        let sku = restock.sku.clone();
        match self.submit(&sku, Change::Restock(restock)).await? {
            Outcome::Restocked(adjustment) => Ok(adjustment),
            other => unreachable!("a restock does not come to {other:?}"),
        }
    }

    /// Resets a product: its orders are deleted.
    pub async fn reset(&self, product: ProductRequest) -> Result<Product, ChangeError> {
        let sku = product.sku.clone();
        match self.submit(&sku, Change::Reset(product)).await? {
            Outcome::Reset(product) => Ok(product),
            other => unreachable!("a reset does not come to {other:?}"),
        }
    }

    /// The record of the latest lock holds under which changes were made.
    pub fn holds(&self) -> &Holds {
        self.queues.section().holds()
    }

    /// Takes no further changes, and returns when those that wait are made or refused, or at `deadline`.
    pub async fn close(&self, deadline: Instant) {
        self.queues.close(deadline).await;
        // Each has a time-out of its own.
        self.queues.section().close().await;
    }

    async fn submit(&self, sku: &Sku, change: Change) -> ChangeResult {
        let due = Instant::now() + self.request_timeout;
        if !self.queues.has(sku) && self.in_time(self.store.product(sku)).await?.is_none() {
            return Err(ChangeError::NoSuchProduct(sku.clone()));
        }
        let (mut ticket, is_attached) = self.queues.join(sku, change, due)?;
        match timeout_at(due, ticket.result()).await {
            Ok(result) => result,
            // Nothing is known of the request that it is attached to.
            Err(_) if ticket.withdraw() => {
                Err(if is_attached { ChangeError::KeyInFlight } else { ChangeError::LockTimeout })
            }
            // Its batch has begun: the result is on its way.
            Err(_) => self.late(&mut ticket).await,
        }
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, ChangeError> {
        match timeout(self.request_timeout, read).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ChangeError::DependencyDown("the store did not answer in time".into())),
        }
    }

    async fn late(&self, ticket: &mut Ticket) -> ChangeResult {
        let late = timeout_at(Instant::now() + self.grace, ticket.result()).await;
        late.unwrap_or(Err(ChangeError::OutcomeUnknown))
    }
}
