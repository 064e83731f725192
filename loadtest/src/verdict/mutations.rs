//! Every check has to notice what it is there for: a good history is spoiled in one place at a time.

mod faults;
mod history;
mod keys;
mod locks;
mod orders;
mod reservations;

use std::time::Duration;

use jiff::Timestamp;
use order_service::api::{Audit, Clock, HoldRecord, LockEvidence, LockHold, LockStatus, Order, OrderStatus};
use uuid::Uuid;

use super::{CheckName, Control, Status, Verdict, checks, sensitive, verdict};
use crate::attempt::{Attempt, Outcome, Sale};
use crate::evidence::{Broken, Database, Evidence, FaultEvidence};
use crate::holds::{Holds, Unseen};
use crate::problem::ProblemKind;

const STOCK: i64 = 5;
const ATTEMPTS: u64 = 8;

/// Eight buyers, five hair dryers, one at a time; the first buyer sends its order again.
fn good() -> Evidence {
    let mut attempts = Vec::new();
    let mut orders = Vec::new();
    for index in 0..ATTEMPTS {
        let sold = index as i64;
        let times = (index * 100, index * 100 + 90);
        let outcome = if sold < STOCK {
            let order = Order {
                id: Uuid::from_u128(u128::from(index) + 1),
                sku: "hair-dryer".into(),
                buyer: Attempt::buyer(index),
                quantity: 1,
                status: OrderStatus::Confirmed,
                pay_by: None,
                stock_before: STOCK - sold,
                stock_after: STOCK - sold - 1,
                version: sold + 1,
                lock: LockEvidence { strategy: "database".into(), fencing_token: Some(sold / 2 + 1) },
                replica: "r1".into(),
                created_at: created_at(),
            };
            orders.push(order.clone());
            Outcome::Sold(sale(&order, false))
        } else {
            Outcome::SoldOut { available: 0, version: STOCK }
        };
        attempts.push(attempt(index, false, times, outcome));
    }
    attempts.insert(1, attempt(0, true, (95, 99), Outcome::Sold(sale(&orders[0], true))));
    let audit = Audit {
        supply: STOCK,
        stock: 0,
        version: STOCK,
        units_sold: STOCK,
        units_reserved: 0,
        orders: STOCK,
        oversold_units: 0,
        balanced: true,
        duplicate_reads: Vec::new(),
        ..Audit::default()
    };
    Evidence {
        attempts,
        side_operations: Vec::new(),
        initial_stock: STOCK,
        faults: FaultEvidence::None,
        lease: Some(Duration::from_secs(1)),
        database: Ok(Database { audit, orders, adjustments: Vec::new(), read_at: created_at() }),
        lock: Ok(LockStatus { holders: Vec::new(), waiting: 0 }),
        holds: Holds {
            begun_ns: 5,
            records: vec![Ok(holds("r1", 0)), Ok(holds("r2", 1))],
            ..Holds::default()
        },
    }
}

/// Every second of the holds of the good history, as a replica has recorded them.
fn holds(replica: &str, first: u64) -> HoldRecord {
    let hold = |i: u64| LockHold {
        sku: "hair-dryer".into(),
        fencing_token: Some(i as i64 + 1),
        asked_ns: 100 * i,
        acquired_ns: 100 * i + 10,
        released_ns: Some(100 * i + 90),
        written: vec![[2 * i as i64 + 1, 2 * i as i64 + 2]],
        stale: 0,
        lost: false,
    };
    let holds = (first..3).step_by(2).map(hold).collect();
    HoldRecord { replica: replica.into(), clock: Clock::Host, since_ns: 1, dropped: 0, now_ns: 1_000, holds }
}

fn created_at() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn attempt(index: u64, replay: bool, (sent, received): (u64, u64), outcome: Outcome) -> Attempt {
    Attempt { index, replay, twin: false, quantity: 1, intended: sent, free: sent, sent, received, outcome }
}

fn sale(order: &Order, replayed: bool) -> Sale {
    Sale {
        id: order.id,
        stock_before: order.stock_before,
        stock_after: order.stock_after,
        version: order.version,
        token: order.lock.fencing_token,
        replica: order.replica.clone(),
        replayed,
        pay_by: None,
    }
}

