//! The end of orders that are not paid in time.
//!
//! Every replica looks for them, and ends them as all changes of stock are made: under the lock, with the
//! guard. That the order still awaits its payment, and that its time is over, is decided by the commit, by
//! the database's clock; so it does not matter how many replicas try, or which of them crashes meanwhile.
//! Usually only the replica that took the order tries; the others leave it a [grace](GRACE).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Checkout;
use super::tally::Tally;
use crate::api::Order;
use crate::change::{Change, ChangeError};
use crate::order::Sku;

/// How long the replica that took an order has the time to end it, before others do.
const GRACE: Duration = Duration::from_secs(1);

/// The longest time from one look to the next: orders that other replicas take may have to be paid sooner
/// than all that are known.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The same for a replica whose own orders need not be paid: orders of others, or of the time before, may.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// The most orders that are found by one look.
const TOGETHER: u32 = 512;

/// The least time between two warnings.
const WARNED: Duration = Duration::from_secs(30);

impl Checkout {
    /// Ends the orders that are not paid in time, for as long as the future is polled. When it is dropped,
    /// what has begun goes on.
    pub async fn expire_unpaid(&self) {
        // A product whose lock cannot be had does not keep the orders of others.
        let (mut under_way, mut busy) = (FuturesUnordered::new(), HashSet::new());
        let mut warnings = Warnings::default();
        loop {
            let pause = match self.overdue(&busy).await {
                Ok((overdue, pause)) => {
                    for (sku, orders) in overdue {
                        busy.insert(sku.clone());
                        under_way.push(self.expire_all(sku, orders));
                    }
                    pause
                }
                Err(error) => {
                    warnings.warn(&error);
                    LONGEST_PAUSE
                }
            };
            // Jitter, so that replicas which look for the orders of another do not do so at the same moment.
            let jitter = rand::rng().random_range(1.0..1.1);
            let deadline = Instant::now() + pause.mul_f64(jitter);
            while let Ok(Some((sku, result))) = timeout_at(deadline, under_way.next()).await {
                busy.remove(&sku);
                result.unwrap_or_else(|error| warnings.warn(&error));
            }
            sleep_until(deadline).await;
        }
    }

    /// The orders that are to be ended, by product, but for those of `busy` products; and how long it is
    /// until there may be others.
    async fn overdue(
        &self,
        busy: &HashSet<Sku>,
    ) -> Result<(HashMap<Sku, Vec<Order>>, Duration), ChangeError> {
        let busy: Vec<_> = busy.iter().cloned().collect();
        let found = self.in_time(self.store.overdue(&self.replica, GRACE, &busy, TOGETHER)).await?;
        let is_all = found.len() < TOGETHER as usize;
        let mut by_product: HashMap<_, Vec<_>> = HashMap::new();
        for order in found {
            let sku = Sku::parse(&order.sku).map_err(ChangeError::DependencyDown)?;
            by_product.entry(sku).or_default().push(order);
        }
        if !is_all {
            return Ok((by_product, SHORTEST_PAUSE));
        }
        let next = self.in_time(self.store.next_overdue()).await?;
        let longest = self.payment_window.map_or(IDLE_PAUSE, |window| window.min(LONGEST_PAUSE));
        // One that is overdue already is being ended, or another replica has the time to do it.
        let next = next.map(|next| if next.is_zero() { GRACE / 4 } else { next });
        let pause = next.unwrap_or(longest).clamp(SHORTEST_PAUSE, longest.max(SHORTEST_PAUSE));
        Ok((by_product, pause))
    }

    /// Ends orders of one product; where that fails, waits before it may be tried again.
    async fn expire_all(&self, sku: Sku, orders: Vec<Order>) -> (Sku, Result<(), ChangeError>) {
        let due = Instant::now() + self.request_timeout;
        let expire = |order| {
            let change = Change::Expiry(order);
            let tally = Tally::begin(&self.orders, &change);
            self.join_until(&sku, change, due, tally)
        };
        let ended = join_all(orders.into_iter().map(expire)).await;
        let failed = ended.into_iter().filter_map(Result::err).find(|error| !is_over(error));
        if failed.is_some() {
            sleep(LONGEST_PAUSE).await;
        }
        (sku, failed.map_or(Ok(()), Err))
    }
}

/// Whether the order has ended otherwise, or will be ended by another replica.
fn is_over(error: &ChangeError) -> bool {
    matches!(
        error,
        ChangeError::NotPayable(..)
            | ChangeError::NoSuchOrder(_)
            | ChangeError::NoSuchProduct(_)
            | ChangeError::ShuttingDown
    )
}

/// Warnings, of which there are few however long something fails.
#[derive(Default)]
struct Warnings {
    last: Option<Instant>,
}

impl Warnings {
    fn warn(&mut self, error: &ChangeError) {
        if self.last.is_none_or(|last| last.elapsed() >= WARNED) {
            self.last = Some(Instant::now());
            tracing::warn!(%error, "orders that were not paid in time cannot be ended now");
        }
    }
}
