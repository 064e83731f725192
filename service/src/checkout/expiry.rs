//! The end of orders that are not paid in time.
//!
//! Every replica looks for them, and ends them as all changes of stock are made: under the lock, with the
//! guard. That the order still awaits its payment, and that its time is over, is decided by the commit, by
//! the database's clock; so it does not matter how many replicas try, or which of them crashes meanwhile.
//! Usually only the replica that took the order tries; the others leave it a [grace](GRACE).

use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt as _;
use tokio::time::{Instant, sleep};

use super::Checkout;
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

/// The most orders that are ended together.
const TOGETHER: u32 = 512;

impl Checkout {
    /// Ends the orders that are not paid in time, for as long as the future is polled. When it is dropped,
    /// what has begun goes on.
    pub async fn expire_unpaid(&self) {
        let mut is_failing = false;
        loop {
            let pause = match self.expire_overdue().await {
                Ok(pause) => {
                    is_failing = false;
                    pause
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "orders that are not paid in time cannot be ended now");
                    }
                    LONGEST_PAUSE
                }
            };
            // Jitter, so that replicas which look for the orders of another do not do so at the same moment.
            let jitter = rand::rng().random_range(1.0..1.1);
            sleep(pause.mul_f64(jitter)).await;
        }
    }

    /// Ends those whose time is over, and returns how long it is until there may be others.
    async fn expire_overdue(&self) -> Result<Duration, ChangeError> {
        loop {
            let overdue = self.in_time(self.store.overdue(&self.replica, GRACE, TOGETHER)).await?;
            let is_all = overdue.len() < TOGETHER as usize;
            let ended = join_all(overdue.into_iter().map(|order| self.expire(order))).await;
            let failed = ended.into_iter().filter_map(Result::err).find(|error| !is_over(error));
            if let Some(error) = failed {
                return Err(error);
            }
            if is_all {
                break;
            }
        }
        let next = self.in_time(self.store.next_overdue()).await?;
        let longest = self.payment_window.map_or(IDLE_PAUSE, |window| window.min(LONGEST_PAUSE));
        // Of another replica's order that is overdue, the time is nothing, and the grace is not over.
        let next = next.map(|next| if next.is_zero() { GRACE / 4 } else { next });
        Ok(next.unwrap_or(longest).clamp(SHORTEST_PAUSE, longest.max(SHORTEST_PAUSE)))
    }

    async fn expire(&self, order: Order) -> Result<(), ChangeError> {
        let sku = Sku::parse(&order.sku).map_err(ChangeError::DependencyDown)?;
        let due = Instant::now() + self.request_timeout;
        self.join_until(&sku, Change::Expiry(order), due).await.map(drop)
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
