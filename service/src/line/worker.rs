//! The worker of one line.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Change, Shared, Waiting};
use crate::checkout::Refusal;
use crate::holds::{self, Recording};
use crate::lock::{Lease, LockError, Mode};
use crate::order::{IdempotencyKey, Sku};

/// How often a change is decided anew when the stock has changed under it.
const MAX_RETRIES: u32 = 100;

pub(super) struct Worker {
    sku: Sku,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Waiting>,
    /// What has left the queue and waits for the next batch, in order.
    next: VecDeque<Waiting>,
}

impl Worker {
    pub(super) fn new(sku: Sku, shared: Arc<Shared>, queue: mpsc::Receiver<Waiting>) -> Self {
        Self { sku, shared, queue, next: VecDeque::new() }
    }

    /// Serves the line until it is closed and empty.
    pub(super) async fn work(mut self) {
        let shared = Arc::clone(&self.shared);
        while self.somebody_waits().await {
            let Some(first) = self.next.front() else { continue };
            let deadline = (first.since + shared.lock_wait).max(Instant::now());
            let asked_ns = holds::now_ns();
            match shared.lock.acquire(self.sku.as_str(), Mode::Exclusive, deadline).await {
                Ok(lease) => {
                    let recording = shared.holds.begin(&self.sku, asked_ns, &lease);
                    shared.failpoints.after_lock.hit().await;
                    let pause = self.hold(&lease, &recording).await;
                    shared.failpoints.before_release.hit().await;
                    recording.end();
                    lease.release().await;
                    tokio::time::sleep(pause).await;
                }
                Err(LockError::Timeout) => self.refuse_overdue(),
                Err(error @ LockError::Unavailable { .. }) => self.refuse_all(&error.into()),
            }
        }
    }

    /// Waits until `next` has somebody who has not withdrawn; `false` when the line is closed and empty.
    async fn somebody_waits(&mut self) -> bool {
        while self.next.pop_front_if(|waiting| waiting.is_withdrawn()).is_some() {
            self.shared.metrics.abandoned.inc();
        }
        if self.next.is_empty() {
            match self.queue.recv().await {
                Some(waiting) => self.next.push_back(waiting),
                None => return false,
            }
        }
        true
    }

    /// Serves batches under one hold. Answers how long to leave the lock alone.
    async fn hold(&mut self, lease: &Lease, recording: &Recording<'_>) -> Duration {
        let hold_until = Instant::now() + self.shared.max_hold;
        loop {
            let batch = self.batch();
            if batch.is_empty() {
                return Duration::ZERO;
            }
            self.shared.metrics.batch_size.observe(batch.len() as f64);
            let stale = self.shared.section.run(lease, recording, &self.sku, batch).await;
            if !stale.is_empty() {
                return self.put_back(stale);
            }
            let textbook = self.shared.max_batch == 1;
            if textbook || Instant::now() >= hold_until || lease.check().is_err() {
                return Duration::ZERO;
            }
        }
    }

    /// The next changes to be made in one transaction, in the order in which they came.
    ///
    /// A batch has an idempotency key and an order to cancel at most once, since the second must see what
    /// became of the first; and a reset is alone.
    fn batch(&mut self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut seen = Seen::default();
        let mut later = VecDeque::new();
        while batch.len() < self.shared.max_batch {
            let Some(waiting) = self.next.pop_front().or_else(|| self.queue.try_recv().ok()) else { break };
            let is_reset = matches!(waiting.change, Change::Reset(_));
            if is_reset && !(batch.is_empty() && later.is_empty()) {
                later.push_back(waiting);
                break;
            }
            if !seen.first_of_its_kind(&waiting.change) {
                later.push_back(waiting);
                if later.len() >= self.shared.max_batch {
                    break;
                }
                continue;
            }
            if !waiting.begin() {
                self.shared.metrics.abandoned.inc();
                continue;
            }
            batch.push(waiting);
            if is_reset {
                break;
            }
        }
        later.append(&mut self.next);
        self.next = later;
        batch
    }

    /// Puts changes back whose stock had changed under them; refuses those that have lost too often.
    fn put_back(&mut self, stale: Vec<Waiting>) -> Duration {
        let mut retries = 0;
        for mut waiting in stale.into_iter().rev() {
            if waiting.retries >= MAX_RETRIES {
                waiting.answer(Err(Refusal::Overloaded("the stock kept changing at the same moment")));
            } else if waiting.due <= Instant::now() {
                waiting.answer(Err(Refusal::LockTimeout));
            } else {
                waiting.put_back();
                retries = retries.max(waiting.retries);
                self.next.push_front(waiting);
            }
        }
        // Jitter that grows with every loss, so that replicas do not meet again at the same moment.
        let most = 500_u64 << retries.min(6);
        Duration::from_micros(rand::rng().random_range(0..=most))
    }

    /// Refuses those who have waited for the lock for as long as they may.
    fn refuse_overdue(&mut self) {
        let now = Instant::now();
        let overdue = |waiting: &Waiting| waiting.since + self.shared.lock_wait <= now;
        loop {
            let Some(waiting) = self.next.pop_front().or_else(|| self.queue.try_recv().ok()) else { return };
            if !overdue(&waiting) {
                self.next.push_front(waiting);
                return;
            }
            waiting.answer(Err(Refusal::LockTimeout));
        }
    }

    /// Refuses everybody who waits now.
    fn refuse_all(&mut self, refusal: &Refusal) {
        while let Some(waiting) = self.next.pop_front().or_else(|| self.queue.try_recv().ok()) {
            waiting.answer(Err(refusal.clone()));
        }
    }
}

/// What a batch may have only once.
#[derive(Default)]
struct Seen {
    keys: HashSet<IdempotencyKey>,
    cancelled: HashSet<Uuid>,
}

impl Seen {
    fn first_of_its_kind(&mut self, change: &Change) -> bool {
        match change {
            Change::Purchase(order) => order.key.as_ref().is_none_or(|key| self.keys.insert(key.clone())),
            Change::Cancellation(order) => self.cancelled.insert(order.id),
            Change::Restock(_) | Change::Reset(_) => true,
        }
    }
}

impl From<LockError> for Refusal {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Timeout => Self::LockTimeout,
            LockError::Unavailable { .. } => Self::DependencyDown(error.to_string()),
        }
    }
}
