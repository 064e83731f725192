//! Payments: what became of the orders of a run that had to be paid, and who was turned away meanwhile.

use order_service::api::OrderStatus;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Outcome};
use crate::evidence::Evidence;
use crate::side_operation::{SideAction, SideOutcome};

/// What became of the orders that had to be paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Payments {
    /// Orders that had to be paid.
    pub orders: u64,
    /// Those that were.
    pub paid: u64,
    /// Those that were not, in time.
    pub expired: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Payments that were refused for want of stock.
    pub turned_away: u64,
    /// Orders that were refused for want of stock before the last units of expired orders came back.
    pub turned_away_too_soon: u64,
    /// When the last payment was answered, in milliseconds after the first attempt; absent where none was.
    pub last_paid_ms: Option<f64>,
}

impl Payments {
    /// The figures of a run; `None` where orders did not have to be paid.
    pub fn of(evidence: &Evidence) -> Option<Self> {
        let database = evidence.database.as_ref().ok()?;
        let orders = || database.orders.iter().filter(|order| order.pay_by.is_some());
        orders().next()?;
        let with = |status| orders().filter(|order| order.status == status).count() as u64;
        let returns = database.adjustments.iter().filter(|a| a.delta > 0 && a.reason.starts_with("expired "));
        let last_return = returns.map(|adjustment| adjustment.version).max().unwrap_or_default();
        let is_too_soon = |attempt: &&Attempt| match attempt.outcome {
            Outcome::SoldOut { version, .. } => version < last_return,
            _ => false,
        };
        let payments = evidence.side_operations.iter();
        let payments = payments.filter(|operation| matches!(operation.action, SideAction::Pay { .. }));
        let refused = |outcome: &SideOutcome| matches!(outcome, SideOutcome::SoldOut { .. });
        let last = payments.clone().filter(|operation| operation.is_done()).map(|paid| paid.received).max();
        Some(Self {
            orders: orders().count() as u64,
            paid: with(OrderStatus::Confirmed),
            expired: with(OrderStatus::Expired),
            cancelled: with(OrderStatus::Cancelled),
            turned_away: payments.filter(|operation| refused(&operation.outcome)).count() as u64,
            turned_away_too_soon: Attempt::firsts(&evidence.attempts).filter(is_too_soon).count() as u64,
            last_paid_ms: last.map(|last| last as f64 / 1e6),
        })
    }

    /// The figures in words.
    pub fn in_words(&self) -> String {
        let Self { orders, paid, expired, cancelled, turned_away, turned_away_too_soon, .. } = self;
        let mut words = format!("of {orders} orders {paid} were paid and {expired} expired");
        for (number, what) in [
            (cancelled, "were cancelled"),
            (turned_away, "payments came when nothing was left"),
            (turned_away_too_soon, "buyers were turned away before units came back"),
        ] {
            if *number > 0 {
                words += &format!("; {number} {what}");
            }
        }
        words
    }
}
