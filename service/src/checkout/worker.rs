//! The worker of a queue: takes the product's lock, serves batches, and releases it.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::hold_trace::HoldTrace;
use super::queue::{Queue, QueueLimits};
use crate::change::Change;
use crate::critical_section::{CriticalSection, Entered, Entry, OpenSection};
use crate::lock::Lease;
use crate::telemetry::CheckoutMetrics;

/// For how long at least a product is left to others after a long hold, where no lock passes it on.
const WAY: Duration = Duration::from_millis(1);

/// What the workers of a replica share.
pub(super) struct WorkerContext {
    pub(super) section: CriticalSection,
    pub(super) metrics: CheckoutMetrics,
    /// How long one hold takes further batches while changes wait.
    pub(super) max_hold: Duration,
    /// For how long at most a hold waits for another change.
    pub(super) linger: Duration,
    pub(super) limits: QueueLimits,
}

/// Serves a queue until it is empty.
pub(super) async fn work(queue: Arc<Queue>, shared: Arc<WorkerContext>) {
    let leaving = Leaving(&queue);
    let mut begun = Instant::now();
    let mut last_release = Duration::ZERO;
    let mut entered = acquire(&queue, &shared).await;
    loop {
        if let Some((entry, lease, mut trace)) = entered.take() {
            let memory = queue.memory();
            let mut section = shared.section.enter(queue.sku(), entry, lease, memory).await;
            let served = serve(&queue, &shared, &mut section, last_release, &mut trace).await;
            let (memory, release) = section.leave();
            drop(trace);
            queue.note(memory, begun.elapsed(), served.batches);
            begun = Instant::now();
            let release = async {
                release.await;
                last_release = begun.elapsed();
            };
            // Who waits stands in the lock's queue again before the release is through.
            entered = match served.pause {
                None => tokio::join!(biased; release, acquire(&queue, &shared)).1,
                Some(pause) => {
                    release.await;
                    tokio::time::sleep(pause).await;
                    None
                }
            };
        }
        if entered.is_none() {
            if queue.retire() {
                break;
            }
            begun = Instant::now();
            entered = acquire(&queue, &shared).await;
        }
    }
    std::mem::forget(leaving);
}

/// Waits for the lock for as long as a change waits, and refuses meanwhile those that have waited for too
/// long: the place in the lock's queue is kept for the others.
async fn acquire(queue: &Queue, shared: &WorkerContext) -> Option<(Entry, Lease, HoldTrace)> {
    let lock_wait = shared.limits.lock_wait;
    let (mut begun, mut entry) = (Instant::now(), shared.section.begin(queue.sku()));
    while let Some(deadline) = queue.next_overdue(lock_wait) {
        match entry.wait(deadline).await {
            Entered::Granted(lease) => return Some((entry, lease, HoldTrace::granted(begun))),
            Entered::Pending(error) => queue.refuse_overdue(lock_wait, &error),
            Entered::Failed(error) => {
                queue.refuse_older(begun, &error);
                queue.refuse_overdue(lock_wait, &error);
                (begun, entry) = (Instant::now(), shared.section.begin(queue.sku()));
            }
        }
    }
    None
}

/// What was done under one hold.
struct Served {
    batches: u32,
    /// How long to leave the lock alone.
    pause: Option<Duration>,
}

/// Serves batches under one hold, until the queue is empty or the hold has lasted for long enough. The last
/// release took `last_release`.
async fn serve(
    queue: &Queue,
    shared: &WorkerContext,
    section: &mut OpenSection<'_>,
    last_release: Duration,
    trace: &mut HoldTrace,
) -> Served {
    let hold_until = Instant::now() + shared.max_hold;
    let is_textbook = shared.limits.max_batch == 1;
    let mut served = Served { batches: 0, pause: None };
    loop {
        let batch = queue.take_batch(shared.limits.max_batch);
        if batch.is_empty() {
            let until = hold_until.min(Instant::now() + shared.linger);
            let may_linger = section.has_lock() && !is_textbook;
            // Others would hear of a release no sooner than that.
            let most =
                if section.is_contended() { shared.linger.min(last_release / 2) } else { shared.linger };
            let comes = may_linger && queue.expects_more(most) && queue.linger(until).await;
            if comes && section.is_valid() {
                continue;
            }
            return served;
        }
        shared.metrics.batch_size.observe(batch.len() as f64);
        let changes: Vec<&Change> = batch.iter().map(|waiting| &waiting.change).collect();
        let taken = Instant::now();
        let results = section.execute(&changes).await;
        trace.served(&batch, taken, section.last_commit());
        if let Some(retries) = queue.settle(batch, results) {
            // Jitter that grows with every loss, so that replicas do not meet again at the same moment.
            served.pause = Some(micros_up_to(500 << retries.min(4)));
            return served;
        }
        served.batches += 1;
        if Instant::now() >= hold_until {
            served.pause = shared.section.gives_way().then(|| WAY + micros_up_to(1_000));
            return served;
        }
        if is_textbook || !section.is_valid() {
            return served;
        }
    }
}

fn micros_up_to(most: u64) -> Duration {
    Duration::from_micros(rand::rng().random_range(0..=most))
}

/// Notes that the worker is gone when it panics or is dropped: the next change to come starts another.
struct Leaving<'a>(&'a Queue);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
