//! The queues of one replica: one for each product that is ordered, each with a worker for as long as changes
//! wait.
//!
//! A worker takes the product's lock, drains what waits into batches, has each executed in the [critical
//! section](crate::critical_section), and goes on under the same hold until the queue is empty or `max_hold`
//! is over. Nothing waits for a batch to fill: an idle service serves batches of one, and batches grow while
//! a commit is in flight. The idea is flat combining (Hendler, Incze, Shavit, Tzafrir, 2010), with a
//! distributed lock where the paper has a mutex.
//!
//! Under the strategy that does not combine, everything runs at once and on its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hold_trace::HoldTrace;
use super::queue::{Joined, Queue, QueueLimits};
use super::ticket::{self, QueuedChange, Ticket};
use super::worker::{self, WorkerContext};
use crate::change::{Change, ChangeError};
use crate::config::Config;
use crate::critical_section::{CriticalSection, Entered};
use crate::order::Sku;
use crate::telemetry::{CheckoutMetrics, Metrics};

/// How long a queue is kept that no change joins.
const IDLE: Duration = Duration::from_secs(60);

/// How often it is looked for such queues.
const SWEEP: Duration = Duration::from_secs(10);

/// The queues of one replica.
pub(super) struct Queues {
    shared: Arc<WorkerContext>,
    queues: Arc<Mutex<HashMap<Sku, Arc<Queue>>>>,
    combines: bool,
    /// How many may run at once under the strategy that does not combine.
    places: Arc<Semaphore>,
    closed: CancellationToken,
    out_of_time: CancellationToken,
    workers: TaskTracker,
}

impl Queues {
    /// Queues whose batches are executed in `section`.
    pub(super) fn new(config: &Config, section: CriticalSection, metrics: &Metrics) -> Self {
        let shared = WorkerContext {
            section,
            metrics: metrics.checkout.clone(),
            max_hold: config.checkout.max_hold,
            linger: config.checkout.linger,
            limits: QueueLimits {
                queue: config.checkout.queue,
                max_batch: config.checkout.max_batch,
                lock_wait: config.lock.wait,
            },
        };
        let queues = Self {
            places: Arc::new(Semaphore::new(config.checkout.queue)),
            shared: Arc::new(shared),
            queues: Arc::default(),
            combines: config.lock.strategy.combines(),
            closed: CancellationToken::new(),
            out_of_time: CancellationToken::new(),
            workers: TaskTracker::new(),
        };
        let limit = i64::try_from(config.checkout.queue).unwrap_or(i64::MAX);
        queues.shared.metrics.queue_limit.set(limit);
        let (all, metrics, closed) =
            (Arc::clone(&queues.queues), queues.shared.metrics.clone(), queues.closed.clone());
        queues.workers.spawn(async move { closed.run_until_cancelled(sweep(all, metrics)).await });
        queues
    }

    /// Whether the product is known to exist: it has been ordered lately.
    pub(super) fn has(&self, sku: &Sku) -> bool {
        lock(&self.queues).contains_key(sku)
    }

    /// How many changes wait, and in the longest queue. Without combining, all that run are in one.
    pub(super) fn waiting(&self) -> (usize, usize) {
        if !self.combines {
            let running = self.shared.limits.queue - self.places.available_permits();
            return (running, running);
        }
        let lengths = lock(&self.queues).values().map(|queue| queue.length()).collect::<Vec<_>>();
        (lengths.iter().sum(), lengths.into_iter().max().unwrap_or_default())
    }

    /// The critical section in which batches are executed.
    pub(super) fn section(&self) -> &CriticalSection {
        &self.shared.section
    }

    /// Joins the queue of a product that exists. Returns the ticket, and whether it is attached to another
    /// request's with the same idempotency key. Refused at once when the queue is full or closed.
    pub(super) fn join(
        &self,
        sku: &Sku,
        change: Change,
        due: Instant,
    ) -> Result<(Ticket, bool), ChangeError> {
        let (waiting, ticket) = ticket::pair(change, due);
        // Held to the end, so that nothing begins after the close, and no queue is swept away meanwhile.
        let mut queues = lock(&self.queues);
        if self.closed.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        if !self.combines {
            self.run_alone(sku, waiting)?;
            return Ok((ticket, false));
        }
        let queue = match queues.get(sku) {
            Some(queue) => Arc::clone(queue),
            None => {
                let queue = Arc::new(Queue::new(sku.clone(), self.shared.metrics.abandoned.clone()));
                queues.insert(sku.clone(), Arc::clone(&queue));
                self.shared.metrics.queues.set(i64::try_from(queues.len()).unwrap_or(i64::MAX));
                queue
            }
        };
        let joined = queue.join(waiting, self.shared.limits)?;
        if let Joined::WithoutWorker = joined {
            self.spawn(worker::work(queue, Arc::clone(&self.shared)));
        }
        Ok((ticket, matches!(joined, Joined::Attached)))
    }

