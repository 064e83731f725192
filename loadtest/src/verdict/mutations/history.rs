//! The history of the stock.

use order_service::api::Adjustment;
use uuid::Uuid;

use super::{STOCK, assert_caught, failing, good};
use crate::evidence::{Database, Evidence};
use crate::side_operation::{SideAction, SideOperation, SideOutcome};
use crate::verdict::{CheckName, checks};

/// Two hair dryers more, after the last order.
fn restock(evidence: &mut Evidence, database: &mut Database) {
    let (action, outcome) = (SideAction::Restock { reason: "more".into(), quantity: 2 }, SideOutcome::Done);
    evidence.side_operations.push(SideOperation { action, sent: 900, received: 990, outcome });
    database.adjustments.push(Adjustment {
        id: Uuid::from_u128(77),
        sku: "hair-dryer".into(),
        delta: 2,
        reason: "more".into(),
        version: STOCK + 1,
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    });
    (database.audit.supply, database.audit.stock, database.audit.version) = (STOCK + 2, 2, STOCK + 1);
}

#[test]
fn a_restock_is_part_of_the_history() {
    let failing = failing(restock);
    assert_eq!(failing, []);
    for (by, spoil) in [
        (
            CheckName::AdjustmentsKept,
            (|_, database| database.adjustments.clear()) as fn(&mut Evidence, &mut Database),
        ),
        (CheckName::AdjustmentsKept, |_, database| {
            database.adjustments.push(database.adjustments[0].clone());
        }),
        (CheckName::AdjustmentsKept, |evidence, _| evidence.side_operations.clear()),
        (CheckName::AdjustmentsKept, |evidence, _| {
            evidence.side_operations[0].outcome = SideOutcome::Refused("no".into());
        }),
        (CheckName::Linearizable, |_, database| database.adjustments[0].version = 3),
        // Answered before the orders were sent that it comes after.
        (CheckName::Linearizable, |evidence, _| {
            (evidence.side_operations[0].sent, evidence.side_operations[0].received) = (0, 1);
        }),
        // Seen before it was there, and after it was gone.
        (CheckName::Linearizable, |evidence, _| {
            let outcome = SideOutcome::Read { stock: 2, version: STOCK + 1 };
            evidence.side_operations.push(SideOperation {
                action: SideAction::Read { locked: false },
                sent: 700,
                received: 800,
                outcome,
            });
        }),
        (CheckName::Linearizable, |evidence, _| {
            let outcome = SideOutcome::Read { stock: 0, version: STOCK };
            evidence.side_operations.push(SideOperation {
                action: SideAction::Read { locked: false },
                sent: 991,
                received: 992,
                outcome,
            });
        }),
    ] {
        assert_caught(by, |evidence, database| {
            restock(evidence, database);
            spoil(evidence, database);
        });
    }
}

#[test]
fn an_altered_stock_before_is_seen() {
    assert_caught(CheckName::Linearizable, |_, database| database.orders[2].stock_before = 4);
}

#[test]
fn two_orders_that_read_the_same_are_the_witness() {
    let spoil = |_: &mut Evidence, database: &mut Database| {
        let first = database.orders[2].clone();
        let second = &mut database.orders[3];
        second.stock_before = first.stock_before;
        second.stock_after = first.stock_after;
        second.version = first.version;
    };
    assert_caught(CheckName::NoDuplicateReads, spoil);
    let mut evidence = good();
    let mut database = evidence.database.clone().unwrap();
    spoil(&mut evidence, &mut database);
    evidence.database = Ok(database);
    let checks = checks(&evidence);
    let witness = checks.iter().find(|check| check.name == CheckName::NoDuplicateReads).unwrap();
    assert!(
        witness.detail.starts_with("attempt-2 and attempt-3 both read 3 and both wrote 2"),
        "{witness:?}"
    );
}

#[test]
fn a_sale_out_of_real_time_is_not_linearizable() {
    assert_caught(CheckName::Linearizable, |evidence, _| {
        let (first, second) = (evidence.attempts[2].sent, evidence.attempts[2].received);
        evidence.attempts[2].sent = evidence.attempts[4].sent + 1_000;
        evidence.attempts[2].received = evidence.attempts[4].received + 1_000;
        evidence.attempts[4].sent = first;
        evidence.attempts[4].received = second;
    });
}

#[test]
fn a_refusal_before_the_last_sale_is_not_linearizable() {
    assert_caught(CheckName::Linearizable, |evidence, _| {
        let last = evidence.attempts.last_mut().unwrap();
        (last.sent, last.received) = (0, 10);
    });
}

#[test]
fn a_missing_change_is_not_linearizable() {
    assert_caught(CheckName::Linearizable, |_, database| drop(database.orders.remove(1)));
}

#[test]
fn a_supply_or_stock_or_version_out_of_nowhere_is_not_linearizable() {
    assert_caught(CheckName::Linearizable, |_, database| {
        database.audit.supply += 3;
        database.audit.stock += 3;
    });
    assert_caught(CheckName::Linearizable, |_, database| database.audit.stock += 1);
    assert_caught(CheckName::Linearizable, |_, database| database.audit.version += 1);
}
