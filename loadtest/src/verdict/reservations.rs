//! Orders that had to be paid: each ended once, and its units are with its buyer or back.

use std::collections::HashMap;

use jiff::SignedDuration;
use order_service::api::{Adjustment, Order, OrderStatus};
use order_service::order::placed_status;
use uuid::Uuid;

use super::judgement::Judgement::{self, NotApplicable};
use crate::evidence::{Database, Evidence};
use crate::side_operation::SideOutcome;

/// How long an order may still await its payment when its time is over: the replica that took it may have to
/// be missed first.
const SLACK: SignedDuration = SignedDuration::from_secs(10);

/// What an adjustment has done to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    Paid,
    Expired,
    Cancelled,
}

/// The order that an adjustment has changed, and how; `None` for restocks.
pub(super) fn change_of(adjustment: &Adjustment) -> Option<(Uuid, End)> {
    let (what, order) = adjustment.reason.split_once(' ')?;
    let end = match what {
        "paid" => End::Paid,
        "expired" => End::Expired,
        "cancelled" => End::Cancelled,
        _ => return None,
    };
    Some((Uuid::try_parse(order).ok()?, end))
}

/// Every order that had to be paid has the status that its history leaves, and each step of that has moved
/// the units which it should: what was paid did not expire, what expired is back, and neither happened twice.
pub(super) fn reservations_settled(evidence: &Evidence, database: &Database) -> Judgement {
    let reserved: Vec<_> = database.orders.iter().filter(|order| order.pay_by.is_some()).collect();
    if reserved.is_empty() {
        return NotApplicable("orders did not have to be paid".into());
    }
    let mut changes: HashMap<Uuid, Vec<(End, &Adjustment)>> = HashMap::new();
    for adjustment in &database.adjustments {
        if let Some((order, end)) = change_of(adjustment) {
            changes.entry(order).or_default().push((end, adjustment));
        }
    }
    let mut wrong = Vec::new();
    for order in &reserved {
        let mut changes = changes.remove(&order.id).unwrap_or_default();
        changes.sort_by_key(|(_, adjustment)| adjustment.version);
        wrong.extend(contradiction(order, &changes, database));
    }
    let count = |status| reserved.iter().filter(|order| order.status == status).count();
    let (paid, expired) = (count(OrderStatus::Confirmed), count(OrderStatus::Expired));
    let (cancelled, open) = (count(OrderStatus::Cancelled), count(OrderStatus::AwaitingPayment));
    let turned_away = evidence.side_operations.iter();
    let turned_away =
        turned_away.filter(|operation| matches!(operation.outcome, SideOutcome::SoldOut { .. })).count();
    let mut detail = format!("of {} orders {paid} were paid, {expired} expired", reserved.len());
    for (number, what) in [
        (cancelled, "were cancelled"),
        (open, "still have time to be paid"),
        (turned_away, "payments came when nothing was left"),
    ] {
        if number > 0 {
            detail += &format!(", {number} {what}");
        }
    }
    Judgement::of(wrong, detail)
}

/// What an order's status, or its changes in the order of their versions, contradict.
fn contradiction(order: &Order, changes: &[(End, &Adjustment)], database: &Database) -> Option<String> {
    let buyer = &order.buyer;
    let mut status = placed_status(order);
    let mut taken = order.stock_before - order.stock_after;
    for (end, adjustment) in changes {
        let (next, taken_then) = match (status, end) {
            (OrderStatus::AwaitingPayment, End::Paid) => (OrderStatus::Confirmed, order.quantity),
            (OrderStatus::AwaitingPayment, End::Expired) => (OrderStatus::Expired, 0),
            (OrderStatus::AwaitingPayment | OrderStatus::Confirmed, End::Cancelled) => {
                (OrderStatus::Cancelled, 0)
            }
            (before, end) => {
                let (before, end) = (in_words(before), format!("{end:?}").to_lowercase());
                return Some(format!("{buyer}'s order {before} when it was {end}"));
            }
        };
        let moved = taken - taken_then;
        if adjustment.delta != moved {
            return Some(format!(
                "{:?} moved {} units of {buyer}'s order, and should have moved {moved}",
                adjustment.reason, adjustment.delta
            ));
        }
        (status, taken) = (next, taken_then);
    }
    if order.status != status {
        let (says, follows) = (in_words(order.status), in_words(status));
        return Some(format!("{buyer}'s order {says}, and {follows} by its history"));
    }
    let late = order.pay_by.map(|pay_by| database.read_at.duration_since(pay_by))?;
    (order.status == OrderStatus::AwaitingPayment && late > SLACK)
        .then(|| format!("{buyer}'s order awaits its payment {:.0} s after its time", late.as_secs_f64()))
}

fn in_words(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::AwaitingPayment => "awaited its payment",
        OrderStatus::Confirmed => "was confirmed",
        OrderStatus::Cancelled => "was cancelled",
        OrderStatus::Expired => "was expired",
    }
}
