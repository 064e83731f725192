//! Lost updates: two orders that read the same stock at the same version.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Sale};
use crate::lost_updates::Readers;

/// Two orders that read the same stock, so that one of them overwrote the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counterexample {
    /// The stock that both read, in units.
    pub read: i64,
    /// The version of the product that both made.
    pub version: i64,
    /// The two orders.
    pub readers: [Reader; 2],
}

/// One of two orders that read the same stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reader {
    /// The name of its buyer.
    pub buyer: String,
    /// The units that it bought.
    pub quantity: i64,
    /// The stock that it wrote, in units.
    pub wrote: i64,
    /// The replica that wrote it.
    pub replica: String,
    /// The fencing token of its hold.
    pub token: Option<i64>,
    /// When it was sent, in milliseconds after the first order.
    pub sent_ms: f64,
    /// When it was confirmed, in milliseconds after the first order.
    pub confirmed_ms: f64,
}

/// How many updates were lost, and the first of them.
pub(super) fn updates(attempts: &[Attempt]) -> (u64, Option<Counterexample>) {
    let mut readers = Readers::default();
    let sales = Attempt::firsts(attempts);
    for (attempt, sale) in sales.filter_map(|attempt| Some((attempt, attempt.sale()?))) {
        readers.add(sale.version, sale.stock_before, (attempt, sale));
    }
    let counterexample = readers.first_duplicates().map(|first| {
        // In the order of the database, so that all reports name the same two.
        let mut both = first.readers.to_vec();
        both.sort_by_key(|(_, sale)| sale.id);
        let readers = [reader(both[0]), reader(both[1])];
        Counterexample { read: first.stock, version: first.version, readers }
    });
    (readers.lost_updates(), counterexample)
}

/// How many sales are remembered to find the one that another has overwritten: more than are answered within
/// the longest time between the two answers.
const REMEMBERED: usize = 4_096;

/// Finds the first lost update while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct FirstLost {
    /// The latest sales, by the version that they made and the stock that they read.
    latest: HashMap<(i64, i64), Reader>,
    order: VecDeque<(i64, i64)>,
    found: Option<Counterexample>,
}

impl FirstLost {
    /// Adds a confirmed order.
    pub(crate) fn add(&mut self, attempt: &Attempt, sale: &Sale) {
        if self.found.is_some() {
            return;
        }
        let key = (sale.version, sale.stock_before);
        if let Some(first) = self.latest.remove(&key) {
            let (readers, read) = ([first, reader((attempt, sale))], sale.stock_before);
            *self = Self::default();
            self.found = Some(Counterexample { read, version: sale.version, readers });
            return;
        }
        self.latest.insert(key, reader((attempt, sale)));
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.latest.remove(&oldest);
        }
    }

    /// Two orders that read the same, once there were any.
    pub(crate) fn found(&self) -> Option<&Counterexample> {
        self.found.as_ref()
    }
}

fn reader((attempt, sale): (&Attempt, &Sale)) -> Reader {
    Reader {
        buyer: Attempt::buyer(attempt.index),
        quantity: attempt.quantity,
        wrote: sale.stock_after,
        replica: sale.replica.clone(),
        token: sale.token,
        sent_ms: attempt.sent as f64 / 1e6,
        confirmed_ms: attempt.received as f64 / 1e6,
    }
}
