//! Orders that have to be paid.

use jiff::{SignedDuration, Timestamp};
use order_service::api::{Adjustment, OrderStatus};
use uuid::Uuid;

use super::{STOCK, assert_caught, failed, good};
use crate::attempt::Outcome;
use crate::evidence::{Database, Evidence};
use crate::side_operation::{SideAction, SideOperation, SideOutcome};
use crate::verdict::CheckName;

fn adjustment(reason: String, delta: i64, number: i64) -> Adjustment {
    Adjustment {
        id: Uuid::from_u128(100 + number as u128),
        sku: "hair-dryer".into(),
        delta,
        reason,
        version: STOCK + number,
        created_at: moment(),
    }
}

fn moment() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// All orders are reservations: the first is paid, the second expired, the third cancelled, the fourth paid
/// and then cancelled, and the fifth awaits its payment.
fn reserve(evidence: &mut Evidence, database: &mut Database) {
    let pay_by = Some(moment() + SignedDuration::from_secs(60));
    for order in &mut database.orders {
        order.pay_by = pay_by;
        order.status = OrderStatus::AwaitingPayment;
    }
    for attempt in &mut evidence.attempts {
        if let Outcome::Sold(sale) = &mut attempt.outcome {
            sale.pay_by = pay_by;
        }
    }
    let ids: Vec<_> = database.orders.iter().map(|order| order.id).collect();
    let pay = |order: Uuid| SideAction::Pay { order };
    let cancel = |order: Uuid| SideAction::Cancel { order };
    for (number, (what, order, delta, status, action)) in [
        ("paid", 0, 0, OrderStatus::Confirmed, Some(pay(ids[0]))),
        ("expired", 1, 1, OrderStatus::Expired, None),
        ("cancelled", 2, 1, OrderStatus::Cancelled, Some(cancel(ids[2]))),
        ("paid", 3, 0, OrderStatus::Confirmed, Some(pay(ids[3]))),
        ("cancelled", 3, 1, OrderStatus::Cancelled, Some(cancel(ids[3]))),
    ]
    .into_iter()
    .enumerate()
    {
        let number = number as i64 + 1;
        database.orders[order].status = status;
        database.adjustments.push(adjustment(format!("{what} {}", ids[order]), delta, number));
        let (sent, received) = (1_000 * number as u64, 1_000 * number as u64 + 1);
        let operation = |action| SideOperation { action, sent, received, outcome: SideOutcome::Done };
        evidence.side_operations.extend(action.map(operation));
    }
    let audit = &mut database.audit;
    (audit.stock, audit.version, audit.units_sold, audit.units_reserved) = (3, STOCK + 5, 1, 1);
}

fn failing(spoil: impl FnOnce(&mut Evidence, &mut Database)) -> Vec<CheckName> {
    let mut evidence = good();
    let mut database = evidence.database.clone().unwrap();
    reserve(&mut evidence, &mut database);
    spoil(&mut evidence, &mut database);
    evidence.database = Ok(database);
    failed(&evidence)
}

#[test]
fn reservations_that_are_paid_cancelled_and_expired_pass() {
    assert_eq!(failing(|_, _| {}), []);
}

#[test]
fn what_goes_wrong_with_reservations_is_seen() {
    for (what, by, spoil) in [
        (
            "paid and expired",
            CheckName::ReservationsSettled,
            (|_, database| {
                let id = database.orders[0].id;
                database.adjustments.push(adjustment(format!("expired {id}"), 1, 6));
                (database.audit.version, database.audit.stock) = (STOCK + 6, 4);
            }) as fn(&mut Evidence, &mut Database),
        ),
        ("expired, by its status only", CheckName::ReservationsSettled, |_, database| {
            database.orders[4].status = OrderStatus::Expired;
        }),
        ("paid, by its status only", CheckName::ReservationsSettled, |_, database| {
            database.orders[4].status = OrderStatus::Confirmed;
        }),
        ("expired, and its units are kept", CheckName::ReservationsSettled, |_, database| {
            database.adjustments[1].delta = 0;
        }),
        ("expired twice", CheckName::ReservationsSettled, |_, database| {
            let again = Adjustment { version: STOCK + 6, ..database.adjustments[1].clone() };
            database.adjustments.push(again);
        }),
        ("paid and gone", CheckName::AdjustmentsKept, |_, database| {
            database.adjustments.remove(0);
        }),
        ("refused and paid", CheckName::AdjustmentsKept, |evidence, _| {
            let (available, version) = (0, STOCK);
            evidence.side_operations[0].outcome = SideOutcome::SoldOut { available, version };
        }),
        ("refused for want of what was there", CheckName::Linearizable, |evidence, _| {
            let operation = SideOperation {
                action: SideAction::Pay { order: Uuid::from_u128(5) },
                sent: 9_000,
                received: 9_001,
                outcome: SideOutcome::SoldOut { available: 0, version: STOCK },
            };
            evidence.side_operations.push(operation);
        }),
        ("never ended", CheckName::ReservationsSettled, |_, database| {
            database.read_at = moment() + SignedDuration::from_secs(90);
        }),
        ("reserved beyond the supply", CheckName::NotOversold, |_, database| {
            let more = order_service::api::Order {
                id: Uuid::from_u128(50),
                version: STOCK + 6,
                stock_before: 9,
                stock_after: 4,
                quantity: 5,
                ..database.orders[4].clone()
            };
            database.orders.push(more);
            database.audit.units_reserved = 6;
        }),
        ("oversold, and put right later", CheckName::NotOversold, |evidence, database| {
            evidence.initial_stock = STOCK - 1;
            database.audit.supply = STOCK - 1;
        }),
        ("reservations that the audit does not have", CheckName::NotOversold, |_, database| {
            database.audit.units_reserved = 0;
        }),
    ] {
        let failing = failing(spoil);
        assert!(failing.contains(&by), "{what}: {by} did not notice; {failing:?} did");
    }
    // Also where nothing had to be paid.
    assert_caught(CheckName::AdjustmentsKept, |_, database| {
        let id = database.orders[0].id;
        database.adjustments.push(adjustment(format!("expired {id}"), 1, 1));
    });
}
