//! Whether two replicas had the lock at the same time.

use std::collections::BTreeSet;

use order_service::api::{HoldRecord, LockHold};

use super::Finding::{self, Fail, NotApplicable, Pass, Unknown};
use crate::evidence::{Evidence, Unseen};

/// How many overlaps are named.
const NAMED: usize = 3;

/// A hold, and whose it is.
#[derive(Debug, Clone, Copy)]
struct Held<'a> {
    replica: &'a str,
    hold: &'a LockHold,
}

/// Two holds that overlap.
struct Overlap<'a> {
    first: Held<'a>,
    second: Held<'a>,
}

/// No two holds overlap, from the moment that one has the lock to the moment that it sends the release.
///
/// An overlap is told by what came of it: it has *corrupted* when both wrote the same version, one over the other. It
/// is *fenced* when one of them had lost its lease, and the guard refused what it would have written over the other.
pub(super) fn no_overlapping_holds(evidence: &Evidence) -> Finding {
    let (mut records, mut dead) = (Vec::new(), 0);
    for record in &evidence.holds.records {
        match record {
            Ok(record) => records.push(record),
            Err(Unseen::OtherClock(why)) => return NotApplicable(why.clone()),
            // Killed: its record is gone with it, as everybody knows who killed it.
            Err(Unseen::NoAnswer(_)) if evidence.faults.any() => dead += 1,
            Err(Unseen::NoAnswer(why)) => return Unknown(why.clone()),
        }
    }
    let late: Vec<_> = records.iter().filter(|record| record.since_ns > evidence.holds.begun_ns).collect();
    if !late.is_empty() && records.iter().all(|record| record.holds.is_empty()) {
        return NotApplicable("no holds are recorded: there is no lock, or checkout.holds_kept is 0".into());
    }
    if let Some(late) = late.first()
        && !evidence.faults.any()
    {
        return Unknown(format!(
            "{} has dropped {} holds that were too many; checkout.holds_kept says how many are kept",
            late.replica, late.dropped
        ));
    }
    let holds = in_order(records.iter().copied().chain(&evidence.holds.of_ended_lives));
    let overlaps = overlaps(&holds);
    let corrupted: Vec<_> = overlaps.iter().filter(|overlap| overlap.corrupted()).collect();
    if let Some(first) = corrupted.first() {
        return Fail(format!("{}; {} overlaps corrupted the stock", first.words(), corrupted.len()));
    }
    let unexplained: Vec<_> = overlaps.iter().filter(|overlap| !overlap.is_of_a_lost_lease()).collect();
    // Where a server was started again or cut off, a lease may have been lost that its holder gave back before it knew; then,
    // and for as long as a lease lasts, and at no other time.
    let without_a_fault: Vec<_> =
        unexplained.iter().filter(|overlap| !overlap.is_explained(evidence)).collect();
    if !without_a_fault.is_empty() {
        let words: Vec<_> = without_a_fault.iter().take(NAMED).map(|overlap| overlap.words()).collect();
        let why = if evidence.faults.any() {
            "no lease was lost, nor anything broken then"
        } else {
            "no lease was lost"
        };
        return Fail(format!("{}; {} in all, and {why}", words.join("; "), without_a_fault.len()));
    }
    let mut detail = match (overlaps.len(), unexplained.len()) {
        (0, _) => format!("{} holds, one after the other", holds.len()),
        (fenced, 0) => {
            format!("{} holds, {fenced} overlaps, of lost leases and fenced by the guard", holds.len())
        }
        (fenced, early) => format!(
            "{} holds, {fenced} overlaps, fenced by the guard; {early} ended before their loss was known",
            holds.len()
        ),
    };
    if !late.is_empty() || dead > 0 {
        detail += "; what the killed had recorded in their last moments died with them";
    }
    match evidence.holds.unrecorded_lives {
        0 => {}
        1 => detail += "; one that was killed could not be asked before, and left no record",
        lives => {
            detail += &format!("; {lives} that were killed could not be asked before, and left no record");
        }
    }
    Pass(detail)
}

