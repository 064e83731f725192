//! The lock timeline while a run goes on: the replicas are asked again and again, and each hold comes once.

use std::collections::{HashSet, VecDeque};

use order_service::api::{HoldRecord, LockHold};

use super::lanes::{CLOSE, HoldSpan, KEPT, Locks, ReplicaLane, weightiest};
use crate::holds::{Held, overlaps};

/// The most holds that wait until it is known whether they overlap another. There are more where a replica
/// does not answer.
const UNDECIDED: usize = 2_000;

/// Who has the lock, and who had it, as far as the replicas have said.
#[derive(Debug, Clone, Default)]
pub struct LiveLocks {
    begun_ns: u64,
    lanes: Vec<LiveLane>,
    /// The holds that overlap another: the lane, and when they were acquired.
    overlapping: HashSet<(usize, u64)>,
    encounter: Option<Encounter>,
}

/// The first two holds that were seen to overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Encounter {
    /// When the second began, in milliseconds after the first order.
    pub at_ms: f64,
    /// The two, each with its replica.
    pub holders: [(String, HoldSpan); 2],
}

/// What is known of a replica.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// Its name; `None` before its first answer.
    pub replica: Option<String>,
    /// When it answered last, in milliseconds after the first order.
    pub at_ms: Option<f64>,
    /// Its hold that lasted then.
    pub holding: Option<HoldSpan>,
    /// Why what it last said cannot be used, or that it said nothing.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct LiveLane {
    replica: Option<String>,
    heard_ns: Option<u64>,
    trouble: Option<String>,
    total: usize,
    /// Of each so many holds, one is kept.
    stride: usize,
    /// How many holds the last one that is kept stands for.
    filled: usize,
    kept: Vec<HoldSpan>,
    latest: VecDeque<LockHold>,
    undecided: Vec<LockHold>,
    lasting: Vec<LockHold>,
}

impl LiveLocks {
    /// The timeline of so many replicas, for a run that began at `begun_ns`.
    pub fn new(replicas: usize, begun_ns: u64) -> Self {
        let lanes = vec![LiveLane { stride: 1, ..LiveLane::default() }; replicas];
        Self { begun_ns, lanes, ..Self::default() }
    }

    /// From when on the next record of a replica is wanted.
    pub fn after_ns(&self, replica: usize) -> u64 {
        self.lanes[replica].heard_ns.unwrap_or_default()
    }

    /// Adds what a replica says: the holds that ended since it was last asked, and those that last.
    pub fn hear(&mut self, replica: usize, record: HoldRecord) {
        let lane = &mut self.lanes[replica];
        let before = lane.heard_ns.replace(record.now_ns).unwrap_or_default();
        (lane.replica, lane.trouble) = (Some(record.replica), None);
        let lasting = std::mem::take(&mut lane.lasting);
        for hold in record.holds {
            match hold.released_ns {
                Some(released) if released < before => {}
                Some(_) => lane.add(hold),
                None => lane.lasting.push(hold),
            }
        }
        // What lasted, and is not known any more, ended with its process: it was killed.
        for hold in lasting {
            let is_known = |other: &LockHold| other.acquired_ns == hold.acquired_ns;
            if !lane.lasting.iter().chain(&lane.undecided).any(is_known) {
                lane.add(LockHold { released_ns: Some(before), ..hold });
            }
        }
        self.compare();
        self.decide();
    }

    /// Notes that a replica cannot be heard, and why.
    pub fn miss(&mut self, replica: usize, why: String) {
        self.lanes[replica].trouble = Some(why);
    }

    /// The timeline until now. Its close-up is of the latest holds.
    pub fn locks(&self) -> Locks {
        let mut latest: Vec<_> = self.lanes.iter().flat_map(LiveLane::recent).collect();
        latest.sort_by_key(|hold| hold.acquired_ns);
        let ms = |ns: u64| (ns as f64 - self.begun_ns as f64) / 1e6;
        let start = latest.get(latest.len().saturating_sub(CLOSE)).map_or(0.0, |hold| ms(hold.acquired_ns));
        let end = self.lanes.iter().filter_map(|lane| lane.heard_ns).max().map_or(start, ms);
        let close_up_ms = [start.max(0.0), end.max(start.max(0.0) + 0.1)];
        let lane = |(number, lane): (usize, &LiveLane), close: bool| {
            let span = |hold: &LockHold| self.span(number, hold);
            let holds = if close {
                lane.recent().map(span).filter(|hold| hold.end() >= close_up_ms[0]).collect()
            } else {
                let rest = lane.undecided.iter().rev().take(KEPT).rev().chain(&lane.lasting);
                lane.kept.iter().cloned().chain(rest.map(span)).collect()
            };
            let total = lane.total + lane.lasting.len();
            ReplicaLane { replica: lane.name(number), total, holds }
        };
        let lanes = |close| self.lanes.iter().enumerate().map(|of| lane(of, close)).collect();
        Locks {
            lanes: lanes(false),
            close_up: lanes(true),
            close_up_ms,
            overlapping: self.overlapping.len(),
            forgotten: 0,
        }
    }

