//! Whether two replicas had the lock at the same time.

use super::judgement::Judgement::{self, Fail, NotApplicable, Pass, Unknown};
use crate::evidence::Evidence;
use crate::holds::{Held, Overlap, Unseen, in_order, overlaps};

/// How many overlaps are named.
const NAMED: usize = 3;

/// No two holds overlap, from the moment that one has the lock to the moment that it sends the release.
///
/// An overlap is judged by what came of it: it has *corrupted* when both wrote the same version, one over the
/// other. It is *fenced* when one of them had lost its lease, and the guard refused what it would have
/// written over the other.
pub(super) fn no_overlapping_holds(evidence: &Evidence) -> Judgement {
    let (mut records, mut dead) = (Vec::new(), 0);
    for record in &evidence.holds.records {
        match record {
            Ok(record) => records.push(record),
            Err(Unseen::OtherClock(why)) => return NotApplicable(why.clone()),
            // It was killed, and its record is gone with it: no wonder where something was broken.
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
    let holds = in_order(evidence.holds.known());
    let overlaps = overlaps(&holds);
    let corrupted: Vec<_> = overlaps.iter().filter(|overlap| corrupted(overlap)).collect();
    if let Some(first) = corrupted.first() {
        return Fail(format!("{}; {} overlaps corrupted the stock", words(first), corrupted.len()));
    }
    let unexplained: Vec<_> = overlaps.iter().filter(|overlap| !is_of_a_lost_lease(overlap)).collect();
    // Where a server was started again or cut off, a lease may have been lost that its holder released before
    // it knew: then, for as long as a lease lasts, and at no other time.
    let without_a_fault: Vec<_> =
        unexplained.iter().filter(|overlap| !is_explained(overlap, evidence)).collect();
    if !without_a_fault.is_empty() {
        let named: Vec<_> = without_a_fault.iter().take(NAMED).map(|overlap| words(overlap)).collect();
        let why = if evidence.faults.any() {
            "no lease was lost, nor anything broken then"
        } else {
            "no lease was lost"
        };
        return Fail(format!("{}; {} in all, and {why}", named.join("; "), without_a_fault.len()));
    }
    let mut detail = match (overlaps.len(), unexplained.len()) {
        (0, _) => format!("{} holds, one after the other", holds.len()),
        (fenced, 0) => {
            let count = holds.len();
            format!(
                "{count} holds; {fenced} pairs overlapped, as a lease was lost, and none harmed the stock"
            )
        }
        (fenced, early) => format!(
            "{} holds; {fenced} pairs overlapped, and none harmed the stock; {early} ended before it was \
             known that a lease was lost",
            holds.len()
        ),
    };
    if !late.is_empty() || dead > 0 {
        detail += "; what the killed had recorded in their last moments died with them";
    }
    match evidence.holds.killed_unread {
        0 => {}
        1 => detail += "; one replica was killed before its record could be read",
        count => {
            detail += &format!("; {count} replicas were killed before their records could be read");
        }
    }
    Pass(detail)
}

/// Whether both wrote the same version.
fn corrupted(overlap: &Overlap<'_>) -> bool {
    let (a, b) = (&overlap.first.hold.written, &overlap.second.hold.written);
    a.iter().any(|[a_first, a_last]| b.iter().any(|[b_first, b_last]| a_first <= b_last && b_first <= a_last))
}

/// Whether a fault may have cost the first one its lease.
fn is_explained(overlap: &Overlap<'_>, evidence: &Evidence) -> bool {
    let at = |ns: u64| ns.saturating_sub(evidence.holds.begun_ns);
    let (from, until) = (overlap.second.hold.acquired_ns, overlap.first.hold.released_ns.unwrap_or(u64::MAX));
    evidence.faults.explain(at(from), at(until), evidence.lease)
}

fn is_of_a_lost_lease(overlap: &Overlap<'_>) -> bool {
    overlap.first.hold.lost || overlap.second.hold.lost
}

fn words(overlap: &Overlap<'_>) -> String {
    let Overlap { first, second } = overlap;
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
