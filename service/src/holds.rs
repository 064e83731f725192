//! The record of the latest exclusive lock holds: from when to when each lasted, and what was written
//! meanwhile.
//!
//! A lock can be judged by what became of the stock; whether it excluded can only be judged by its holds.
//! With the records of all replicas on a host it can be checked afterwards that no two holds of a product's
//! lock overlapped, and if two did, whether the guard refused what the late one wrote.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use crate::api::{Clock, HoldRecord, LockHold};
use crate::clock::now_ns;
use crate::lock::{FencingToken, Lease};
use crate::order::Sku;

/// How many runs of versions a hold has at most. A hold that is alone has one.
const MAX_RUNS: usize = 100;

/// The record of one replica: the holds that last, and the latest that ended, of all products together.
pub struct Holds {
    replica: String,
    kept: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    begun: u64,
    /// By number, so that they are in the order in which they began.
    lasting: BTreeMap<u64, RecordedHold>,
    ended: VecDeque<RecordedHold>,
    dropped: u64,
    complete_since_ns: u64,
}

struct RecordedHold {
    sku: Sku,
    token: Option<FencingToken>,
    asked_ns: u64,
    acquired_ns: u64,
    released_ns: Option<u64>,
    /// The first run of versions.
    written: Option<[i64; 2]>,
    /// Further runs, apart, so that the usual hold allocates nothing.
    written_later: Vec<[i64; 2]>,
    stale: u32,
    lost: bool,
}

impl Holds {
    /// The record of a replica, of at most `kept` holds that have ended; of none at all when that is 0.
    pub fn new(replica: String, kept: usize) -> Self {
        let inner = Inner {
            begun: 0,
            lasting: BTreeMap::new(),
            ended: VecDeque::new(),
            dropped: 0,
            complete_since_ns: now_ns(),
        };
        Self { replica, kept, inner: Mutex::new(inner) }
    }

    /// Records the hold of the lock on `sku`, which was asked for at `asked_ns`. It has begun when the lease
    /// was granted: a process that is stopped after that enters when others have had the lock meanwhile.
    pub fn begin<'a>(&'a self, sku: &Sku, asked_ns: u64, lease: &Lease) -> Recording<'a> {
        let acquired_ns = lease.granted_ns();
        let number = (self.kept > 0).then(|| {
            let mut inner = self.lock();
            inner.begun += 1;
            let number = inner.begun;
            inner.lasting.insert(
                number,
                RecordedHold {
                    sku: sku.clone(),
                    token: lease.token(),
                    asked_ns,
                    acquired_ns,
                    released_ns: None,
                    written: None,
                    written_later: Vec::new(),
                    stale: 0,
                    lost: false,
                },
            );
            number
        });
        Recording { holds: self, lease: lease.enter(), number }
    }

    /// What is recorded of the holds of one product.
    pub fn of(&self, sku: &Sku) -> HoldRecord {
        self.after(sku, 0)
    }

    /// The same without the holds that were released before `after_ns`, the `now_ns` of an earlier record.
    pub fn after(&self, sku: &Sku, after_ns: u64) -> HoldRecord {
        let inner = self.lock();
        // They are in the order in which they were released.
        let known = inner.ended.partition_point(|hold| hold.released_ns < Some(after_ns));
        let now_ns = now_ns();
        HoldRecord {
            replica: self.replica.clone(),
            clock: CLOCK,
            since_ns: if self.kept > 0 { inner.complete_since_ns } else { now_ns },
            dropped: inner.dropped,
            now_ns,
            // The holds of one product come one after the other: none that has ended began after one that
            // lasts.
            holds: inner
                .ended
                .range(known..)
                .chain(inner.lasting.values())
                .filter(|hold| hold.sku == *sku)
                .map(RecordedHold::to_api)
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds this")
    }
}

/// A hold that is being recorded. To be ended right before the release; its drop ends it too.
pub struct Recording<'a> {
    holds: &'a Holds,
    lease: Lease,
    /// `None` where nothing is recorded.
    number: Option<u64>,
}

impl Recording<'_> {
    /// Records that these versions were committed.
    pub fn wrote(&self, first: i64, last: i64) {
        self.update(|hold| hold.wrote(first, last));
    }

    /// Records that the guard refused a write.
    pub fn refused(&self) {
        self.update(|hold| hold.stale += 1);
    }

    /// Records that the lock is released now.
    pub fn end(self) {}

    fn update(&self, change: impl FnOnce(&mut RecordedHold)) {
        let Some(number) = self.number else { return };
        if let Some(hold) = self.holds.lock().lasting.get_mut(&number) {
            change(hold);
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let lost = self.lease.check().is_err();
        let mut inner = self.holds.lock();
        // Read under the lock, so that holds are recorded in the order in which they were released.
        let released_ns = now_ns();
        let Some(hold) = inner.lasting.remove(&number) else { return };
        if inner.ended.len() >= self.holds.kept
            && let Some(oldest) = inner.ended.pop_front()
        {
            inner.dropped += 1;
            inner.complete_since_ns = inner.complete_since_ns.max(oldest.released_ns.unwrap_or_default());
        }
        inner.ended.push_back(RecordedHold { released_ns: Some(released_ns), lost, ..hold });
    }
}