    /// What is known of each replica.
    pub fn heard(&self) -> Vec<Heard> {
        let heard = |(number, lane): (usize, &LiveLane)| Heard {
            replica: lane.replica.clone(),
            at_ms: lane.heard_ns.map(|ns| (ns as f64 - self.begun_ns as f64) / 1e6),
            holding: lane.lasting.last().map(|hold| self.span(number, hold)),
            trouble: lane.trouble.clone(),
        };
        self.lanes.iter().enumerate().map(heard).collect()
    }

    /// How many holds were seen to overlap another.
    pub fn overlapping(&self) -> usize {
        self.overlapping.len()
    }

    /// The first two holds that were seen to overlap, if any were.
    pub fn encounter(&self) -> Option<&Encounter> {
        self.encounter.as_ref()
    }

    fn span(&self, lane: usize, hold: &LockHold) -> HoldSpan {
        HoldSpan::of(hold, self.begun_ns, self.overlapping.contains(&(lane, hold.acquired_ns)))
    }

    /// Looks for overlaps among the holds of which that is not known yet. A hold that lasts is known to have
    /// lasted until its replica was heard, and no longer.
    fn compare(&mut self) {
        let names: Vec<_> = (0..self.lanes.len()).map(|number| number.to_string()).collect();
        let so_far = |lane: &LiveLane| {
            let until_heard = |hold: &LockHold| LockHold { released_ns: lane.heard_ns, ..hold.clone() };
            lane.lasting.iter().map(until_heard).collect::<Vec<_>>()
        };
        let lasting: Vec<_> = self.lanes.iter().map(so_far).collect();
        let open =
            self.lanes.iter().zip(&lasting).map(|(lane, lasting)| lane.undecided.iter().chain(lasting));
        let mut holds: Vec<_> = open
            .zip(&names)
            .flat_map(|(holds, replica)| holds.map(move |hold| Held { replica, hold }))
            .collect();
        holds.sort_by_key(|held| held.hold.acquired_ns);
        let lane_of =
            |held: &Held<'_>| names.iter().position(|name| name == held.replica).unwrap_or_default();
        let found = overlaps(&holds);
        let pairs: Vec<_> = found.iter().map(|overlap| [overlap.first, overlap.second]).collect();
        self.overlapping.extend(pairs.iter().flatten().map(|held| (lane_of(held), held.hold.acquired_ns)));
        if let (None, Some(pair)) = (&self.encounter, pairs.first()) {
            let at_ms = (pair[1].hold.acquired_ns as f64 - self.begun_ns as f64) / 1e6;
            let holder = |held: &Held<'_>| {
                let number = lane_of(held);
                (self.lanes[number].name(number), self.span(number, held.hold))
            };
            self.encounter = Some(Encounter { at_ms, holders: [holder(&pair[0]), holder(&pair[1])] });
        }
    }

    /// Takes from the undecided holds what no hold can overlap any more that comes to be known later: all
    /// replicas have answered since it ended, and would have named it.
    fn decide(&mut self) {
        let horizon =
            self.lanes.iter().map(|lane| lane.heard_ns.unwrap_or_default()).min().unwrap_or_default();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let surplus = lane.undecided.len().saturating_sub(UNDECIDED);
            let decided = lane.undecided.partition_point(|hold| hold.released_ns < Some(horizon));
            for hold in lane.undecided.drain(..decided.max(surplus)).collect::<Vec<_>>() {
                let overlaps = self.overlapping.contains(&(number, hold.acquired_ns));
                lane.keep(HoldSpan::of(&hold, self.begun_ns, overlaps));
            }
        }
    }
}

impl LiveLane {
    fn name(&self, number: usize) -> String {
        self.replica.clone().unwrap_or_else(|| format!("replica-{}", number + 1))
    }

    /// The latest holds that ended, and those that last.
    fn recent(&self) -> impl Iterator<Item = &LockHold> {
        self.latest.iter().chain(&self.lasting)
    }

    /// Adds a hold that has ended.
    fn add(&mut self, hold: LockHold) {
        if self.latest.iter().any(|other| other.acquired_ns == hold.acquired_ns) {
            return;
        }
        self.total += 1;
        self.latest.push_back(hold.clone());
        if self.latest.len() > CLOSE {
            self.latest.pop_front();
        }
        self.undecided.push(hold);
    }

