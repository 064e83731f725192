//! Every check has to notice what it is there for: a good history is spoiled in one place at a time.

use order_service::api::{
    Adjustment, Audit, Clock, HoldRecord, LockCensus, LockEvidence, LockHold, LockHolder, Order, OrderStatus,
};
use std::time::Duration;
use uuid::Uuid;

use super::*;
use crate::attempt::{Attempt, Outcome, Sale};
use crate::errand::{self, Errand, What};
use crate::evidence::{Broken, Database, Faults};
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
                stock_before: STOCK - sold,
                stock_after: STOCK - sold - 1,
                version: sold + 1,
                lock: LockEvidence { strategy: "database".into(), fencing_token: Some(sold / 2 + 1) },
                replica: "r1".into(),
                created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
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
        orders: STOCK,
        oversold_units: 0,
        balanced: true,
        duplicate_reads: Vec::new(),
    };
    Evidence {
        attempts,
        errands: Vec::new(),
        initial_stock: STOCK,
        faults: Faults::None,
        lease: Some(Duration::from_secs(1)),
        database: Ok(Database { audit, orders, adjustments: Vec::new() }),
        lock: Ok(LockCensus { holders: Vec::new(), waiting: 0 }),
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

#[test]
fn a_good_history_passes_every_check() {
    let checks = checks(&good());
    let unusual: Vec<_> = checks.iter().filter(|check| check.status != Status::Pass).collect();
    let unusual: Vec<_> = unusual.iter().map(|check| (check.name, check.status)).collect();
    let not_applicable = [CheckName::AdjustmentsKept, CheckName::FaultsStruck, CheckName::Available];
    assert_eq!(unusual, not_applicable.map(|name| (name, Status::NotApplicable)));
    assert_eq!(verdict(&checks), Verdict::Correct);
}

/// Two hair dryers more, after everybody has gone.
fn restock(evidence: &mut Evidence, database: &mut Database) {
    let (what, outcome) = (What::Restock { reason: "more".into(), quantity: 2 }, errand::Outcome::Done);
    evidence.errands.push(Errand { what, sent: 900, received: 990, outcome });
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
        (CheckName::AdjustmentsKept, |evidence, _| evidence.errands.clear()),
        (CheckName::AdjustmentsKept, |evidence, _| {
            evidence.errands[0].outcome = errand::Outcome::Refused("no".into());
        }),
        (CheckName::Linearizable, |_, database| database.adjustments[0].version = 3),
        // Answered before the orders were sent that it comes after.
        (CheckName::Linearizable, |evidence, _| {
            (evidence.errands[0].sent, evidence.errands[0].received) = (0, 1);
        }),
        // Seen before it was there, and after it was gone.
        (CheckName::Linearizable, |evidence, _| {
            let outcome = errand::Outcome::Saw { stock: 2, version: STOCK + 1 };
            evidence.errands.push(Errand {
                what: What::Look { locked: false },
                sent: 700,
                received: 800,
                outcome,
            });
        }),
        (CheckName::Linearizable, |evidence, _| {
            let outcome = errand::Outcome::Saw { stock: 0, version: STOCK };
            evidence.errands.push(Errand {
                what: What::Look { locked: false },
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

/// Lets the second hold begin before the first has ended.
fn overlap(evidence: &mut Evidence, change: impl FnOnce(&mut LockHold, &mut LockHold)) {
    let [Ok(first), Ok(second)] = &mut evidence.holds.records[..] else { unreachable!("two replicas") };
    second.holds[0].acquired_ns = 50;
    change(&mut first.holds[0], &mut second.holds[0]);
}

#[test]
fn holds_that_overlap_are_noticed() {
    assert_caught(CheckName::NoOverlappingHolds, |evidence, _| overlap(evidence, |_, _| {}));
    // The lease was lost, but what the late one wrote was not refused.
    assert_caught(CheckName::NoOverlappingHolds, |evidence, _| {
        overlap(evidence, |first, second| {
            first.lost = true;
            first.written = second.written.clone();
        });
    });
    // Fenced: the late one wrote nothing.
    let fenced = failing(|evidence, _| {
        overlap(evidence, |first, _| {
            (first.lost, first.stale) = (true, 1);
            first.written.clear();
        });
    });
    assert_eq!(fenced, []);
}

#[test]
fn a_record_that_begins_too_late_proves_nothing() {
    let mut evidence = good();
    let Some(Ok(record)) = evidence.holds.records.first_mut() else { unreachable!("two replicas") };
    (record.since_ns, record.dropped) = (6, 7);
    assert_eq!(verdict(&checks(&evidence)), Verdict::Inconclusive);
}

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
fn a_negative_stock_is_not_balanced() {
    assert_caught(CheckName::Balanced, |_, database| database.orders[4].stock_after = -1);
}

#[test]
fn a_deleted_order_is_lost() {
    assert_caught(CheckName::NothingLost, |_, database| drop(database.orders.remove(2)));
}

#[test]
fn an_order_for_somebody_else_is_lost() {
    assert_caught(CheckName::NothingLost, |_, database| database.orders[2].buyer = Attempt::buyer(6));
}

#[test]
fn an_order_that_nobody_placed_is_invented() {
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
fn a_cloned_order_is_twice_per_key() {
    assert_caught(CheckName::OncePerKey, |_, database| {
        let mut clone = database.orders[2].clone();
        clone.id = Uuid::from_u128(99);
        database.orders.push(clone);
    });
}

#[test]
fn a_replay_with_another_order_is_not_once_per_key() {
    assert_caught(CheckName::OncePerKey, |evidence, _| {
        let Outcome::Sold(sale) = &mut evidence.attempts[1].outcome else { unreachable!() };
        sale.id = Uuid::from_u128(99);
    });
    assert_caught(CheckName::OncePerKey, |evidence, _| {
        evidence.attempts[1].outcome = Outcome::SoldOut { available: 0, version: STOCK };
    });
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
fn swapped_tokens_go_down() {
    assert_caught(CheckName::TokensIncrease, |_, database| {
        database.orders[1].lock.fencing_token = Some(3);
        database.orders[4].lock.fencing_token = Some(1);
    });
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

#[test]
fn an_attempt_without_an_answer_is_noticed() {
    assert_caught(CheckName::AllAnswered, |evidence, _| evidence.attempts[7].outcome = Outcome::Unanswered);
}

#[test]
fn a_lock_that_is_left_behind_is_noticed() {
    assert_caught(CheckName::AllAnswered, |evidence, _| {
        let holder = LockHolder {
            mode: "exclusive".into(),
            fencing_token: Some(3),
            replica: Some("r1".into()),
            expired: false,
        };
        evidence.lock = Ok(LockCensus { holders: vec![holder], waiting: 0 });
    });
    assert_caught(CheckName::AllAnswered, |evidence, _| {
        evidence.lock = Ok(LockCensus { holders: Vec::new(), waiting: 1 });
    });
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

#[test]
fn a_repetition_that_is_refused_is_not_once_per_key() {
    let refuse = |why: ProblemKind| {
        move |evidence: &mut Evidence, _: &mut Database| {
            evidence.attempts[1].outcome = Outcome::Failed { why: why.into() };
        }
    };
    assert_caught(CheckName::OncePerKey, refuse(ProblemKind::IdempotencyKeyReused));
    assert_eq!(failing(refuse(ProblemKind::Overloaded)), []);
}

#[test]
fn a_broken_connection_is_no_answer_unless_something_was_broken_on_purpose() {
    let spoil = |evidence: &mut Evidence| {
        evidence.attempts[7].outcome = Outcome::Broken { why: "reset".into() };
    };
    assert_caught(CheckName::AllAnswered, |evidence, _| spoil(evidence));
    let mut evidence = good();
    spoil(&mut evidence);
    evidence.faults = Faults::Unknown;
    assert_eq!(failed(&evidence), []);
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
fn a_token_that_does_not_grow_from_hold_to_hold_is_noticed() {
    // The same for all, as from a lock that does not count.
    assert_caught(CheckName::TokensIncrease, |evidence, database| {
        for record in evidence.holds.records.iter_mut().flatten() {
            record.holds.iter_mut().for_each(|hold| hold.fencing_token = Some(1));
        }
        database.orders.iter_mut().for_each(|order| order.lock.fencing_token = Some(1));
    });
    // Smaller than one that had ended before.
    assert_caught(CheckName::TokensIncrease, |evidence, _| {
        let Ok(record) = &mut evidence.holds.records[0] else { unreachable!("a record") };
        record.holds[1].fencing_token = Some(1);
        record.holds[0].fencing_token = Some(3);
    });
    // Two replicas wrote with one, and their holds are not to be had.
    assert_caught(CheckName::TokensIncrease, |evidence, database| {
        evidence.holds.records.clear();
        database.orders[1].replica = "r2".into();
    });
}

/// A fault from one moment to another, in the nanoseconds of the good history.
fn broken(from: u64, until: u64) -> Faults {
    let broken = Broken { what: "a fault".into(), from, until: Some(until), costs_leases: true };
    Faults::Known { broken: vec![broken], missed: Vec::new() }
}

#[test]
fn an_overlap_is_explained_by_a_fault_at_that_time_alone() {
    let overlapping = |faults: Faults| {
        let mut evidence = good();
        overlap(&mut evidence, |_, second| second.written.clear());
        evidence.faults = faults;
        failed(&evidence)
    };
    assert_eq!(overlapping(broken(20, 30)), []);
    let harmless = Broken { what: "slow".into(), from: 20, until: None, costs_leases: false };
    for faults in [
        broken(95, 99),
        Faults::Known { broken: vec![harmless], missed: Vec::new() },
        Faults::Known { broken: Vec::new(), missed: Vec::new() },
    ] {
        assert_eq!(overlapping(faults), [CheckName::NoOverlappingHolds]);
    }
    // Long before: its leases have ended, and their consequences.
    let mut evidence = good();
    overlap(&mut evidence, |_, second| second.written.clear());
    let later = 3_000_000_000;
    for record in evidence.holds.records.iter_mut().flatten() {
        for hold in &mut record.holds {
            hold.acquired_ns += later;
            hold.released_ns = hold.released_ns.map(|released| released + later);
        }
    }
    evidence.faults = broken(20, 30);
    assert!(failed(&evidence).contains(&CheckName::NoOverlappingHolds));
}

#[test]
fn a_key_that_was_lost_with_its_answer_is_noticed() {
    // Attempt 2 bought, and its answer was lost; sent again, it bought once more.
    assert_caught(CheckName::OncePerKey, |evidence, database| {
        let mut second = database.orders[2].clone();
        (second.id, second.version) = (Uuid::from_u128(99), STOCK + 1);
        evidence.attempts[3].outcome = Outcome::Broken { why: "reset".into() };
        let again = attempt(2, true, (900, 990), Outcome::Sold(sale(&second, false)));
        evidence.attempts.insert(4, again);
        database.orders.push(second);
    });
    // Twins that bought one each.
    assert_caught(CheckName::OncePerKey, |evidence, database| {
        let mut twin = attempt(2, true, (201, 280), Outcome::Sold(sale(&database.orders[2], false)));
        twin.twin = true;
        evidence.attempts[3].twin = true;
        evidence.attempts.insert(4, twin);
    });
}

#[test]
fn twins_and_repetitions_of_what_had_no_answer_are_part_of_the_history() {
    let good_again = failing(|evidence, database| {
        // The second of two that were sent at the same time was the first to be served.
        let mut twin = attempt(2, true, (201, 280), Outcome::Sold(sale(&database.orders[2], false)));
        twin.twin = true;
        evidence.attempts[3].twin = true;
        evidence.attempts[3].outcome = Outcome::Sold(sale(&database.orders[2], true));
        evidence.attempts.insert(4, twin);
        // One without an answer had bought; another had not, and was then sold out.
        evidence.attempts[5].outcome = Outcome::Unanswered;
        let again = attempt(3, true, (900, 990), Outcome::Sold(sale(&database.orders[3], true)));
        evidence.attempts.insert(6, again);
    });
    assert_eq!(good_again, [CheckName::AllAnswered]);
}

#[test]
fn a_fault_that_meets_nothing_proves_nothing() {
    let verdict_with = |faults: Faults| {
        let mut evidence = good();
        evidence.faults = faults;
        let checks = checks(&evidence);
        let struck = checks.iter().find(|check| check.name == CheckName::FaultsStruck).unwrap().status;
        (struck, verdict(&checks))
    };
    assert_eq!(verdict_with(broken(20, 30)), (Status::Pass, Verdict::Correct));
    // When the last was sold.
    assert_eq!(verdict_with(broken(900, 990)), (Status::Unknown, Verdict::Inconclusive));
    let missed = Faults::Known { broken: Vec::new(), missed: vec!["kill@30s: the run had ended".into()] };
    assert_eq!(verdict_with(missed), (Status::Unknown, Verdict::Inconclusive));
}

/// The good history, once, and then a buyer for each of these times, in seconds, who gets no order.
fn idle(faults: Faults, sold: &[u64], seconds: u64) -> Status {
    let mut evidence = good();
    evidence.faults = faults;
    let sample = evidence.attempts[0].clone();
    let at = |time: u64, outcome: Outcome| {
        let index = 100 + time;
        Attempt { index, sent: time, received: time, outcome, ..sample.clone() }
    };
    evidence.attempts = sold.iter().map(|time| at(*time, sample.outcome.clone())).collect();
    evidence
        .attempts
        .push(at(seconds * 1_000_000_000, Outcome::Failed { why: ProblemKind::Overloaded.into() }));
    let checks = checks(&evidence);
    checks.into_iter().find(|check| check.name == CheckName::Available).unwrap().status
}

#[test]
fn a_shop_that_does_not_sell_between_the_faults_is_not_available() {
    let second = 1_000_000_000;
    let often: Vec<_> = (0..400).map(|i| i * second / 20).collect();
    let at_five = || broken(5 * second, 6 * second);
    assert_eq!(idle(at_five(), &often, 20), Status::Pass);
    // Nothing more after the fault.
    assert_eq!(idle(at_five(), &often[..100], 30), Status::Fail);
    // One in a second, where there were twenty.
    let seldom: Vec<_> = often[..100].iter().copied().chain((3..60).map(|i| i * 2 * second)).collect();
    assert_eq!(idle(at_five(), &seldom, 120), Status::Unknown);
    assert_eq!(idle(Faults::None, &seldom, 120), Status::NotApplicable);
}
