//! The queue of one product on one replica: who waits, in order, and what is known of the product.
//!
//! Of changes with the same idempotency key only the first waits in the queue. The others are attached to it,
//! and get its result: they neither take a place in a batch nor go to the database.

mod arrivals;
mod copies;

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::arrivals::Arrivals;
use self::copies::Copies;
use super::pace::Pace;
use super::ticket::QueuedChange;
use crate::change::{Change, ChangeError, ChangeResult};
use crate::critical_section::KnownLevel;
use crate::order::Sku;

/// How often a change is decided again when the stock has changed under it.
const MAX_RETRIES: u32 = 100;

/// How many may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    /// The most changes that wait for one product.
    pub(super) queue: usize,
    /// The most changes in one batch.
    pub(super) max_batch: usize,
    /// The longest time that a change waits for the lock.
    pub(super) lock_wait: Duration,
}

/// The queue of one product.
pub(super) struct Queue {
    sku: Sku,
    state: Mutex<State>,
    /// Wakes a worker that lingers.
    joined: Notify,
}

struct State {
    waiting: VecDeque<QueuedChange>,
    copies: Copies,
    /// Whether a worker serves the queue.
    has_worker: bool,
    memory: Option<KnownLevel>,
    pace: Pace,
    abandoned: Counter,
    /// When the last batch was taken.
    taken: Instant,
    /// When the last worker left.
    idle_since: Instant,
    arrivals: Arrivals,
    /// Whether the worker holds the lock and waits for the next change.
    lingers: bool,
}

/// What became of a change that has joined.
pub(super) enum Joined {
    /// It waits; there is no worker yet.
    WithoutWorker,
    /// It waits.
    Queued,
    /// It gets the result of the one with the same idempotency key.
    Attached,
}

