//! Holds of the lock, and their fencing tokens.

use order_service::api::{LockHold, LockHolder, LockStatus};

use super::{assert_caught, broken, failed, failing, good};
use crate::evidence::{Broken, Evidence, FaultEvidence};
use crate::verdict::{CheckName, Verdict, checks, verdict};

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
fn an_overlap_is_explained_by_a_fault_at_that_time_alone() {
    let overlapping = |faults: FaultEvidence| {
        let mut evidence = good();
        overlap(&mut evidence, |_, second| second.written.clear());
        evidence.faults = faults;
        failed(&evidence)
    };
    assert_eq!(overlapping(broken(20, 30)), []);
    let harmless = Broken { what: "slow".into(), from: 20, until: None, costs_leases: false };
    for faults in [
        broken(95, 99),
        FaultEvidence::Known { broken: vec![harmless], missed: Vec::new() },
        FaultEvidence::Known { broken: Vec::new(), missed: Vec::new() },
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
fn swapped_tokens_go_down() {
    assert_caught(CheckName::TokensIncrease, |_, database| {
        database.orders[1].lock.fencing_token = Some(3);
        database.orders[4].lock.fencing_token = Some(1);
    });
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
    // Two replicas wrote with one, and their holds cannot be read.
    assert_caught(CheckName::TokensIncrease, |evidence, database| {
        evidence.holds.records.clear();
        database.orders[1].replica = "r2".into();
    });
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
        evidence.lock = Ok(LockStatus { holders: vec![holder], waiting: 0 });
    });
    assert_caught(CheckName::AllAnswered, |evidence, _| {
        evidence.lock = Ok(LockStatus { holders: Vec::new(), waiting: 1 });
    });
}
