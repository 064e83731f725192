//! The lock timeline: for each replica, when it waited for the lock and when it had it.

use std::collections::{BTreeMap, HashSet};

use order_service::api::{HoldRecord, LockHold};
use serde::{Deserialize, Serialize};

use crate::holds::{in_order, overlaps};

/// The most holds that a lane keeps, and the most that a close-up keeps of each.
pub(super) const KEPT: usize = 150;

/// How many holds the busiest lane of a close-up has.
pub(super) const CLOSE: usize = 24;

/// The lock timeline of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Locks {
    /// One for each replica: holds from the whole run.
    pub lanes: Vec<ReplicaLane>,
    /// A moment of the run in milliseconds, of which every hold is kept: the first overlap, or else the
    /// middle.
    pub close_up_ms: [f64; 2],
    /// One for each replica: every hold of that moment.
    pub close_up: Vec<ReplicaLane>,
    /// How many holds overlap another.
    pub overlapping: usize,
    /// How many holds the replicas had dropped from their records.
    pub forgotten: u64,
}

/// The holds of one replica, in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaLane {
    /// The name of the replica.
    pub replica: String,
    /// How many holds the replica has recorded.
    pub total: usize,
    /// The holds that are kept: of a long run, a part of them.
    pub holds: Vec<HoldSpan>,
}

/// One hold of the lock. Times are milliseconds after the first order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldSpan {
    /// When the lock was asked for.
    pub asked_ms: f64,
    /// When it was acquired.
    pub acquired_ms: f64,
    /// When it was released; absent while it is held.
    pub released_ms: Option<f64>,
    /// The fencing token, where the lock has one.
    pub token: Option<i64>,
    /// Whether it overlaps another.
    pub overlaps: bool,
    /// How many writes under it the guard refused.
    pub stale: u32,
}

impl Locks {
    /// The timeline of replicas of one host from their records, for a run that began at `begun_ns`.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a HoldRecord>, begun_ns: u64) -> Self {
        let records: Vec<_> = records.into_iter().collect();
        // A replica that was started again has a record for each of its incarnations.
        let mut by_replica: BTreeMap<_, Vec<HoldSpan>> =
            records.iter().map(|record| (record.replica.as_str(), Vec::new())).collect();
        let forgotten = records.iter().map(|record| record.dropped).sum();
        let holds = in_order(records);
        let overlapping: HashSet<_> =
            overlaps(&holds).iter().flat_map(|overlap| [overlap.first.key(), overlap.second.key()]).collect();
        for held in &holds {
            let is_overlapping = overlapping.contains(&held.key());
            by_replica.entry(held.replica).or_default().push(HoldSpan::of(
                held.hold,
                begun_ns,
                is_overlapping,
            ));
        }
        let lanes: Vec<_> = by_replica.into_iter().collect();
        let close_up_ms = moment(&lanes);
        let lane = |(replica, holds): &(&str, Vec<HoldSpan>), kept: Vec<HoldSpan>| ReplicaLane {
            replica: (*replica).into(),
            total: holds.len(),
            holds: kept,
        };
        Self {
            lanes: lanes.iter().map(|of| lane(of, thinned(&of.1))).collect(),
            close_up: lanes.iter().map(|of| lane(of, within(&of.1, close_up_ms))).collect(),
            close_up_ms,
            overlapping: overlapping.len(),
            forgotten,
        }
    }
}

impl HoldSpan {
    pub(super) fn of(hold: &LockHold, begun_ns: u64, overlaps: bool) -> Self {
        let ms = |ns: u64| (ns as f64 - begun_ns as f64) / 1e6;
        Self {
            asked_ms: ms(hold.asked_ns),
            acquired_ms: ms(hold.acquired_ns),
            released_ms: hold.released_ns.map(ms),
            token: hold.fencing_token,
            overlaps,
            stale: hold.stale,
        }
    }

    pub(super) fn end(&self) -> f64 {
        self.released_ms.unwrap_or(f64::INFINITY)
    }
}

