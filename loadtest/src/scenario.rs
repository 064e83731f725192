//! The load of a run.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

/// A load. The same seed makes the same orders; how they interleave is up to the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// How many buyers order at the same time; each waits for an answer before its next order.
    pub buyers: usize,
    /// When the run ends.
    pub amount: Amount,
    /// Orders per second to intend (open loop); `None`: each buyer as fast as it is answered (closed loop).
    pub rate: Option<f64>,
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Units per order, drawn evenly.
    pub quantity: RangeInclusive<i64>,
    /// The share of confirmed orders that is sent again with the same idempotency key.
    pub replays: f64,
    /// The share of orders that is sent twice at the same time, to two replicas, with the same idempotency
    /// key.
    pub twins: f64,
    /// The share of confirmed orders that is cancelled.
    pub cancels: f64,
    /// The share of orders that are paid, of those that have to be.
    pub payers: f64,
    /// How long after its order a payer pays, at the most; drawn evenly.
    pub pay_within: Duration,
    /// The share of attempts after which as many units are put in stock as they asked for.
    pub restocks: f64,
    /// The share of attempts after which the buyer reads the stock; every second time under a shared lock.
    pub reads: f64,
    /// How long the shop puts more units in stock whenever few are left, so that there is always something to
    /// sell; what is left then is sold out.
    pub topped_up: Option<Duration>,
    /// How long a buyer waits for an answer before the outcome of its order counts as unknown.
    pub timeout: Duration,
    /// What the quantities and replays are drawn from.
    pub seed: u64,
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// After this many orders.
    Orders(u64),
    /// After this time, from the first order.
    For(Duration),
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            buyers: 64,
            amount: Amount::Orders(2_000),
            rate: None,
            stock: 1_000,
            quantity: 1..=1,
            replays: 0.02,
            twins: 0.01,
            cancels: 0.0,
            payers: 1.0,
            pay_within: Duration::ZERO,
            restocks: 0.0,
            reads: 0.01,
            topped_up: None,
            timeout: Duration::from_secs(10),
            seed: 1,
        }
    }
}

/// What one attempt orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Units to buy.
    pub quantity: i64,
    /// Whether it is sent again once it is confirmed.
    pub replay: bool,
    /// Whether it is cancelled once it is confirmed.
    pub cancel: bool,
    /// Whether as many units are put in stock afterwards.
    pub restock: bool,
    /// Whether the buyer reads the stock afterwards.
    pub read: bool,
    /// Whether it does so under a shared lock.
    pub locked: bool,
    /// Whether it is sent twice at the same time.
    pub twin: bool,
    /// How long after it is placed it is paid, if it has to be; `None`: never.
    pub pay_after: Option<Duration>,
}

impl Scenario {
    /// What attempt `index` orders: the same for the same seed, whichever buyer sends it and when.
    pub fn draw(&self, index: u64) -> Draw {
        // One is created for each attempt, so that has to be quick.
        let mut random =
            Xoshiro256PlusPlus::seed_from_u64(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let quantity = random.random_range(self.quantity.clone());
        let mut happens = |share: f64| random.random_bool(share.clamp(0.0, 1.0));
        Draw {
            quantity,
            replay: happens(self.replays),
            cancel: happens(self.cancels),
            restock: happens(self.restocks),
            read: happens(self.reads),
            locked: happens(0.5),
            twin: happens(self.twins),
            pay_after: happens(self.payers).then(|| self.pay_within.mul_f64(random.random())),
        }
    }

    /// Orders there will be, where that is known beforehand.
    pub fn orders(&self) -> Option<u64> {
        match self.amount {
            Amount::Orders(orders) => Some(orders),
            Amount::For(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_orders() {
        let scenario = Scenario { quantity: 1..=3, replays: 0.5, ..Scenario::default() };
        let other = Scenario { seed: 2, ..scenario.clone() };
        let orders = |scenario: &Scenario| (0..100).map(|i| scenario.draw(i)).collect::<Vec<_>>();
        assert_eq!(orders(&scenario), orders(&scenario));
        assert_ne!(orders(&scenario), orders(&other));
        let quantities: std::collections::BTreeSet<_> =
            orders(&scenario).iter().map(|draw| draw.quantity).collect();
        assert_eq!(quantities, (1..=3).collect());
    }
}
