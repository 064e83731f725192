//! The orders in the database, and the answers to their buyers.

use order_service::api::{CountedFrom, OrderTotals};
use uuid::Uuid;

use super::{STOCK, assert_caught, failed, failing, good};
use crate::attempt::{Attempt, Outcome, Sale};
use crate::evidence::{Database, Evidence};
use crate::problem::ProblemKind;
use crate::verdict::{CheckName, checks};

#[test]
fn a_sixth_hair_dryer_is_oversold() {
    assert_caught(CheckName::NotOversold, |_, database| {
        let mut extra = database.orders[4].clone();
        extra.id = Uuid::from_u128(99);
        extra.buyer = Attempt::buyer(5);
        database.orders.push(extra);
    });
}

#[test]
fn a_dropped_stock_write_is_not_balanced() {
    assert_caught(CheckName::Balanced, |_, database| database.audit.stock = 1);
}

#[test]
fn counters_that_do_not_say_what_the_orders_do_are_not_balanced() {
    let counters = |orders, sold, reserved| {
        move |_: &mut Evidence, database: &mut Database| {
            let counters = OrderTotals { orders, units_sold: sold, units_reserved: reserved };
            database.audit.counters = Some(counters);
        }
    };
    for (orders, sold, reserved) in [(STOCK + 1, STOCK, 0), (STOCK, STOCK - 1, 0), (STOCK, STOCK, 1)] {
        assert_caught(CheckName::Balanced, counters(orders, sold, reserved));
    }
    assert_eq!(failing(counters(STOCK, STOCK, 0)), []);
}

#[test]
fn totals_that_the_shop_has_not_counted_are_no_evidence() {
    let falsified = |sold| {
        let mut evidence = good();
        let audit = &mut evidence.database.as_mut().unwrap().audit;
        audit.counted_from = CountedFrom::Counters;
        audit.counters = Some(OrderTotals { orders: STOCK, units_sold: sold, units_reserved: 0 });
        audit.units_sold = sold;
        failed(&evidence)
    };
    assert_eq!(falsified(STOCK), []);
    // What was sold is in the orders; that the counters say something else is told as such.
    assert_eq!(falsified(STOCK + 5), [CheckName::Balanced]);
}

#[test]
fn a_negative_stock_is_not_balanced() {
    assert_caught(CheckName::Balanced, |_, database| database.orders[4].stock_after = -1);
}

#[test]
fn a_deleted_order_is_lost() {
    assert_caught(CheckName::NothingLost, |_, database| drop(database.orders.remove(2)));
}

#[test]
fn an_order_of_another_buyer_is_lost() {
    assert_caught(CheckName::NothingLost, |_, database| database.orders[2].buyer = Attempt::buyer(6));
}

#[test]
fn an_order_that_was_never_placed_is_invented() {
    assert_caught(CheckName::NothingInvented, |_, database| database.orders[2].buyer = "Mallory".into());
    assert_caught(CheckName::NothingInvented, |_, database| database.orders[2].quantity = 2);
}

#[test]
fn a_refused_order_that_is_there_was_sold() {
    assert_caught(CheckName::NothingRefusedWasSold, |evidence, _| {
        let refused = &mut evidence.attempts[3];
        refused.outcome = Outcome::Failed { why: ProblemKind::LockTimeout.into() };
    });
}

#[test]
fn an_answer_that_differs_from_what_is_stored_is_noticed() {
    let said = |spoil: fn(&mut Sale)| {
        move |evidence: &mut Evidence, _: &mut Database| {
            let Outcome::Sold(sale) = &mut evidence.attempts[3].outcome else { unreachable!("it bought") };
            spoil(sale);
        }
    };
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.stock_before += 1));
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.stock_after += 1));
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.version += 1));
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.token = Some(77)));
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.token = None));
    assert_caught(CheckName::AnswersAsStored, said(|sale| sale.replica = "r2".into()));
}

#[test]
fn an_unknown_outcome_is_recovered_or_absent_and_no_violation() {
    let mut evidence = good();
    evidence.attempts[3].outcome = Outcome::Unknown { why: ProblemKind::OutcomeUnknown.into() };
    evidence.attempts[7].outcome = Outcome::Unknown { why: ProblemKind::OutcomeUnknown.into() };
    assert_eq!(failed(&evidence), []);
    let checks = checks(&evidence);
    let lost = checks.iter().find(|check| check.name == CheckName::NothingLost).unwrap();
    assert!(lost.detail.ends_with("of 2 without one, 1 recovered, 1 absent"), "{lost:?}");
}

#[test]
fn a_refusal_while_stock_was_left_is_false() {
    assert_caught(CheckName::NoFalseSoldOut, |evidence, _| {
        evidence.attempts[7].outcome = Outcome::SoldOut { available: 1, version: 4 };
    });
    assert_caught(CheckName::NoFalseSoldOut, |_, database| {
        database.orders.pop();
        database.audit.stock = 1;
    });
}