/// All holds by the time at which they began; each once.
fn in_order<'a>(records: impl Iterator<Item = &'a HoldRecord>) -> Vec<Held<'a>> {
    let mut seen = BTreeSet::new();
    let mut holds: Vec<_> = records
        .flat_map(|record| record.holds.iter().map(|hold| Held { replica: &record.replica, hold }))
        .filter(|held| seen.insert((held.hold.acquired_ns, held.replica)))
        .collect();
    holds.sort_by_key(|held| held.hold.acquired_ns);
    holds
}

/// Every hold that began before one that had begun earlier was over, with the last such.
fn overlaps<'a>(holds: &[Held<'a>]) -> Vec<Overlap<'a>> {
    let end = |held: &Held<'_>| held.hold.released_ns.unwrap_or(u64::MAX);
    let mut overlaps = Vec::new();
    let mut last: Option<Held<'a>> = None;
    for held in holds {
        if let Some(first) = last.filter(|first| held.hold.acquired_ns < end(first)) {
            overlaps.push(Overlap { first, second: *held });
        }
        last = last.filter(|last| end(last) >= end(held)).or(Some(*held));
    }
    overlaps
}

impl Overlap<'_> {
    /// Whether both wrote the same version.
    fn corrupted(&self) -> bool {
        let (a, b) = (&self.first.hold.written, &self.second.hold.written);
        a.iter()
            .any(|[a_first, a_last]| b.iter().any(|[b_first, b_last]| a_first <= b_last && b_first <= a_last))
    }

    /// Whether a fault may have cost the first one its lease.
    fn is_explained(&self, evidence: &Evidence) -> bool {
        let at = |ns: u64| ns.saturating_sub(evidence.holds.begun_ns);
        let (from, until) = (self.second.hold.acquired_ns, self.first.hold.released_ns.unwrap_or(u64::MAX));
        evidence.faults.explain(at(from), at(until), evidence.lease)
    }

    fn is_of_a_lost_lease(&self) -> bool {
        self.first.hold.lost || self.second.hold.lost
    }

    fn words(&self) -> String {
        let Self { first, second } = self;
        let token = |held: &Held<'_>| match held.hold.fencing_token {
            Some(token) => format!("{} (token {token})", held.replica),
            None => held.replica.to_owned(),
        };
        let still = match first.hold.released_ns {
            Some(released) => {
                format!("for {:.3} ms more", released.saturating_sub(second.hold.acquired_ns) as f64 / 1e6)
            }
            None => "and has it yet".into(),
        };
        format!("{} had the lock when {} got it, {still}", token(first), token(second))
    }
}

#[cfg(test)]
mod tests {
    use order_service::api::Clock;
    use proptest::prelude::*;

    use super::*;

    fn hold(acquired_ns: u64, released_ns: u64) -> LockHold {
        LockHold {
            sku: "comb".into(),
            fencing_token: None,
            asked_ns: acquired_ns,
            acquired_ns,
            released_ns: Some(released_ns),
            written: Vec::new(),
            stale: 0,
            lost: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn finds_an_overlap_where_there_is_one(times in prop::collection::vec((0..60_u64, 0..12_u64), 0..8)) {
            let record = |replica: usize, holds: Vec<LockHold>| HoldRecord {
                replica: format!("r{replica}"), clock: Clock::Host, since_ns: 0, dropped: 0, now_ns: 100, holds,
            };
            // Each by a replica of its own, so that two may begin at the same time.
            let records: Vec<_> = times.iter().enumerate().map(|(i, (from, length))| {
                record(i, vec![hold(*from, from + length)])
            }).collect();
            let found = overlaps(&in_order(records.iter()));
            let exhaustive = times.iter().enumerate().any(|(i, (a, length))| {
                times.iter().enumerate().any(|(j, (b, _))| i != j && (a, i) <= (b, j) && *b < a + length)
            });
            prop_assert_eq!(!found.is_empty(), exhaustive);
        }
    }
}