/// The moment to look at closely.
fn moment(lanes: &[(&str, Vec<HoldSpan>)]) -> [f64; 2] {
    let all = || lanes.iter().flat_map(|(_, holds)| holds);
    let mut overlapping: Vec<_> = all().filter(|hold| hold.overlaps).map(|hold| hold.acquired_ms).collect();
    overlapping.sort_by(f64::total_cmp);
    // The second of two that overlap is where the overlap begins.
    let first_overlap = overlapping.get(1).copied();
    let mut begins: Vec<_> = all().map(|hold| hold.acquired_ms).collect();
    begins.sort_by(f64::total_cmp);
    let Some(&last) = begins.last() else { return [0.0, 0.0] };
    let middle = first_overlap.unwrap_or(begins[begins.len() / 2]);
    let at = begins.partition_point(|begin| *begin < middle);
    let (from, to) = (at.saturating_sub(CLOSE / 2), (at + CLOSE / 2).min(begins.len()));
    let start = begins[from].max(0.0);
    let end = begins.get(to).copied().unwrap_or_else(|| {
        all().map(|hold| hold.released_ms.unwrap_or(hold.acquired_ms)).fold(last, f64::max)
    });
    [start, end.max(start + 0.1)]
}

/// Of too many holds, those that overlap, and otherwise the longest of each stretch of the run.
fn thinned(holds: &[HoldSpan]) -> Vec<HoldSpan> {
    if holds.len() <= KEPT {
        return holds.to_vec();
    }
    let stretch = holds.len().div_ceil(KEPT);
    holds.chunks(stretch).map(weightiest).cloned().collect()
}

/// Of some holds the one that tells most: one that overlaps another, or else the longest.
pub(super) fn weightiest(holds: &[HoldSpan]) -> &HoldSpan {
    let weight = |hold: &HoldSpan| (hold.overlaps, hold.end() - hold.asked_ms);
    let worth =
        |a: &&HoldSpan, b: &&HoldSpan| weight(a).partial_cmp(&weight(b)).unwrap_or(std::cmp::Ordering::Equal);
    holds.iter().max_by(worth).expect("there is a hold")
}

fn within(holds: &[HoldSpan], [from, to]: [f64; 2]) -> Vec<HoldSpan> {
    holds.iter().filter(|hold| hold.end() >= from && hold.asked_ms <= to).take(KEPT).cloned().collect()
}

#[cfg(test)]
mod tests {
    use order_service::api::Clock;

    use super::*;

    fn record(replica: &str, holds: &[(u64, u64, u64)]) -> HoldRecord {
        let hold = |&(asked, acquired, released): &(u64, u64, u64)| LockHold {
            sku: "x".into(),
            fencing_token: Some(acquired as i64),
            asked_ns: asked * 1_000_000,
            acquired_ns: acquired * 1_000_000,
            released_ns: Some(released * 1_000_000),
            written: Vec::new(),
            stale: 0,
            lost: false,
        };
        HoldRecord {
            replica: replica.into(),
            clock: Clock::Host,
            since_ns: 0,
            dropped: 0,
            now_ns: u64::MAX,
            holds: holds.iter().map(hold).collect(),
        }
    }

    #[test]
    fn holds_of_two_replicas_at_the_same_time_overlap() {
        let records = [
            record("a", &[(10, 10, 20), (20, 30, 60), (70, 70, 80)]),
            record("b", &[(11, 20, 30), (30, 40, 50)]),
        ];
        let locks = Locks::of(&records, 10_000_000);
        let marked: Vec<Vec<_>> =
            locks.lanes.iter().map(|lane| lane.holds.iter().map(|hold| hold.overlaps).collect()).collect();
        assert_eq!(marked, [vec![false, true, false], vec![false, true]]);
        assert_eq!(locks.overlapping, 2);
        assert_eq!(locks.lanes[0].holds[1].acquired_ms, 20.0);
        assert!(locks.close_up.iter().all(|lane| lane.holds.iter().any(|hold| hold.overlaps)));
    }

    #[test]
    fn of_many_holds_few_are_kept_and_all_are_counted() {
        let many: Vec<_> = (0..5_000).map(|i| (i * 2, i * 2 + 1, i * 2 + 2)).collect();
        let locks = Locks::of(&[record("a", &many)], 0);
        let (lane, close) = (&locks.lanes[0], &locks.close_up[0]);
        assert_eq!((lane.total, locks.overlapping), (5_000, 0));
        assert!((100..=KEPT).contains(&lane.holds.len()));
        assert!((CLOSE..=KEPT).contains(&close.holds.len()), "{}", close.holds.len());
    }
}
