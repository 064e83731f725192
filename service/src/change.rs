//! What the checkout, the critical section and the commit say to each other: changes of a product's stock, and what
//! comes of them.

use std::time::Duration;

use uuid::Uuid;

use crate::api::{Adjustment, Order, Product};
use crate::order::{IdempotencyKey, OrderRequest, ProductRequest, RestockRequest, Sku};

/// A change of a product's stock.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sell.
    Purchase(OrderRequest),
    /// Cancel an order, whose units go back.
    Cancellation(Order),
    /// Add units.
    Restock(RestockRequest),
    /// Reset the product: its orders are deleted.
    Reset(ProductRequest),
}

impl Change {
    /// The key by which a repetition of the change is known.
    pub fn key(&self) -> Option<&IdempotencyKey> {
        match self {
            Self::Purchase(order) => order.key.as_ref(),
            Self::Cancellation(_) | Self::Restock(_) | Self::Reset(_) => None,
        }
    }
}

/// What a change that was made came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The order is confirmed.
    Ordered(Order),
    /// The order was confirmed before.
    Replayed(Order),
    /// The order is cancelled.
    Cancelled(Order),
    /// The units are added.
    Restocked(Adjustment),
    /// The product is reset.
    Reset(Product),
}

/// What came of a change.
pub type ChangeResult = Result<Outcome, ChangeError>;

/// Why a change was not made. Only [`OutcomeUnknown`](Self::OutcomeUnknown) leaves it open whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
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
        "the commit's fate is not known; send the request again with the same idempotency key to find out"
    )]
    OutcomeUnknown,
}

impl ChangeError {
    /// Too much to do, for a second or so.
    pub fn overloaded(reason: &'static str) -> Self {
        Self::Overloaded { reason, retry_after: Duration::from_secs(1) }
    }
}