/// Spoils the good history, and answers which checks fail.
fn failing(spoil: impl FnOnce(&mut Evidence, &mut Database)) -> Vec<CheckName> {
    let mut evidence = good();
    let mut database = evidence.database.clone().unwrap();
    spoil(&mut evidence, &mut database);
    database.audit.units_sold = database.orders.iter().map(|order| order.quantity).sum();
    evidence.database = Ok(database);
    failed(&evidence)
}

fn failed(evidence: &Evidence) -> Vec<CheckName> {
    let failed = checks(evidence).into_iter().filter(|check| check.status == Status::Fail);
    failed.map(|check| check.name).collect()
}

#[track_caller]
fn assert_caught(by: CheckName, spoil: impl FnOnce(&mut Evidence, &mut Database)) {
    let failing = failing(spoil);
    assert!(failing.contains(&by), "{by} did not notice; {failing:?} did");
}

/// A fault from one moment to another, in the nanoseconds of the good history.
fn broken(from: u64, until: u64) -> FaultEvidence {
    let broken = Broken { what: "a fault".into(), from, until: Some(until), costs_leases: true };
    FaultEvidence::Known { broken: vec![broken], missed: Vec::new() }
}

#[test]
fn a_good_history_passes_every_check() {
    let checks = checks(&good());
    let unusual: Vec<_> = checks.iter().filter(|check| check.status != Status::Pass).collect();
    let unusual: Vec<_> = unusual.iter().map(|check| (check.name, check.status)).collect();
    let not_applicable = [
        CheckName::AdjustmentsKept,
        CheckName::ReservationsSettled,
        CheckName::FaultsStruck,
        CheckName::Available,
    ];
    assert_eq!(unusual, not_applicable.map(|name| (name, Status::NotApplicable)));
    assert_eq!(verdict(&checks), Verdict::Correct);
}

#[test]
fn a_run_that_sells_nothing_is_inconclusive() {
    let mut evidence = good();
    let database = evidence.database.as_mut().unwrap();
    database.orders.clear();
    database.audit = Audit { stock: STOCK, version: 0, units_sold: 0, orders: 0, ..database.audit.clone() };
    evidence.attempts.retain(|attempt| !attempt.replay);
    for attempt in &mut evidence.attempts {
        attempt.outcome = Outcome::Failed { why: ProblemKind::Overloaded.into() };
    }
    assert_eq!(verdict(&checks(&evidence)), Verdict::Inconclusive);
}

#[test]
fn what_cannot_be_seen_is_unknown_and_never_correct() {
    let mut evidence = good();
    evidence.database = Err("no replica answers".into());
    evidence.holds.records[1] = Err(Unseen::NoAnswer("r2 does not answer".into()));
    let checks = checks(&evidence);
    assert_eq!(verdict(&checks), Verdict::Inconclusive);
    assert!(
        checks
            .iter()
            .filter(|check| check.status == Status::Pass)
            .all(|check| check.name == CheckName::AllAnswered)
    );
}

#[test]
fn without_a_broken_control_nothing_is_proven() {
    let with = |control: Option<(i64, u64)>| {
        let control = control.map(|(oversold_units, lost_updates)| Control { oversold_units, lost_updates });
        let mut all = checks(&good());
        all.push(sensitive(control));
        verdict(&all)
    };
    assert_eq!(with(Some((3, 3))), Verdict::Correct);
    // Where the stock was too large to oversell.
    assert_eq!(with(Some((0, 3))), Verdict::Correct);
    assert_eq!(with(Some((0, 0))), Verdict::Inconclusive);
    assert_eq!(with(None), Verdict::Correct);
}

#[test]
fn violated_outranks_inconclusive() {
    let mut all = checks(&good());
    all.push(sensitive(Some(Control { oversold_units: 0, lost_updates: 0 })));
    all[0].status = Status::Fail;
    assert_eq!(verdict(&all), Verdict::Violated);
}
