//! The record of an attempt to buy.

use uuid::Uuid;

/// One order as a buyer saw it, each time that it was sent. Times are nanoseconds from the start of the run, by one monotonic clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Which attempt of the run.
    pub index: u64,
    /// Whether it repeated the attempt of the same index, with the same idempotency key.
    pub replay: bool,
    /// Whether the attempt and its repetition were sent at the same time.
    pub twin: bool,
    /// Units asked for.
    pub quantity: i64,
    /// When it was due.
    pub intended: u64,
    /// When its buyer could send it: the later of `intended` and the answer to the buyer's last attempt.
    pub free: u64,
    /// When it was sent.
    pub sent: u64,
    /// When the answer was there, or hope was given up.
    pub received: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 201: the order is confirmed.
    Sold(Sale),
    /// 409 `insufficient-stock`: definitely nothing was written.
    SoldOut {
        /// Units there were.
        available: i64,
        /// The version of the product at which there were so many.
        version: i64,
    },
    /// Another definite refusal: 4xx, 503 `not_executed`, or the connection was refused.
    Failed {
        /// The problem's slug, or what happened.
        why: String,
    },
    /// An answer that leaves open whether something was written: 504, another 5xx.
    Unknown {
        /// What it said.
        why: String,
    },
    /// The connection broke; whether something was written is not known.
    Broken {
        /// What happened.
        why: String,
    },
    /// No answer came in time; whether something was written is not known.
    Unanswered,
}

/// What a confirmed order said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The order.
    pub id: Uuid,
    /// The stock it read.
    pub stock_before: i64,
    /// The stock it wrote.
    pub stock_after: i64,
    /// The version it made.
    pub version: i64,
    /// The fencing token of its hold.
    pub token: Option<i64>,
    /// The replica that wrote it.
    pub replica: String,
    /// Whether the answer was marked as a repetition.
    pub replayed: bool,
}

impl Attempt {
    /// The name under which attempt `index` buys. It is in the order, so an order whose answer was lost can be
    /// told by it.
    pub fn buyer(index: u64) -> String {
        format!("attempt-{index}")
    }

    /// The attempt that bought under this name.
    pub fn index_of(buyer: &str) -> Option<u64> {
        buyer.strip_prefix("attempt-")?.parse().ok()
    }

    /// What became of each order when it was first sent: repetitions are left out, except where two were sent at the same
    /// time; of these, the one that bought.
    pub fn firsts(attempts: &[Self]) -> impl Iterator<Item = &Self> + Clone {
        attempts.iter().enumerate().filter_map(|(place, attempt)| {
            if attempt.replay {
                return None;
            }
            let twin = attempts.get(place + 1).filter(|next| next.index == attempt.index && next.twin);
            Some(twin.filter(|twin| attempt.sale().is_none() && twin.sale().is_some()).unwrap_or(attempt))
        })
    }

    /// The sale, if it is one.
    pub fn sale(&self) -> Option<&Sale> {
        match &self.outcome {
            Outcome::Sold(sale) => Some(sale),
            _ => None,
        }
    }

    /// Whether it is not known what was written.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. } | Outcome::Broken { .. } | Outcome::Unanswered)
    }

    /// Whether nothing was written, for certain.
    pub fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::SoldOut { .. } | Outcome::Failed { .. })
    }
}
