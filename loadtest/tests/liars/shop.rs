//! A small shop in memory, with one lie.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use order_service::api::{Adjustment, LockEvidence, LockHold, NewOrder, Order, OrderStatus, Product, Stock};
use order_service::clock::now_ns;
use tokio::time::Instant;
use uuid::Uuid;

/// What a shop lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// All holds have the same fencing token.
    ConstantToken,
    /// The count of tokens starts again in the middle.
    TokensBeginAnew,
    /// An order is made, its answer lost, and with it its key.
    KeyIsLost,
    /// An answer is lost, and all else is as it should be.
    AnswerIsLost,
    /// A refusal is an order all the same, a little later.
    RefusalCommits,
    /// Answers differ from what is stored.
    AnswerDiffers,
    /// Two replicas have the lock at the same time.
    HoldsOverlap,
    /// One unit more is sold than there is.
    OneTooMany,
    /// An order that was confirmed is not kept.
    OrderIsLost,
    /// An order is kept that was never placed.
    OrderIsInvented,
    /// The last units are said to be sold.
    FalseSoldOut,
    /// The units of cancelled orders do not come back.
    UnitsAreKept,
    /// An order comes before one that was confirmed before it was sent.
    OrdersSwap,
    /// Reads under the shared lock are of some time ago.
    StaleLockedRead,
    /// So are plain ones.
    StaleRead,
    /// Of two that are sent at the same time with one key, both are made.
    TwinsBuyTwice,
    /// A repetition is answered with another order.
    ReplayIsAnother,
    /// A restock is done twice.
    RestockTwice,
    /// A restock that was done is not kept.
    RestockIsLost,
    /// The lock is left behind.
    LockIsLeft,
    /// Hardly anything is sold after a fault.
    NeverRecovers,
    /// An answer never comes.
    NoAnswer,
}

/// A shop with one product, and with one lie.
pub(crate) struct Shop {
    pub(crate) lie: Lie,
    pub(crate) started: Instant,
    pub(crate) state: Mutex<Shelf>,
}

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) product: Option<Product>,
    pub(crate) orders: Vec<Order>,
    pub(crate) adjustments: Vec<Adjustment>,
    /// Orders by their idempotency keys.
    pub(crate) keys: HashMap<String, Uuid>,
    pub(crate) holds: Vec<(usize, LockHold)>,
    pub(crate) token: i64,
    /// How many orders have arrived.
    pub(crate) asked: u64,
    /// A place in the history that was left out, and when: for an order that comes later.
    pub(crate) gap: Option<(Order, u64)>,
    /// What the stock was, from time to time.
    pub(crate) past: Vec<(Instant, Stock)>,
    pub(crate) has_lied: bool,
}

/// One replica of it.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) number: usize,
    pub(crate) shop: Arc<Shop>,
}

impl Replica {
    pub(crate) fn name(&self) -> String {
        format!("replica-{}", self.number + 1)
    }

    pub(crate) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shop.state.lock().expect("no holder of it panics")
    }

    pub(crate) fn lies(&self, lie: Lie) -> bool {
        self.shop.lie == lie
    }
}

impl Shelf {
    pub(crate) fn product(&mut self) -> &mut Product {
        self.product.as_mut().expect("it was made")
    }

    /// A hold of the lock by a replica, from now to now.
    pub(crate) fn hold(&mut self, replica: &Replica, version: Option<i64>) -> i64 {
        self.token += 1;
        if replica.lies(Lie::TokensBeginAnew) && self.token == 60 {
            self.token = 1;
        }
        let token = if replica.lies(Lie::ConstantToken) { 7 } else { self.token };
        let mut acquired_ns = now_ns();
        if replica.lies(Lie::HoldsOverlap)
            && self.token % 40 == 0
            && let Some((number, last)) = self.holds.last()
            && *number != replica.number
        {
            acquired_ns = last.acquired_ns + 1;
        }
        let hold = LockHold {
            sku: self.product().sku.clone(),
            fencing_token: Some(token),
            asked_ns: acquired_ns,
            acquired_ns,
            released_ns: Some(now_ns()),
            written: version.map(|version| [version, version]).into_iter().collect(),
            stale: 0,
            lost: false,
        };
        self.holds.push((replica.number, hold));
        token
    }

    pub(crate) fn sell(&mut self, replica: &Replica, request: &NewOrder, units: i64) -> Order {
        let (before, version) = (self.product().stock, self.product().version + 1);
        let token = self.hold(replica, Some(version));
        let order = Order {
            id: Uuid::now_v7(),
            sku: request.sku.clone(),
            buyer: request.buyer.clone(),
            quantity: request.quantity,
            status: OrderStatus::Confirmed,
            pay_by: None,
            stock_before: before,
            stock_after: before - units,
            version,
            lock: LockEvidence { strategy: "redis".into(), fencing_token: Some(token) },
            replica: replica.name(),
            created_at: jiff::Timestamp::now(),
        };
        (self.product().stock, self.product().version) = (before - units, version);
        self.orders.push(order.clone());
        order
    }

    pub(crate) fn adjust(&mut self, delta: i64, reason: String) -> Adjustment {
        let version = self.product().version + 1;
        (self.product().stock, self.product().version) = (self.product().stock + delta, version);
        let adjustment = Adjustment {
            id: Uuid::now_v7(),
            sku: self.product().sku.clone(),
            delta,
            reason,
            version,
            created_at: jiff::Timestamp::now(),
        };
        self.adjustments.push(adjustment.clone());
        adjustment
    }

    pub(crate) fn stock(&mut self) -> Stock {
        let Product { sku, stock, version, .. } = self.product().clone();
        Stock { sku, stock, version, as_of: jiff::Timestamp::now() }
    }
}
