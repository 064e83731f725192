//! The holds of a product's lock, as the replicas have recorded them, and where two of them overlap.

use std::collections::BTreeSet;

use order_service::api::{HoldRecord, LockHold};

/// Who had the lock of the run's product, and when.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// When the run began, by this host's monotonic clock.
    pub begun_ns: u64,
    /// What each replica has recorded; `Err` says why it cannot be used.
    pub records: Vec<Result<HoldRecord, Unseen>>,
    /// What replicas that were killed had recorded shortly before.
    pub of_killed: Vec<HoldRecord>,
    /// How many replicas were killed whose record could not be read before.
    pub killed_unread: usize,
}

/// Why a record of holds cannot be used.
#[derive(Debug, Clone)]
pub enum Unseen {
    /// The replica reads another clock than ours: its times cannot be compared.
    OtherClock(String),
    /// It does not answer.
    NoAnswer(String),
}

impl Holds {
    /// All records that could be read, also of replicas that were killed since.
    pub(crate) fn known(&self) -> impl Iterator<Item = &HoldRecord> {
        self.records.iter().flatten().chain(&self.of_killed)
    }
}

/// A hold, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) replica: &'a str,
    pub(crate) hold: &'a LockHold,
}

impl<'a> Held<'a> {
    /// What no other hold has: a replica gets a product's lock once at a time.
    pub(crate) fn key(&self) -> (u64, &'a str) {
        (self.hold.acquired_ns, self.replica)
    }
}

/// Two holds that overlap.
pub(crate) struct Overlap<'a> {
    /// The one that began first.
    pub(crate) first: Held<'a>,
    /// The one that began while the other had the lock.
    pub(crate) second: Held<'a>,
}

/// All holds by the time at which they began; each once.
pub(crate) fn in_order<'a>(records: impl IntoIterator<Item = &'a HoldRecord>) -> Vec<Held<'a>> {
    let mut seen = BTreeSet::new();
    let mut holds: Vec<_> = records
        .into_iter()
        .flat_map(|record| record.holds.iter().map(|hold| Held { replica: &record.replica, hold }))
        .filter(|held| seen.insert(held.key()))
        .collect();
    holds.sort_by_key(|held| held.hold.acquired_ns);
    holds
}

/// Every hold that began before one that had begun earlier was over, with the one of these that ends last.
/// Each hold that overlaps any other is in one of the pairs at least.
pub(crate) fn overlaps<'a>(holds: &[Held<'a>]) -> Vec<Overlap<'a>> {
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
        fn every_hold_that_overlaps_another_is_found(
            times in prop::collection::vec((0..60_u64, 0..12_u64), 0..8),
        ) {
            // Each is by a replica of its own, so that two may begin at the same time.
            let records: Vec<_> = times.iter().enumerate().map(|(number, (from, length))| HoldRecord {
                replica: number.to_string(),
                clock: Clock::Host,
                since_ns: 0,
                dropped: 0,
                now_ns: 100,
                holds: vec![hold(*from, from + length)],
            }).collect();
            let holds = in_order(&records);
            let pairs = overlaps(&holds);
            let found: BTreeSet<_> =
                pairs.iter().flat_map(|overlap| [overlap.first.replica, overlap.second.replica]).collect();
            let mut exhaustive = BTreeSet::new();
            for (i, first) in holds.iter().enumerate() {
                let overlapped = |second: &&Held<'_>| Some(second.hold.acquired_ns) < first.hold.released_ns;
                for second in holds[i + 1..].iter().filter(overlapped) {
                    exhaustive.extend([first.replica, second.replica]);
                }
            }
            prop_assert_eq!(found, exhaustive);
        }
    }
}