    /// Keeps one of each so many holds: the most telling one.
    fn keep(&mut self, span: HoldSpan) {
        match self.kept.last_mut() {
            Some(last) if self.filled < self.stride => {
                let both = [last.clone(), span];
                *last = weightiest(&both).clone();
                self.filled += 1;
            }
            _ => {
                self.kept.push(span);
                self.filled = 1;
            }
        }
        if self.kept.len() > 2 * KEPT {
            self.stride *= 2;
            self.kept = self.kept.chunks(2).map(|pair| weightiest(pair).clone()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use order_service::api::Clock;

    use super::*;

    fn hold(acquired: u64, released: Option<u64>) -> LockHold {
        LockHold {
            sku: "x".into(),
            fencing_token: Some(acquired.cast_signed()),
            asked_ns: acquired * 1_000_000,
            acquired_ns: acquired * 1_000_000,
            released_ns: released.map(|ms| ms * 1_000_000),
            written: Vec::new(),
            stale: 0,
            lost: false,
        }
    }

    fn record(replica: &str, now: u64, holds: &[LockHold]) -> HoldRecord {
        HoldRecord {
            replica: replica.into(),
            clock: Clock::Host,
            since_ns: 0,
            dropped: 0,
            now_ns: now * 1_000_000,
            holds: holds.to_vec(),
        }
    }

    #[test]
    fn a_hold_is_one_hold_while_it_lasts_and_when_it_has_ended() {
        let mut live = LiveLocks::new(1, 0);
        assert_eq!(live.heard()[0], Heard::default());
        live.hear(0, record("a", 15, &[hold(10, None)]));
        assert_eq!(live.heard()[0].holding.as_ref().and_then(|hold| hold.token), Some(10));
        live.hear(0, record("a", 25, &[hold(10, Some(20))]));
        // A hold that was released in the moment of the last answer may come twice.
        live.hear(0, record("a", 35, &[hold(10, Some(20)), hold(30, None)]));
        let lane = &live.locks().lanes[0];
        assert_eq!(lane.total, 2);
        assert_eq!(lane.holds.iter().map(|hold| hold.released_ms).collect::<Vec<_>>(), [Some(20.0), None]);
        live.miss(0, "it is stopped".into());
        assert_eq!(live.heard()[0].trouble.as_deref(), Some("it is stopped"));
    }

    #[test]
    fn holds_overlap_whichever_replica_is_asked_first() {
        let (first, second) = (hold(10, Some(30)), hold(20, Some(40)));
        for order in [[0, 1], [1, 0]] {
            let mut live = LiveLocks::new(2, 0);
            let records = [
                record("a", 50, std::slice::from_ref(&first)),
                record("b", 51, std::slice::from_ref(&second)),
            ];
            for number in order {
                live.hear(number, records[number].clone());
            }
            assert_eq!(live.locks().overlapping, 2, "{order:?}");
            let encounter = live.encounter().expect("they met");
            assert_eq!((encounter.at_ms, encounter.holders[0].0.as_str()), (20.0, "a"));
        }
    }

    #[test]
    fn a_hold_that_lasted_when_it_was_asked_for_does_not_overlap_the_next_one() {
        let mut live = LiveLocks::new(2, 0);
        live.hear(0, record("a", 15, &[hold(10, None)]));
        // It has ended meanwhile, which is not known yet.
        live.hear(1, record("b", 25, &[hold(20, None)]));
        assert_eq!(live.overlapping(), 0);
        live.hear(0, record("a", 35, &[hold(10, Some(18))]));
        live.hear(1, record("b", 45, &[hold(20, Some(40))]));
        assert_eq!(live.overlapping(), 0);
    }

    #[test]
    fn the_hold_of_a_replica_that_is_stopped_overlaps_the_next_one() {
        let mut live = LiveLocks::new(2, 0);
        live.hear(0, record("a", 15, &[hold(10, None)]));
        for now in 1..20 {
            let from = now * 100;
            live.hear(1, record("b", from + 99, &[hold(from, Some(from + 50))]));
        }
        // Until it answers again it is not known whether it still had the lock.
        assert_eq!(live.locks().overlapping, 0);
        live.hear(0, record("a", 3_000, &[hold(10, Some(2_500))]));
        assert_eq!(live.locks().overlapping, 20);
        // One that is killed has no hold any more that it had.
        live.hear(1, record("b", 3_000, &[hold(2_900, None)]));
        live.hear(1, record("b", 4_000, &[]));
        assert_eq!(live.locks().lanes[1].holds.last().and_then(|hold| hold.released_ms), Some(3_000.0));
    }

    #[test]
    fn of_many_holds_few_are_kept_and_all_are_counted() {
        let mut live = LiveLocks::new(2, 0);
        for number in 0..5_000 {
            let (replica, from) = ((number % 2) as usize, number * 10);
            live.hear(replica, record(["a", "b"][replica], from + 9, &[hold(from, Some(from + 8))]));
        }
        let locks = live.locks();
        assert_eq!((locks.lanes[0].total, locks.overlapping), (2_500, 0));
        assert!(
            (KEPT..=2 * KEPT + 2).contains(&locks.lanes[0].holds.len()),
            "{}",
            locks.lanes[0].holds.len()
        );
        assert!((CLOSE..=2 * CLOSE).contains(&locks.close_up.iter().map(|lane| lane.holds.len()).sum()));
    }
}
