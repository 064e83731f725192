//! Who waits for whom, and the stream by which the process is told that a key is gone.
//!
//! There is one stream for all who wait in the process, since each takes a connection: it tells of the
//! deletions of all locks, and each waiter is woken by that of the key right before its own. It is open for
//! as long as somebody waits, and a little longer.
//!
//! Nothing is missed: the stream begins with what came after the earliest revision that one of the waiters
//! may have seen the queue at, also when it is opened again, as it is for one who has seen an earlier one,
//! since the server has lost data; and what it tells of while a waiter looks is kept until it is known whom
//! that waits for. A stream that falls silent is noticed by the first waiter that finds its predecessor gone
//! without having been told, and opened again, of another server if that does not answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use super::api::{Api, ApiError, Range, Watch};
use super::queue::lease_in;
use crate::lock::leased::{Claim, Wakeups};

/// How long the stream stays open after the last one has waited.
const IDLE: Duration = Duration::from_secs(5);

/// How long to wait before the stream is opened again after it has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Who waits for whom.
pub(super) struct Watches {
    /// What the locks' keys begin with, with the slash after it.
    prefix: String,
    wakeups: Arc<Wakeups>,
    waits: Mutex<Waits>,
    /// Announces that somebody waits.
    begun: Notify,
    /// Announces that the stream has to be opened again.
    again: Notify,
    /// What the stream tells of.
    notifications: Counter,
    /// Whether the stream is open.
    is_open: AtomicBool,
}

#[derive(Default)]
struct Waits {
    of_keys: HashMap<Arc<str>, Vec<Wait>>,
    /// When somebody waited last.
    last: Option<Instant>,
    /// The revision that the stream begins with.
    from: i64,
}

struct Wait {
    owner: Uuid,
    /// What the server had come to before the queue was looked at.
    since: i64,
    /// Whom it waits for.
    predecessor: Option<i64>,
    /// Whom it waited for before it looked, unless it was told that they have gone.
    before: Option<i64>,
    /// Of whom it was told that they have gone: whom it waits for, or, while it looks, anybody.
    gone: Vec<i64>,
}

impl Wait {
    /// Whom it waits for, or has waited for before it looked, unless it was told that they have gone.
    fn untold(&self) -> Option<i64> {
        self.predecessor.or(self.before).filter(|lease| !self.gone.contains(lease))
    }
}

impl Watches {
    /// Of the locks whose keys begin with `prefix`.
    pub(super) fn new(prefix: &str, notifications: Counter) -> Self {
        Self {
            prefix: format!("{prefix}/"),
            wakeups: Arc::default(),
            waits: Mutex::default(),
            begun: Notify::new(),
            again: Notify::new(),
            notifications,
            is_open: AtomicBool::new(false),
        }
    }