impl RecordedHold {
    fn wrote(&mut self, first: i64, last: i64) {
        let full = self.written_later.len() + 1 >= MAX_RUNS;
        match self.written_later.last_mut().or(self.written.as_mut()) {
            None => self.written = Some([first, last]),
            Some(run) if run[1] + 1 == first => run[1] = last,
            Some(run) if full => *run = [run[0].min(first), run[1].max(last)],
            Some(_) => self.written_later.push([first, last]),
        }
    }

    fn to_api(&self) -> LockHold {
        LockHold {
            sku: self.sku.as_str().into(),
            fencing_token: self.token.map(|token| token.0),
            asked_ns: self.asked_ns,
            acquired_ns: self.acquired_ns,
            released_ns: self.released_ns,
            written: self.written.iter().chain(&self.written_later).copied().collect(),
            stale: self.stale,
            lost: self.lost,
        }
    }
}

#[cfg(unix)]
const CLOCK: Clock = Clock::Host;

#[cfg(not(unix))]
const CLOCK: Clock = Clock::Process;

#[cfg(test)]
mod tests {
    use super::*;

    fn hair_dryer() -> Sku {
        Sku::parse("hair-dryer").unwrap()
    }

    fn one_hold(holds: &Holds, sku: &Sku) {
        let lease = Lease::unlimited(None);
        holds.begin(sku, now_ns(), &lease).end();
    }

    #[test]
    fn a_hold_is_seen_while_it_lasts_and_when_it_has_ended() {
        let holds = Holds::new("a".into(), 10);
        let asked_ns = now_ns();
        let lease = Lease::unlimited(None);
        // Stopped between the grant and the record, it would take any later moment for that of the grant.
        let granted_by = now_ns();
        let recording = holds.begin(&hair_dryer(), asked_ns, &lease);
        recording.wrote(4, 6);
        recording.refused();
        let lasting = holds.of(&hair_dryer()).holds.remove(0);
        assert_eq!((lasting.asked_ns, lasting.released_ns), (asked_ns, None));
        assert_eq!((&lasting.written[..], lasting.stale), (&[[4, 6]][..], 1));
        recording.end();
        let ended = holds.of(&hair_dryer()).holds.remove(0);
        assert!((asked_ns..=granted_by).contains(&ended.acquired_ns), "{ended:?}");
        assert!(ended.released_ns.unwrap() >= granted_by);
        assert_eq!(LockHold { released_ns: None, ..ended }, lasting);
        assert_eq!(holds.of(&Sku::parse("other").unwrap()).holds, []);
    }

    #[test]
    fn the_record_is_bounded_and_says_since_when_it_is_complete() {
        let holds = Holds::new("a".into(), 3);
        let lease = Lease::unlimited(None);
        let lasting = holds.begin(&hair_dryer(), now_ns(), &lease);
        one_hold(&holds, &hair_dryer());
        let first = holds.of(&hair_dryer()).holds[0].released_ns.unwrap();
        assert_eq!(holds.of(&hair_dryer()).dropped, 0);
        assert!(holds.of(&hair_dryer()).since_ns < first);
        for _ in 0..3 {
            one_hold(&holds, &Sku::parse("other").unwrap());
        }
        let record = holds.of(&hair_dryer());
        assert_eq!((record.dropped, record.since_ns), (1, first));
        // The one that lasts stays, however many have ended meanwhile.
        assert_eq!(record.holds.len(), 1);
        lasting.end();
    }

    #[test]
    fn whoever_asks_again_gets_each_hold_once_and_those_that_last() {
        let holds = Holds::new("a".into(), 10);
        let lease = Lease::unlimited(None);
        one_hold(&holds, &hair_dryer());
        let first = holds.after(&hair_dryer(), 0);
        assert_eq!(first.holds.len(), 1);
        let lasting = holds.begin(&hair_dryer(), now_ns(), &lease);
        for _ in 0..2 {
            let second = holds.after(&hair_dryer(), first.now_ns);
            assert_eq!(second.holds.iter().map(|hold| hold.released_ns).collect::<Vec<_>>(), [None]);
        }
        lasting.end();
        let third = holds.after(&hair_dryer(), first.now_ns);
        assert_eq!(third.holds.len(), 1);
        assert_eq!(holds.after(&hair_dryer(), third.now_ns).holds, []);
    }

    #[test]
    fn nothing_is_recorded_where_nothing_is_kept() {
        let holds = Holds::new("a".into(), 0);
        one_hold(&holds, &hair_dryer());
        let record = holds.of(&hair_dryer());
        assert_eq!((record.holds.len(), record.dropped, record.since_ns), (0, 0, record.now_ns));
    }

    #[test]
    fn batches_that_follow_each_other_are_one_run_and_the_runs_are_bounded() {
        let holds = Holds::new("a".into(), 1);
        let lease = Lease::unlimited(None);
        let recording = holds.begin(&hair_dryer(), now_ns(), &lease);
        let written = || holds.of(&hair_dryer()).holds.remove(0).written;
        assert_eq!(written(), [[0; 2]; 0]);
        recording.wrote(1, 3);
        recording.wrote(4, 4);
        assert_eq!(written(), [[1, 4]]);
        recording.wrote(3, 5);
        recording.wrote(6, 6);
        assert_eq!(written(), [[1, 4], [3, 6]]);
        for version in 1..=1_000 {
            recording.wrote(10 * version, 10 * version);
        }
        assert_eq!(written().len(), MAX_RUNS);
        assert_eq!(written().last().unwrap()[1], 10_000);
    }
}