impl Queue {
    /// An empty queue; `abandoned` counts the changes that are withdrawn from it.
    pub(super) fn new(sku: Sku, abandoned: Counter) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            copies: Copies::default(),
            has_worker: false,
            memory: None,
            pace: Pace::default(),
            abandoned,
            taken: Instant::now(),
            idle_since: Instant::now(),
            arrivals: Arrivals::default(),
            lingers: false,
        };
        Self { sku, state: Mutex::new(state), joined: Notify::new() }
    }

    /// The product whose queue it is.
    pub(super) fn sku(&self) -> &Sku {
        &self.sku
    }

    /// Joins the queue. Refused at once when it is full, or when the change would not come to its turn in
    /// time.
    pub(super) fn join(&self, waiting: QueuedChange, limits: QueueLimits) -> Result<Joined, ChangeError> {
        let mut state = self.lock();
        let Some(waiting) = state.copies.attach(waiting) else { return Ok(Joined::Attached) };
        // What ends orders makes room for others, and nobody is there who could try again.
        if !matches!(waiting.change, Change::Expiry(_)) {
            if state.waiting.len() >= limits.queue {
                return Err(ChangeError::overloaded("too many orders wait for this product"));
            }
            state.shed(&waiting, limits)?;
        }
        state.arrivals.came(waiting.since);
        state.copies.wait_for(&waiting.change);
        state.waiting.push_back(waiting);
        if std::mem::take(&mut state.lingers) {
            self.joined.notify_one();
        }
        if state.has_worker {
            return Ok(Joined::Queued);
        }
        state.has_worker = true;
        Ok(Joined::WithoutWorker)
    }

    /// When the change that has waited for the longest has waited for too long; `None` when none waits.
    pub(super) fn next_overdue(&self, lock_wait: Duration) -> Option<Instant> {
        let mut state = self.lock();
        state.drop_withdrawn();
        state.waiting.front().map(|first| overdue(first, lock_wait))
    }

    /// Refuses those that have waited for too long.
    pub(super) fn refuse_overdue(&self, lock_wait: Duration, error: &ChangeError) {
        let now = Instant::now();
        self.refuse(error, |waiting| overdue(waiting, lock_wait) <= now);
    }

    /// Refuses those that came before `moment`.
    pub(super) fn refuse_older(&self, moment: Instant, error: &ChangeError) {
        self.refuse(error, |waiting| waiting.since <= moment);
    }

    fn refuse(&self, error: &ChangeError, is_over: impl Fn(&QueuedChange) -> bool) {
        let mut refused = Vec::new();
        let mut state = self.lock();
        while let Some(first) = state.waiting.pop_front_if(|first| first.is_withdrawn() || is_over(first)) {
            if first.is_withdrawn() {
                state.abandoned.inc();
            }
            state.promote_copy(&first, &is_over, &mut refused);
            refused.push(first);
        }
        drop(state);
        refused.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
    }

    /// The next changes to be made in one commit, at most `most`, in the order in which they came.
    ///
    /// A batch changes an order at most once, since the second change must see what became of the first; and
    /// a reset is alone.
    pub(super) fn take_batch(&self, most: usize) -> Vec<QueuedChange> {
        let mut batch: Vec<QueuedChange> = Vec::new();
        let mut changed = HashSet::new();
        let mut state = self.lock();
        state.taken = Instant::now();
        while batch.len() < most {
            state.drop_withdrawn();
            let Some(first) = state.waiting.front() else { break };
            let is_alone = matches!(first.change, Change::Reset(_));
            let is_second = first.change.changed_order().is_some_and(|order| !changed.insert(order.id));
            if is_second || (is_alone && !batch.is_empty()) {
                break;
            }
            // One that was withdrawn this very moment is dropped in the next round.
            if !first.begin() {
                continue;
            }
            batch.extend(state.waiting.pop_front());
            if is_alone {
                break;
            }
        }
        batch
    }

    /// Gives those of a batch their results, and those that are attached to them. What has none is put back:
    /// the stock had changed under it. Returns how often one of these has been put back, at the most.
    pub(super) fn settle(&self, batch: Vec<QueuedChange>, results: Vec<Option<ChangeResult>>) -> Option<u32> {
        let mut settled = Vec::with_capacity(batch.len());
        let mut most_retries = None;
        let mut state = self.lock();
        for (mut waiting, result) in batch.into_iter().zip(results).rev() {
            let result = match result {
                Some(result) => result,
                None if waiting.retries >= MAX_RETRIES => {
                    Err(ChangeError::overloaded("the stock kept changing at the same moment"))
                }
                None if waiting.due <= Instant::now() => Err(ChangeError::LockTimeout),
                None => {
                    waiting.put_back();
                    most_retries = most_retries.max(Some(waiting.retries));
                    state.waiting.push_front(waiting);
                    continue;
                }
            };
            let taken = state.taken;
            let next = state.copies.settle(&waiting, &result, taken, &mut settled);
            state.waiting.extend(next);
            settled.push((waiting, result));
        }
        drop(state);
        // In the order in which they came.
        settled.into_iter().rev().for_each(|(waiting, result)| waiting.answer(result));
        most_retries
    }

    /// What is known of the product from the last time.
    pub(super) fn memory(&self) -> Option<KnownLevel> {
        self.lock().memory
    }

    /// Notes what is known of the product now, and that so many batches took so long.
    pub(super) fn note(&self, memory: Option<KnownLevel>, took: Duration, batches: u32) {
        let mut state = self.lock();
        state.memory = memory;
        if batches > 0 {
            state.pace.note(took / batches);
        }
    }

    /// Whether the next change is likely to come within `linger`: the last one did, after the worker had
    /// found nothing more to do, as it has now.
    pub(super) fn expects_more(&self, linger: Duration) -> bool {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.arrivals.ran_dry();
            state.lingers = state.arrivals.are_expected_within(linger);
            return state.lingers;
        }
        true
    }

    /// Waits for a change that is [expected](Self::expects_more), until `deadline`; `false` when none came.
    pub(super) async fn linger(&self, deadline: Instant) -> bool {
        while self.lock().lingers {
            if timeout_at(deadline, self.joined.notified()).await.is_err() {
                break;
            }
        }
        let mut state = self.lock();
        state.lingers = false;
        !state.waiting.is_empty()
    }

    /// Lets the worker go; `false` when it may not, since a change waits.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        state.drop_withdrawn();
        if !state.waiting.is_empty() {
            return false;
        }
        state.leave();
        true
    }

    /// Notes that the worker is gone in the middle of its work. What it had begun is lost, and of what is
    /// attached to that nothing is known.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        let State { waiting, copies, .. } = &mut *state;
        let orphans = copies.take_orphans(waiting);
        state.leave();
        drop(state);
        orphans.into_iter().for_each(|copy| copy.answer(Err(ChangeError::OutcomeUnknown)));
    }

    /// How many changes wait.
    pub(super) fn length(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether nothing has happened for so long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let state = self.lock();
        !state.has_worker && state.idle_since.elapsed() >= time
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }
}

impl State {
    /// Refuses a change whose turn would come too late, as far as those before it show. One that would be
    /// in the next batch is always let in: the pace is measured by those who are.
    fn shed(&self, waiting: &QueuedChange, limits: QueueLimits) -> Result<(), ChangeError> {
        let batches = self.waiting.len() / limits.max_batch;
        let expected = self.pace.of(batches);
        let allowed = overdue(waiting, limits.lock_wait).duration_since(waiting.since);
        if expected <= allowed {
            return Ok(());
        }
        let reason = "orders for this product come faster than they can be served";
        Err(ChangeError::Overloaded { reason, retry_after: expected })
    }

    fn drop_withdrawn(&mut self) {
        while let Some(first) = self.waiting.pop_front_if(|first| first.is_withdrawn()) {
            self.abandoned.inc();
            self.promote_copy(&first, &|_| false, &mut Vec::new());
        }
    }

    /// Gives the place of one that leaves the queue without a result to the next with the same key.
    fn promote_copy(
        &mut self,
        gone: &QueuedChange,
        is_over: &dyn Fn(&QueuedChange) -> bool,
        over: &mut Vec<QueuedChange>,
    ) {
        if let Some(next) = self.copies.promote(gone, is_over, over) {
            self.waiting.push_front(next);
        }
    }

    fn leave(&mut self) {
        self.has_worker = false;
        self.lingers = false;
        self.idle_since = Instant::now();
    }
}

/// When a change has waited for the lock for too long, or its client's time is over.
fn overdue(waiting: &QueuedChange, lock_wait: Duration) -> Instant {
    (waiting.since + lock_wait).min(waiting.due)
}

#[cfg(test)]
mod tests;
