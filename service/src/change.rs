//! What the checkout, the critical section and the commit say to each other: changes of a product's stock,
//! and what comes of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::api::{Adjustment, Order, OrderStatus, Product};
use crate::order::{IdempotencyKey, MAX_RESETTABLE, OrderRequest, ProductRequest, RestockRequest, Sku};

/// A change of a product's stock.
#[derive(Debug, Clone)]
pub enum Change {
    /// An order: sells units.
    Purchase(OrderRequest),
    /// Cancels an order, whose units go back into stock.
    Cancellation(Order, Option<IdempotencyKey>),
    /// Pays an order that awaits it, which takes its units unless the order has.
    Payment(Order, Option<IdempotencyKey>),
    /// Ends an order that was not paid in time; the units that were reserved for it go back into stock.
    Expiry(Order),
    /// Adds units to the stock.
    Restock(RestockRequest),
    /// Resets the product: its orders are deleted.
    Reset(ProductRequest),
}

impl Change {
    /// The key by which a repetition of the change is known. Orders have keys of their own.
    pub fn key(&self) -> Option<&IdempotencyKey> {
        match self {
            Self::Purchase(order) => order.key.as_ref(),
            Self::Cancellation(_, key) | Self::Payment(_, key) => key.as_ref(),
            Self::Expiry(_) => None,
            Self::Restock(restock) => restock.key.as_ref(),
            Self::Reset(product) => product.key.as_ref(),
        }
    }

    /// The order that it changes, as it was when that was asked for. The change is made only if the order has
    /// the same status then.
    pub fn changed_order(&self) -> Option<&Order> {
        match self {
            Self::Cancellation(order, _) | Self::Payment(order, _) | Self::Expiry(order) => Some(order),
            Self::Purchase(_) | Self::Restock(_) | Self::Reset(_) => None,
        }
    }

    /// Whether it is an order.
    pub fn is_purchase(&self) -> bool {
        matches!(self, Self::Purchase(_))
    }

    /// What is asked for, as it is kept with the answer: a repetition asks for the same.
    pub fn request(&self) -> String {
        let request = match self {
            Self::Purchase(order) => {
                let (sku, buyer) = (order.sku.as_str(), order.buyer.as_str());
                json!({"order": sku, "quantity": order.quantity.units(), "buyer": buyer})
            }
            Self::Cancellation(order, _) => return cancellation(order.id),
            Self::Payment(order, _) => return payment(order.id),
            Self::Expiry(order) => json!({ "expire": order.id }),
            Self::Restock(restock) => json!({
                "restock": restock.sku.as_str(),
                "quantity": restock.quantity.units(),
                "reason": restock.reason.as_str(),
            }),
            Self::Reset(product) => return product_put(product),
        };
        request.to_string()
    }

    /// What comes of it where its key has this answer.
    pub fn replayed(&self, kept: &KeptAnswer) -> ChangeResult {
        kept.replayed(&self.request())
    }
}

/// What is asked for by the cancellation of an order, as it is kept.
pub fn cancellation(id: Uuid) -> String {
    json!({ "cancel": id }).to_string()
}

/// What is asked for by the payment of an order, as it is kept.
pub fn payment(id: Uuid) -> String {
    json!({ "pay": id }).to_string()
}

/// What is asked for by putting a product, as it is kept: whether it is created or reset.
pub fn product_put(product: &ProductRequest) -> String {
    json!({"put": product.sku.as_str(), "name": product.name.as_str(), "stock": product.stock}).to_string()
}

/// What was answered to a change other than an order, by its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The key that the change came with.
    pub key: IdempotencyKey,
    /// What was asked for.
    pub request: String,
    /// The outcome, in JSON.
    pub answer: String,
}

