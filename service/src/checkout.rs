//! The use cases: place an order, pay or cancel one, restock a product, reset one.
//!
//! Each puts its change into the [queue](queues) of its product and waits for the result, until the request's
//! time is over. All that happens under a lock is in the [critical section](crate::critical_section).

mod expiry;
mod hold_trace;
mod pace;
mod queue;
mod queues;
mod tally;
mod ticket;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use self::queues::Queues;
use self::tally::Tally;
use self::ticket::Ticket;
use crate::api::{Adjustment, Order, OrderStatus, Product};
use crate::change::{self, Change, ChangeError, ChangeResult, Made, Outcome};
use crate::config::Config;
use crate::critical_section::CriticalSection;
use crate::holds::Holds;
use crate::lock::Lock;
use crate::order::{IdempotencyKey, OrderRequest, ProductRequest, RestockRequest, Sku};
use crate::store::{CommitError, Creation, Store, StoreError};
use crate::telemetry::{CheckoutMetrics, Metrics, OrderMetrics};

/// How many statuses an order goes through, at the most.
const STATUSES: usize = 3;

/// The checkout of one replica.
pub struct Checkout {
    store: Arc<dyn Store>,
    queues: Queues,
    orders: OrderMetrics,
    replica: String,
    payment_window: Option<Duration>,
    request_timeout: Duration,
    /// How much longer than its time a change may take that had begun when its time was over.
    grace: Duration,
}

/// What is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed<T> {
    /// What was made, as it was answered the first time.
    pub value: T,
    /// Whether it was there before: the idempotency key had been used for the same request.
    pub replayed: bool,
}

/// A product that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It was created.
    Created(Product),
    /// It existed, and is reset.
    Reset(Product),
}

impl Checkout {
    /// A checkout that keeps its orders in `store` and excludes others by `lock`.
    pub fn new(config: &Config, store: Arc<dyn Store>, lock: Arc<dyn Lock>, metrics: &Metrics) -> Self {
        let section = CriticalSection::new(config, Arc::clone(&store), lock, metrics);
        let queues = Queues::new(config, section, metrics);
        let grace = config.store.timeout + Duration::from_secs(1);
        Self {
            store,
            queues,
            orders: metrics.orders.clone(),
            replica: config.replica(),
            payment_window: config.checkout.payment_window,
            request_timeout: config.server.request_timeout,
            grace,
        }
    }

    /// Places an order: first come, first served, as far as the stock goes. An answer says that the order is
    /// in the database. Dropping the future before its batch begins withdraws the order.
    pub async fn place(&self, order: OrderRequest) -> Result<Completed<Order>, ChangeError> {
        let sku = order.sku.clone();
        done(self.submit(&sku, Change::Purchase(order)).await?, |outcome| match outcome {
            Outcome::Ordered(order) => Some(order),
            _ => None,
        })
    }

    /// Cancels an order and puts its units back.
    pub async fn cancel(
        &self,
        id: Uuid,
        key: Option<IdempotencyKey>,
    ) -> Result<Completed<Order>, ChangeError> {
        let change = |order: Order| match order.status {
            OrderStatus::AwaitingPayment | OrderStatus::Confirmed => {
                Ok(Change::Cancellation(order, key.clone()))
            }
            status => Err(ChangeError::NotCancellable(id, status)),
        };
        let made = self.change_order(id, key.as_ref(), &change::cancellation(id), change).await?;
        done(made, |outcome| match outcome {
            Outcome::Cancelled(order) => Some(order),
            _ => None,
        })
    }

    /// Pays an order that awaits it, which confirms it. Where the shop decides by payment, this takes the
    /// units, or is refused for want of stock; the order then goes on to await its payment.
    pub async fn pay(&self, id: Uuid, key: Option<IdempotencyKey>) -> Result<Completed<Order>, ChangeError> {
        let change = |order: Order| match order.status {
            OrderStatus::AwaitingPayment => Ok(Change::Payment(order, key.clone())),
            status => Err(ChangeError::NotPayable(id, status)),
        };
        let made = self.change_order(id, key.as_ref(), &change::payment(id), change).await?;
        done(made, |outcome| match outcome {
            Outcome::Paid(order) => Some(order),
            _ => None,
        })
    }

    /// Makes the `change` of an order that its status allows, and another where that has changed meanwhile.
    async fn change_order(
        &self,
        id: Uuid,
        key: Option<&IdempotencyKey>,
        request: &str,
        change: impl Fn(Order) -> Result<Change, ChangeError>,
    ) -> ChangeResult {
        let mut changed = ChangeError::NoSuchOrder(id);
        for _ in 0..STATUSES {
            let Some(order) = self.in_time(self.store.order(id)).await? else { break };
            let sku = Sku::parse(&order.sku).map_err(ChangeError::DependencyDown)?;
            match change(order) {
                Ok(change) => match self.submit(&sku, change).await {
                    Err(error @ ChangeError::OrderChanged(_)) => changed = error,
                    result => return result,
                },
                Err(error) => {
                    changed = error;
                    break;
                }
            }
        }
        // Perhaps the same request has changed it.
        let made = self.repeated(key, || request.into()).await?;
        made.ok_or(changed)
    }

