//! The record of an attempt to buy.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::problem::ProblemKind;

/// One sending of an order, as its buyer saw it. Times are nanoseconds from the start of the run, by one
/// monotonic clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The number of the order in the run, from 0. Repetitions have that of their original.
    pub index: u64,
    /// Whether it repeats an attempt of the same index, with the same idempotency key.
    pub replay: bool,
    /// Whether the attempt and its repetition were sent at the same time.
    pub twin: bool,
    /// Units asked for.
    pub quantity: i64,
    /// When it was due by the pacer.
    pub intended: u64,
    /// When its buyer could send it: the later of `intended` and the answer to the buyer's last attempt.
    pub free: u64,
    /// When it was sent.
    pub sent: u64,
    /// When the answer was there, or its time was over.
    pub received: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 201: the order is confirmed, or reserved until it is paid.
    Sold(Sale),
    /// 409 `insufficient-stock`: definitely nothing was written.
    SoldOut {
        /// Units in stock.
        available: i64,
        /// The version of the product at which there were so many.
        version: i64,
    },
    /// Another definite refusal: 4xx, 503 `not_executed`, or the connection was refused.
    Failed {
        /// The reason that the service gave, or that the request did not leave.
        why: FailureReason,
    },
    /// An answer that leaves open whether something was written: 504, another 5xx.
    Unknown {
        /// What the answer says.
        why: FailureReason,
    },
    /// The connection broke; whether something was written is not known.
    Broken {
        /// What the connection reported.
        why: String,
    },
    /// No answer came in time; whether something was written is not known.
    Unanswered,
}

/// The outcomes that reports distinguish, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeGroup {
    /// The order was confirmed.
    Accepted,
    /// It was definitely refused, for another reason than want of stock.
    Failed,
    /// It was refused for want of stock.
    SoldOut,
    /// No answer says what became of it.
    Unknown,
}

impl OutcomeGroup {
    /// All groups, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Failed, Self::SoldOut, Self::Unknown];
}

impl fmt::Display for OutcomeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::SoldOut => "sold_out",
            Self::Unknown => "unknown",
        })
    }
}

/// Why an attempt is neither confirmed nor sold out. In a report it is a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FailureReason {
    /// The answer is a problem document of this kind.
    Problem(ProblemKind),
    /// The request did not leave: there was no connection, for this reason.
    NotSent(String),
    /// There was no answer in time.
    Unanswered,
    /// The connection broke, or the answer is not one that can be read: a sentence of what happened.
    Other(String),
}

/// The prefix of a request that did not leave, in a report.
const NOT_SENT: &str = "not sent: ";

/// The name of a missing answer, in a report.
const UNANSWERED: &str = "unanswered";

impl FailureReason {
    /// Whether it says nothing of the order itself.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Problem(kind) => kind.is_temporary(),
            Self::NotSent(_) => true,
            Self::Unanswered | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(kind) => kind.fmt(f),
            Self::NotSent(why) => write!(f, "{NOT_SENT}{why}"),
            Self::Unanswered => f.pad(UNANSWERED),
            Self::Other(what) => f.pad(what),
        }
    }
}

impl From<FailureReason> for String {
    fn from(reason: FailureReason) -> Self {
        reason.to_string()
    }
}

impl From<String> for FailureReason {
    fn from(text: String) -> Self {
        match text.strip_prefix(NOT_SENT) {
            Some(why) => Self::NotSent(why.into()),
            None if text == UNANSWERED => Self::Unanswered,
            // A slug is one word, and a sentence has several.
            None if text.contains(char::is_whitespace) => Self::Other(text),
            None => Self::Problem(ProblemKind::from_slug(&text)),
        }
    }
}

impl From<ProblemKind> for FailureReason {
    fn from(kind: ProblemKind) -> Self {
        Self::Problem(kind)
    }
}

impl Outcome {
    /// The group that it belongs to in reports.
    pub fn group(&self) -> OutcomeGroup {
        match self {
            Self::Sold(_) => OutcomeGroup::Accepted,
            Self::SoldOut { .. } => OutcomeGroup::SoldOut,
            Self::Failed { .. } => OutcomeGroup::Failed,
            Self::Unknown { .. } | Self::Broken { .. } | Self::Unanswered => OutcomeGroup::Unknown,
        }
    }

    /// Why it is neither a sale nor a refusal for want of stock.
    pub fn failure(&self) -> Option<FailureReason> {
        match self {
            Self::Sold(_) | Self::SoldOut { .. } => None,
            Self::Failed { why } | Self::Unknown { why } => Some(why.clone()),
            Self::Broken { why } => Some(FailureReason::Other(why.clone())),
            Self::Unanswered => Some(FailureReason::Unanswered),
        }
    }
}

/// What a confirmed order said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The id of the order.
    pub id: Uuid,
    /// The stock it read.
    pub stock_before: i64,
    /// The stock it wrote.
    pub stock_after: i64,
    /// The version of the product that it made.
    pub version: i64,
    /// The fencing token of its hold.
    pub token: Option<i64>,
    /// The replica that wrote it.
    pub replica: String,
    /// Whether the answer was marked as a repetition.
    pub replayed: bool,
    /// Until when the order has to be paid, where it has to be.
    pub pay_by: Option<Timestamp>,
}

impl Sale {
    /// How many units of an order over `quantity` it took from the stock: none, where only the payment does.
    pub fn units_taken(&self, quantity: i64) -> i64 {
        if self.pay_by.is_some() { self.stock_before - self.stock_after } else { quantity }
    }
}

impl Attempt {
    /// The name under which attempt `index` buys. It is in the order, so an order whose answer was lost can
    /// be found by it.
    pub fn buyer(index: u64) -> String {
        format!("attempt-{index}")
    }

    /// The index of the attempt that bought under this name.
    pub fn index_of(buyer: &str) -> Option<u64> {
        buyer.strip_prefix("attempt-")?.parse().ok()
    }

    /// What became of each order when it was first sent: repetitions are left out, except where two were sent
    /// at the same time; of these, the one that bought.
    pub fn firsts(attempts: &[Self]) -> impl Iterator<Item = &Self> + Clone {
        attempts.iter().enumerate().filter_map(|(place, attempt)| {
            if attempt.replay {
                return None;
            }
            let twin = attempts.get(place + 1).filter(|next| next.index == attempt.index && next.twin);
            Some(twin.filter(|twin| attempt.sale().is_none() && twin.sale().is_some()).unwrap_or(attempt))
        })
    }

    /// What the confirmation said, if the order was confirmed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_from_a_report_as_it_was_written() {
        for reason in [
            FailureReason::Problem(ProblemKind::LockTimeout),
            FailureReason::Problem(ProblemKind::Other("out-of-office".into())),
            FailureReason::NotSent("connection refused".into()),
            FailureReason::Unanswered,
            FailureReason::Other("the connection broke".into()),
        ] {
            assert_eq!(FailureReason::from(String::from(reason.clone())), reason);
        }
    }

    #[test]
    fn a_group_of_outcomes_is_written_as_it_is_shown() {
        for group in OutcomeGroup::ALL {
            assert_eq!(serde_json::to_value(group).unwrap(), group.to_string());
        }
    }
}