    /// Spawns a task that is dropped in the middle of its work when the time for the stop is over: its lease
    /// is then released, and its waiters are notified.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let out_of_time = self.out_of_time.clone();
        // Where it stays: what is spawned is moved several times, and this is large.
        let work = Box::pin(work);
        self.workers.spawn(async move { out_of_time.run_until_cancelled(work).await });
    }

    fn run_alone(&self, sku: &Sku, waiting: QueuedChange) -> Result<(), ChangeError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| ChangeError::overloaded("too many orders run at once"))?;
        let (sku, shared) = (sku.clone(), Arc::clone(&self.shared));
        self.spawn(async move {
            let _place = place;
            if waiting.begin() {
                alone(&sku, &shared, waiting).await;
            }
        });
        Ok(())
    }

    /// Closes the queues. Returns when all that waits has been served, or at `deadline`; what waits then is
    /// refused as `ShuttingDown`, and what has begun is answered as `OutcomeUnknown`.
    pub(super) async fn close(&self, deadline: Instant) {
        {
            let _no_change_joins = lock(&self.queues);
            self.closed.cancel();
        }
        self.workers.close();
        if tokio::time::timeout_at(deadline, self.workers.wait()).await.is_err() {
            tracing::warn!("orders were still waiting when the time for the stop was over");
            self.out_of_time.cancel();
            // Whoever waits without a worker is notified by the end of its queue.
            lock(&self.queues).clear();
            self.workers.wait().await;
        }
        lock(&self.queues).clear();
    }
}

/// Executes one change on its own.
async fn alone(sku: &Sku, shared: &WorkerContext, waiting: QueuedChange) {
    let asked = Instant::now();
    let mut entry = shared.section.begin(sku);
    let lease = match entry.wait(Instant::now() + shared.limits.lock_wait).await {
        Entered::Granted(lease) => lease,
        Entered::Pending(error) | Entered::Failed(error) => return waiting.answer(Err(error)),
    };
    let mut trace = HoldTrace::granted(asked);
    let mut section = shared.section.enter(sku, entry, lease, None).await;
    let taken = Instant::now();
    let result = section.execute(&[&waiting.change]).await.pop().flatten();
    trace.served(std::slice::from_ref(&waiting), taken, section.last_commit());
    waiting.answer(
        result.unwrap_or_else(|| Err(ChangeError::overloaded("the stock changed at the same moment"))),
    );
    drop(trace);
    section.leave().1.await;
}

/// Forgets the queues of products that are not ordered any more.
async fn sweep(queues: Arc<Mutex<HashMap<Sku, Arc<Queue>>>>, metrics: CheckoutMetrics) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let mut queues = lock(&queues);
        queues.retain(|_, queue| !queue.is_idle_for(IDLE));
        if queues.capacity() > 4 * queues.len() {
            queues.shrink_to_fit();
        }
        metrics.queues.set(i64::try_from(queues.len()).unwrap_or(i64::MAX));
    }
}

fn lock<T>(queues: &Mutex<T>) -> MutexGuard<'_, T> {
    queues.lock().expect("nothing panics while it holds this")
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;
    use crate::config::StrategyName;

    #[tokio::test(start_paused = true)]
    async fn queues_that_no_change_joins_are_forgotten() {
        let sku = Sku::parse("hair-dryer").unwrap();
        let queues = Arc::new(Mutex::new(HashMap::new()));
        lock(&queues).insert(sku.clone(), Arc::new(Queue::new(sku.clone(), Counter::default())));
        let metrics = Metrics::new(StrategyName::Local).checkout;
        let sweeping = tokio::spawn(sweep(Arc::clone(&queues), metrics));
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
        assert!(lock(&queues).contains_key(&sku));
        tokio::time::sleep(SWEEP + Duration::from_secs(1)).await;
        assert!(lock(&queues).is_empty());
        sweeping.abort();
    }
}