    /// Adds units to a product's stock.
    pub async fn restock(&self, restock: RestockRequest) -> Result<Completed<Adjustment>, ChangeError> {
        let sku = restock.sku.clone();
        done(self.submit(&sku, Change::Restock(restock)).await?, |outcome| match outcome {
            Outcome::Restocked(adjustment) => Some(adjustment),
            _ => None,
        })
    }

    /// Creates a product, or resets the one that exists, if `may_reset`: its orders are deleted.
    pub async fn put(&self, product: ProductRequest, may_reset: bool) -> Result<Completed<Put>, ChangeError> {
        let put = |outcome| match outcome {
            Outcome::Created(product) => Some(Put::Created(product)),
            Outcome::Reset(product) => Some(Put::Reset(product)),
            _ => None,
        };
        if let Some(made) = self.repeated(product.key.as_ref(), || change::product_put(&product)).await? {
            return done(made, put);
        }
        // A time-out of its own, since a creation that was sent may be carried out.
        let created = timeout(self.request_timeout + self.grace, self.store.create_product(&product)).await;
        match created
            .unwrap_or(Err(CommitError::Unknown(StoreError::Unavailable("no answer in time".into()))))
        {
            Ok(Creation::Created(product)) => Ok(Completed { value: Put::Created(product), replayed: false }),
            Ok(Creation::KeyTaken) => {
                let made = self.repeated(product.key.as_ref(), || change::product_put(&product)).await?;
                done(made.ok_or(ChangeError::KeyInFlight)?, put)
            }
            Ok(Creation::Exists) if !may_reset => Err(ChangeError::ResetNotAllowed),
            Ok(Creation::Exists) => {
                let sku = product.sku.clone();
                done(self.submit(&sku, Change::Reset(product)).await?, put)
            }
            Err(CommitError::NotWritten(error)) => Err(error.into()),
            Err(CommitError::Unknown(error)) => {
                tracing::error!(%error, sku = product.sku.as_str(), "the outcome of a creation is not known");
                Err(ChangeError::OutcomeUnknown)
            }
        }
    }

    /// What came of an earlier request with this key; `None` where there was none.
    async fn repeated(
        &self,
        key: Option<&IdempotencyKey>,
        request: impl FnOnce() -> String,
    ) -> Result<Option<Made>, ChangeError> {
        let Some(key) = key else { return Ok(None) };
        let kept = self.in_time(self.store.kept_answers(&[key])).await?;
        kept.first().map(|kept| kept.replayed(&request())).transpose()
    }

    /// The record of the latest lock holds under which changes were made.
    pub fn holds(&self) -> &Holds {
        self.queues.section().holds()
    }

    /// Notes how many changes wait.
    pub fn measure(&self, metrics: &CheckoutMetrics) {
        let (all, most) = self.queues.waiting();
        let of = |count| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.waiting.set(of(all));
        metrics.longest_queue.set(of(most));
    }

    /// Takes no further changes, and returns when those that wait are made or refused, or at `deadline`.
    pub async fn close(&self, deadline: Instant) {
        self.queues.close(deadline).await;
        // Each has a time-out of its own.
        self.queues.section().close().await;
    }

    async fn submit(&self, sku: &Sku, change: Change) -> ChangeResult {
        let due = Instant::now() + self.request_timeout;
        let tally = Tally::begin(&self.orders, &change);
        match self.find(sku).await {
            Ok(()) => self.join_until(sku, change, due, tally).await,
            Err(error) => tally.end(Err(error)),
        }
    }

    /// Sees to it that there is such a product.
    async fn find(&self, sku: &Sku) -> Result<(), ChangeError> {
        if self.queues.has(sku) {
            return Ok(());
        }
        self.in_time(self.queues.section().find(sku)).await
    }

    async fn join_until(
        &self,
        sku: &Sku,
        change: Change,
        due: Instant,
        mut tally: Tally<'_>,
    ) -> ChangeResult {
        let (ticket, is_attached) = match self.queues.join(sku, change, due) {
            Ok(joined) => joined,
            Err(error) => return tally.end(Err(error)),
        };
        let ticket = tally.ticket(ticket);
        let result = match timeout_at(due, ticket.result()).await {
            Ok(result) => result,
            // Nothing is known of the request that it is attached to.
            Err(_) if ticket.withdraw() => {
                Err(if is_attached { ChangeError::KeyInFlight } else { ChangeError::LockTimeout })
            }
            // Its batch has begun: the result is on its way.
            Err(_) => self.late(ticket).await,
        };
        tally.end(result)
    }

    async fn in_time<T, E: Into<ChangeError>>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ChangeError> {
        match timeout(self.request_timeout, read).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(ChangeError::DependencyDown("the store did not answer in time".into())),
        }
    }

    async fn late(&self, ticket: &mut Ticket) -> ChangeResult {
        let late = timeout_at(Instant::now() + self.grace, ticket.result()).await;
        late.unwrap_or(Err(ChangeError::OutcomeUnknown))
    }
}

/// What was made, of the kind that was asked for.
fn done<T>(made: Made, value: impl FnOnce(Outcome) -> Option<T>) -> Result<Completed<T>, ChangeError> {
    // A key that was used for a request of another kind.
    let value = value(made.outcome).ok_or(ChangeError::KeyReused)?;
    Ok(Completed { value, replayed: made.replayed })
}