impl KeptAnswer {
    /// The answer to a change that came to `outcome`, if it is to be known again.
    pub fn of(
        key: Option<&IdempotencyKey>,
        request: impl FnOnce() -> String,
        outcome: &Outcome,
    ) -> Option<Self> {
        let answer = serde_json::to_string(outcome).expect("an outcome can be written as JSON");
        key.map(|key| Self { key: key.clone(), request: request(), answer })
    }

    /// What comes of a repetition that asks for `request`.
    pub fn replayed(&self, request: &str) -> ChangeResult {
        if self.request != request {
            return Err(ChangeError::KeyReused);
        }
        let unreadable =
            |error| ChangeError::DependencyDown(format!("the kept answer cannot be read: {error}"));
        let outcome = serde_json::from_str(&self.answer).map_err(unreadable)?;
        Ok(Made { outcome, replayed: true })
    }
}

/// A change that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// What it came to.
    pub outcome: Outcome,
    /// Whether it was made before: its idempotency key had been used for the same request.
    pub replayed: bool,
}

impl From<Outcome> for Made {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, replayed: false }
    }
}

/// What a change that was made came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The order is placed: confirmed, or reserved until it is paid.
    Ordered(Order),
    /// The order is cancelled.
    Cancelled(Order),
    /// The order is paid, and so confirmed.
    Paid(Order),
    /// The order is expired.
    Expired(Order),
    /// The units are added.
    Restocked(Adjustment),
    /// The product is created.
    Created(Product),
    /// The product is reset.
    Reset(Product),
}

/// What came of a change.
pub type ChangeResult = Result<Made, ChangeError>;

/// Why a change was not made. Only [`OutcomeUnknown`](Self::OutcomeUnknown) leaves it open whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such product.
    #[error("there is no product {0}")]
    NoSuchProduct(Sku),
    /// There is no such order.
    #[error("there is no order {0}")]
    NoSuchOrder(Uuid),
    /// The order has ended before.
    #[error("order {0} {past}", past = ended(*.1))]
    NotCancellable(Uuid, OrderStatus),
    /// The order does not await its payment, or not any more.
    #[error("order {0} {past}", past = ended(*.1))]
    NotPayable(Uuid, OrderStatus),
    /// The order has another status than when the change was asked for: it is to be asked for again.
    #[error("order {0} was changed at the same moment")]
    OrderChanged(Uuid),
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
    /// A request with the same idempotency key is in flight.
    #[error("a request with the same idempotency key is in flight")]
    KeyInFlight,
    /// The lock was not free in time.
    #[error("the lock on the product was not free in time")]
    LockTimeout,
    /// Too many wait already, or the change lost the race for the stock too often.
    #[error("{reason}")]
    Overloaded {
        /// What there is too much of.
        reason: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store or the lock's backend did not do its part.
    #[error("{0}")]
    DependencyDown(String),
    /// The replica is stopping.
    #[error("this replica is stopping; send the request to another")]
    ShuttingDown,
    /// The store failed during the commit.
    #[error(
        "the commit's fate is not known; a request that had an idempotency key may be sent again with \
         the same, and is made once; without one, look for the change before it is sent again"
    )]
    OutcomeUnknown,
    /// The product exists, and this replica may not reset it.
    #[error("the product exists, and this replica has admin.allow_reset = false")]
    ResetNotAllowed,
    /// The product has more orders, or adjustments, than a reset can delete.
    #[error(
        "a reset deletes all orders and adjustments, and the product has more than {MAX_RESETTABLE} of \
         them: put another product, or have its orders moved away first"
    )]
    TooManyOrders,
}

/// What became of an order, in words.
fn ended(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::AwaitingPayment => "awaits its payment",
        OrderStatus::Confirmed => "is confirmed already",
        OrderStatus::Cancelled => "is cancelled already",
        OrderStatus::Expired => "was not paid in time",
    }
}

impl ChangeError {
    /// Too much to do, for a second or so.
    pub fn overloaded(reason: &'static str) -> Self {
        Self::Overloaded { reason, retry_after: Duration::from_secs(1) }
    }
}
