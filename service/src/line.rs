//! The checkout line: what waits for one product on one replica, combined under one lock hold.
//!
//! A worker takes the product's lock, drains what waits into batches, runs the
//! [critical section](crate::section) for each batch, and goes on under the same hold until the line is empty
//! or `max_hold` is over. Nothing waits for a batch to fill: an idle service serves batches of one, and
//! batches grow while a commit is in flight. The idea is flat combining (Hendler, Incze, Shavit, Tzafrir,
//! 2010), with a distributed lock where the paper has a mutex.
//!
//! Under a strategy that does not combine, everything runs at once and on its own.

mod ticket;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::worker::Worker;
use crate::api::{Adjustment, Order, Product};
use crate::checkout::Refusal;
use crate::config::{Config, FailpointsSection};
use crate::holds::{self, Holds};
use crate::lock::{Lock, Mode};
use crate::order::{OrderRequest, ProductRequest, RestockRequest, Sku};
use crate::section::Section;
use crate::telemetry::{CheckoutMetrics, Metrics};

pub use ticket::{Ticket, Waiting};

/// A change of a product's stock.
#[derive(Debug, Clone)]
pub enum Change {
    /// Sell.
    Purchase(OrderRequest),
    /// Take an order back.
    Cancellation(Order),
    /// Add units.
    Restock(RestockRequest),
    /// Start the product afresh.
    Reset(ProductRequest),
}

/// What a change that was made came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The order is confirmed.
    Ordered(Order),
    /// The order was confirmed before.
    Replayed(Order),
    /// The order is cancelled.
    Cancelled(Order),
    /// The units are added.
    Restocked(Adjustment),
    /// The product starts afresh.
    Reset(Product),
}

/// What somebody who waits is told.
pub type Answer = Result<Outcome, Refusal>;

/// The lines of one replica.
pub struct Lines {
    shared: Arc<Shared>,
    lines: RwLock<HashMap<Sku, mpsc::Sender<Waiting>>>,
    /// How many may run at once under a strategy that does not combine.
    places: Arc<Semaphore>,
    closed: CancellationToken,
    out_of_time: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    lock: Arc<dyn Lock>,
    combines: bool,
    section: Section,
    metrics: CheckoutMetrics,
    holds: Holds,
    failpoints: FailpointsSection,
    max_batch: usize,
    max_hold: Duration,
    queue: usize,
    lock_wait: Duration,
}

impl Lines {
    /// Lines whose batches run in `section` under `lock`.
    pub fn new(config: &Config, lock: Arc<dyn Lock>, section: Section, metrics: &Metrics) -> Self {
        let holds_kept = if config.lock.strategy.has_lock() { config.checkout.holds_kept } else { 0 };
        let shared = Shared {
            lock,
            combines: config.lock.strategy.combines(),
            section,
            metrics: metrics.checkout.clone(),
            holds: Holds::new(config.replica(), holds_kept),
            failpoints: config.failpoints,
            max_batch: config.checkout.max_batch,
            max_hold: config.checkout.max_hold,
            queue: config.checkout.queue,
            lock_wait: config.lock.wait,
        };
        Self {
            places: Arc::new(Semaphore::new(shared.queue)),
            shared: Arc::new(shared),
            lines: RwLock::default(),
            closed: CancellationToken::new(),
            out_of_time: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Whether there is a line for the product, which says that the product exists.
    pub fn has(&self, sku: &Sku) -> bool {
        self.lines.read().expect("nothing panics while it holds this").contains_key(sku)
    }

    /// The record of the latest holds of the lock.
    pub fn holds(&self) -> &Holds {
        &self.shared.holds
    }

    /// Joins the line of a product that exists; refused at once when the line is full or closed.
    pub fn join(&self, sku: &Sku, change: Change, due: Instant) -> Result<Ticket, Refusal> {
        if self.closed.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        let (waiting, ticket) = ticket::pair(change, due);
        if self.shared.combines {
            self.line_up(sku, waiting)?;
        } else {
            self.run_alone(sku, waiting)?;
        }
        Ok(ticket)
    }

    fn line_up(&self, sku: &Sku, waiting: Waiting) -> Result<(), Refusal> {
        let send = |line: &mpsc::Sender<Waiting>| {
            line.try_send(waiting).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    Refusal::Overloaded("too many orders wait for this product")
                }
                mpsc::error::TrySendError::Closed(_) => Refusal::ShuttingDown,
            })
        };
        let open = |line: &&mpsc::Sender<Waiting>| !line.is_closed();
        if let Some(line) =
            self.lines.read().expect("nothing panics while it holds this").get(sku).filter(open)
        {
            return send(line);
        }
        let mut lines = self.lines.write().expect("nothing panics while it holds this");
        if self.closed.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        // A line is closed here only when its worker has panicked: the next one starts where it left off.
        lines.retain(|_, line| !line.is_closed());
        send(lines.entry(sku.clone()).or_insert_with(|| {
            let (line, queue) = mpsc::channel(self.shared.queue);
            let worker = Worker::new(sku.clone(), Arc::clone(&self.shared), queue);
            self.spawn(worker.work());
            line
        }))
    }

    /// Spawns a task that is dropped in the middle of its work when the time for the stop is over: its lease is
    /// then released, and who waits is told.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let out_of_time = self.out_of_time.clone();
        self.tasks.spawn(async move { out_of_time.run_until_cancelled(work).await });
    }

    fn run_alone(&self, sku: &Sku, waiting: Waiting) -> Result<(), Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Refusal::Overloaded("too many orders run at once"))?;
        let (sku, shared) = (sku.clone(), Arc::clone(&self.shared));
        self.spawn(async move {
            let _place = place;
            if !waiting.begin() {
                return;
            }
            let deadline = Instant::now() + shared.lock_wait;
            let asked_ns = holds::now_ns();
            match shared.lock.acquire(sku.as_str(), Mode::Exclusive, deadline).await {
                Ok(lease) => {
                    let recording = shared.holds.begin(&sku, asked_ns, &lease);
                    shared.failpoints.after_lock.hit().await;
                    let refused = shared.section.run(&lease, &recording, &sku, vec![waiting]).await;
                    for waiting in refused {
                        waiting.answer(Err(Refusal::Overloaded("the stock changed at the same moment")));
                    }
                    shared.failpoints.before_release.hit().await;
                    recording.end();
                    lease.release().await;
                }
                Err(error) => waiting.answer(Err(error.into())),
            }
        });
        Ok(())
    }

    /// Closes the lines. Returns when all that waits has been served, or at `deadline`; what waits then is
    /// refused as `ShuttingDown`, and what has begun is answered as `OutcomeUnknown`.
    pub async fn close(&self, deadline: Instant) {
        self.closed.cancel();
        self.lines.write().expect("nothing panics while it holds this").clear();
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("orders were still in the line when the time for the stop was over");
            self.out_of_time.cancel();
            self.tasks.wait().await;
        }
    }
}