    /// Where it is announced that a lock may have become free.
    pub(super) fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    /// Whether announcements come.
    pub(super) fn are_heard(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// To be called before a claim looks at its queue, when the server has come to `revision`, or further.
    pub(super) fn looks(&self, claim: &Claim, revision: i64) {
        let mut waits = self.waits();
        let of_key = waits.of_keys.entry(Arc::clone(&claim.key)).or_default();
        let found = of_key.iter().position(|wait| wait.owner == claim.owner);
        let before = found.and_then(|found| of_key.swap_remove(found).untold());
        of_key.push(Wait {
            owner: claim.owner,
            since: revision,
            predecessor: None,
            before,
            gone: Vec::new(),
        });
    }

    /// Has a claim woken, which has looked, when the key of the lease `predecessor` is gone. `None`: it has
    /// its turn.
    pub(super) fn waits_for(&self, claim: &Claim, predecessor: Option<i64>) {
        let mut waits = self.waits();
        let Waits { of_keys, from, last } = &mut *waits;
        let mut of_key = of_keys.get_mut(&claim.key).into_iter().flatten();
        let Some(wait) = of_key.find(|wait| wait.owner == claim.owner) else { return };
        let is_untold = wait.untold().is_some_and(|before| predecessor != Some(before));
        let is_silent = is_untold && self.are_heard();
        if is_silent || wait.since + 1 < *from {
            self.is_open.store(false, Ordering::Release);
            self.again.notify_one();
        }
        let Some(predecessor) = predecessor else { return };
        *last = Some(Instant::now());
        if wait.gone.contains(&predecessor) {
            self.wakeups.wake(&claim.key, Some(claim.owner));
        }
        (wait.predecessor, wait.before) = (Some(predecessor), None);
        self.begun.notify_one();
    }

    /// The claim does not wait any more.
    pub(super) fn forget(&self, claim: &Claim) {
        let mut waits = self.waits();
        let Some(of_key) = waits.of_keys.get_mut(&claim.key) else { return };
        of_key.retain(|wait| wait.owner != claim.owner);
        if of_key.is_empty() {
            waits.of_keys.remove(&claim.key);
        }
    }

    /// Has all look: what they wait for may be gone without a word.
    pub(super) fn wake_all(&self) {
        self.wakeups.wake_all();
    }

    /// Wakes whoever waits for the key of a lease.
    fn gone(&self, key: &str, lease: i64) {
        for wait in self.waits().of_keys.get_mut(key).into_iter().flatten() {
            match wait.predecessor {
                Some(predecessor) if predecessor != lease => continue,
                Some(_) => self.wakeups.wake(key, Some(wait.owner)),
                None => {}
            }
            wait.gone.push(lease);
        }
    }

    /// Begins a stream: from which revision on those who wait have to be told. `None` when nobody waits.
    fn begin(&self) -> Option<i64> {
        let mut waits = self.waits();
        let all = || waits.of_keys.values().flatten();
        if !all().any(|wait| wait.predecessor.is_some()) {
            return None;
        }
        // Also those who are looking, and may be about to wait.
        let from = all().map(|wait| wait.since + 1).min()?;
        waits.from = from;
        Some(from)
    }

    /// Whether somebody waits, or has done so a little while ago.
    fn is_awaited(&self) -> bool {
        let mut waits = self.waits();
        if waits.of_keys.values().flatten().any(|wait| wait.predecessor.is_some()) {
            waits.last = Some(Instant::now());
        }
        waits.last.is_some_and(|last| last.elapsed() < IDLE)
    }

    /// Opens the stream whenever somebody waits. Never returns.
    pub(super) async fn follow(self: Arc<Self>, api: Arc<Api>, round_trips: Counter) {
        loop {
            self.begun.notified().await;
            while let Some(from) = self.begin() {
                round_trips.inc();
                let ended = self.hear(&api, from).await;
                self.is_open.store(false, Ordering::Release);
                if let Err(error) = ended {
                    tracing::debug!(%error, "etcd's announcements do not come");
                    sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
                }
            }
        }
    }

    /// Hears what happens from a revision on, until nobody waits any more, or it has to be opened again.
    async fn hear(&self, api: &Api, from: i64) -> Result<(), ApiError> {
        let mut stream = api.watch(&Watch::deletions(Range::prefix(&self.prefix), from)).await?;
        let mut idle = interval(IDLE);
        loop {
            let next = tokio::select! {
                () = self.again.notified() => return Ok(()),
                _ = idle.tick() => match self.is_awaited() {
                    true => continue,
                    false => return Ok(()),
                },
                next = stream.next() => next?,
            };
            if next.compact_revision.0 > 0 || next.canceled {
                // What is not kept any more may have been what somebody waits for.
                self.wake_all();
                return Err(ApiError::Connection("the stream was cancelled".into()));
            }
            if next.created {
                self.is_open.store(true, Ordering::Release);
            }
            for event in &next.events {
                self.notifications.inc();
                let name = event.kv.key.0.strip_prefix(&self.prefix).and_then(|rest| rest.rsplit_once('/'));
                if let Some((key, lease)) = name
                    && let Some(lease) = lease_in(lease)
                {
                    self.gone(key, lease);
                }
            }
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::lock::Mode;

    fn claim(key: &str, owner: u128) -> Claim {
        let owner = Uuid::from_u128(owner);
        Claim {
            key: key.into(),
            mode: Mode::Exclusive,
            owner,
            holder: "replica".into(),
            lease: None,
            is_abandoned: AtomicBool::new(false),
        }
    }

    fn is_notified(notified: impl Future<Output = ()>) -> bool {
        pin!(notified).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// A claim that waits, and is asked whether it was woken.
    fn waiter(watches: &Watches, claim: &Claim) -> impl Fn() -> bool {
        let waiter = watches.wakeups.register(&claim.key, claim.owner);
        move || is_notified(waiter.woken())
    }

    fn is_opened_again(watches: &Watches) -> bool {
        is_notified(watches.again.notified())
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_end_of_whom_it_waits_for() {
        let watches = Watches::new("/s", Counter::default());
        let (one, other) = (claim("comb", 1), claim("comb", 2));
        let (one_is_woken, other_is_woken) = (waiter(&watches, &one), waiter(&watches, &other));
        watches.looks(&one, 10);
        watches.waits_for(&one, Some(4711));
        watches.looks(&other, 11);
        watches.gone("brush", 4711);
        watches.gone("comb", 4712);
        assert!(!one_is_woken());
        watches.gone("comb", 4711);
        assert!(one_is_woken() && !other_is_woken());
        // What happened while it was looking counts, too.
        watches.waits_for(&other, Some(4711));
        assert!(other_is_woken());
        // It looks again, and what was before is over.
        watches.looks(&one, 12);
        watches.waits_for(&one, Some(4711));
        assert!(!one_is_woken());
        watches.forget(&one);
        watches.gone("comb", 4711);
        assert!(!one_is_woken());
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_begins_with_what_the_earliest_may_have_seen_and_ends_when_nobody_waits() {
        let watches = Watches::new("/s", Counter::default());
        let (one, other, third) = (claim("comb", 1), claim("comb", 2), claim("brush", 3));
        watches.looks(&one, 10);
        assert_eq!((watches.begin(), watches.is_awaited()), (None, false), "it does not wait yet");
        watches.looks(&other, 9);
        watches.waits_for(&one, Some(4711));
        assert_eq!(watches.begin(), Some(10), "the other is still looking");
        watches.looks(&third, 7);
        watches.forget(&one);
        watches.forget(&third);
        assert!(watches.is_awaited(), "the next one may come soon");
        tokio::time::advance(IDLE).await;
        assert_eq!((watches.begin(), watches.is_awaited()), (None, false));
        watches.waits_for(&other, Some(4711));
        tokio::time::advance(IDLE * 2).await;
        assert_eq!((watches.begin(), watches.is_awaited()), (Some(10), true), "it waits on");
        watches.forget(&other);
        assert!(watches.waits().of_keys.is_empty());
    }

    #[tokio::test]
    async fn the_stream_is_opened_again_when_somebody_has_gone_who_was_waited_for_and_it_told_nothing() {
        let watches = Watches::new("/s", Counter::default());
        let one = claim("comb", 1);
        watches.is_open.store(true, Ordering::Release);
        let looks_and_waits_for = |predecessor| {
            watches.looks(&one, 10);
            watches.waits_for(&one, predecessor);
            is_opened_again(&watches)
        };
        assert!(!looks_and_waits_for(Some(4711)));
        assert!(!looks_and_waits_for(Some(4711)), "it looked in vain");
        assert!(looks_and_waits_for(Some(4710)));
        assert!(!looks_and_waits_for(Some(4711)), "it is not open");
        watches.is_open.store(true, Ordering::Release);
        watches.gone("comb", 4711);
        assert!(!looks_and_waits_for(Some(4709)), "it was told");
        watches.looks(&one, 10);
        watches.gone("comb", 4709);
        watches.waits_for(&one, Some(4708));
        assert!(!is_opened_again(&watches), "it was told while it looked");
        watches.looks(&one, 10);
        assert!(looks_and_waits_for(None), "it looked twice, since the first time failed");
    }

    #[tokio::test]
    async fn the_stream_begins_again_for_whoever_has_seen_an_earlier_revision() {
        let watches = Watches::new("/s", Counter::default());
        let (one, other) = (claim("comb", 1), claim("comb", 2));
        watches.looks(&one, 1_000);
        watches.waits_for(&one, Some(4711));
        assert_eq!((watches.begin(), is_opened_again(&watches)), (Some(1_001), false));
        watches.looks(&other, 1_000);
        watches.waits_for(&other, Some(4711));
        assert!(!is_opened_again(&watches));
        // The server has lost its data.
        watches.looks(&other, 5);
        watches.waits_for(&other, Some(4711));
        assert_eq!((is_opened_again(&watches), watches.begin()), (true, Some(6)));
    }
}
