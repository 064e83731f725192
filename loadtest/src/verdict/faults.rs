//! What was broken on purpose, and what came of it.

use super::judgement::Judgement::{self, Fail, NotApplicable, Pass, Unknown};
use super::judgement::name;
use crate::attempt::Outcome;
use crate::availability::{self, Between, Sales};
use crate::evidence::{Evidence, FaultEvidence};

/// Every fault was injected while orders were being sold: one that meets none proves nothing.
pub(super) fn faults_struck(evidence: &Evidence) -> Judgement {
    let (broken, missed) = match &evidence.faults {
        FaultEvidence::None => return NotApplicable("nothing was broken".into()),
        FaultEvidence::Unknown => {
            return NotApplicable("what was broken, and when, is not known here".into());
        }
        FaultEvidence::Known { broken, missed } => (broken, missed),
    };
    let end = Sales::of(evidence).end;
    let late = broken.iter().filter(|broken| broken.from > end).map(|broken| {
        format!(
            "{} after {:.1} s, when nothing was to be sold any more",
            broken.what,
            broken.from as f64 / 1e9
        )
    });
    let unmet: Vec<_> = missed.iter().cloned().chain(late).collect();
    if !unmet.is_empty() {
        let Fail(unmet) = Judgement::of(unmet, String::new()) else { unreachable!("there are some") };
        return Unknown(format!("not put to the proof: {unmet}"));
    }
    Pass(format!("{} faults struck while orders were being sold", broken.len()))
}

/// Where nothing was broken, the shop sold.
pub(super) fn available(evidence: &Evidence) -> Judgement {
    let FaultEvidence::Known { broken, .. } = &evidence.faults else {
        return NotApplicable("nothing was broken, as far as is known".into());
    };
    match availability::between_faults(evidence, broken) {
        Between::Down(why) => Fail(why),
        Between::Idle(why) => Unknown(why),
        Between::Up(detail) => Pass(detail),
    }
}

/// Every attempt got an answer within its deadline; the lock has no holder and no waiter afterwards.
pub(super) fn all_answered(evidence: &Evidence) -> Judgement {
    let attempts = evidence.attempts.len();
    let broken = evidence.attempts.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Broken { why } if !evidence.faults.any() => {
            Some(format!("{} got no answer: {why}", name(attempt)))
        }
        _ => None,
    });
    if let Some(broken) = broken {
        return Fail(broken);
    }
    let silent = evidence.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Unanswered);
    let silent: Vec<_> = silent.map(|attempt| format!("{} got no answer in time", name(attempt))).collect();
    if !silent.is_empty() {
        return Judgement::of(silent, String::new());
    }
    let lock = match &evidence.lock {
        Ok(lock) => lock,
        Err(why) => return Unknown(format!("who has the lock cannot be seen: {why}")),
    };
    // A crashed holder's lock is free when it has expired; without a crash there is nothing to be left.
    let holder = lock.holders.iter().find(|holder| !(holder.expired && evidence.faults.any()));
    match (holder, lock.waiting) {
        (None, 0) => Pass(format!("{attempts} attempts answered, and the lock is free")),
        (Some(holder), _) => {
            let replica = holder.replica.as_deref().unwrap_or("another holder");
            Fail(format!("{replica} still has the lock"))
        }
        (None, waiting) => Fail(format!("{waiting} still wait for the lock")),
    }
}
