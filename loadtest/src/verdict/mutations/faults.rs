//! Missing answers, and what is broken on purpose.

use super::{assert_caught, broken, failed, good};
use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Evidence, FaultEvidence};
use crate::problem::ProblemKind;
use crate::verdict::{CheckName, Status, Verdict, checks, verdict};

#[test]
fn an_attempt_without_an_answer_is_noticed() {
    assert_caught(CheckName::AllAnswered, |evidence, _| evidence.attempts[7].outcome = Outcome::Unanswered);
}

#[test]
fn a_broken_connection_is_no_answer_unless_something_was_broken_on_purpose() {
    let spoil = |evidence: &mut Evidence| {
        evidence.attempts[7].outcome = Outcome::Broken { why: "reset".into() };
    };
    assert_caught(CheckName::AllAnswered, |evidence, _| spoil(evidence));
    let mut evidence = good();
    spoil(&mut evidence);
    evidence.faults = FaultEvidence::Unknown;
    assert_eq!(failed(&evidence), []);
}

#[test]
fn a_fault_that_meets_nothing_proves_nothing() {
    let verdict_with = |faults: FaultEvidence| {
        let mut evidence = good();
        evidence.faults = faults;
        let checks = checks(&evidence);
        let struck = checks.iter().find(|check| check.name == CheckName::FaultsStruck).unwrap().status;
        (struck, verdict(&checks))
    };
    assert_eq!(verdict_with(broken(20, 30)), (Status::Pass, Verdict::Correct));
    // When the last was sold.
    assert_eq!(verdict_with(broken(900, 990)), (Status::Unknown, Verdict::Inconclusive));
    let missed =
        FaultEvidence::Known { broken: Vec::new(), missed: vec!["kill@30s: the run had ended".into()] };
    assert_eq!(verdict_with(missed), (Status::Unknown, Verdict::Inconclusive));
}

/// The good history, once, and then a buyer for each of these times, in seconds, who gets no order.
fn idle(faults: FaultEvidence, sold: &[u64], seconds: u64) -> Status {
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
    assert_eq!(idle(FaultEvidence::None, &seldom, 120), Status::NotApplicable);
}
