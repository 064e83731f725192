//! The critical section: read, decide, write. The same under every strategy; only the lease differs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderStatus, Product};
use crate::checkout::Refusal;
use crate::config::{Config, FailpointsSection, Guard};
use crate::holds::Recording;
use crate::line::{Answer, Change, Outcome, Waiting};
use crate::lock::{FencingToken, Lease};
use crate::order::{IdempotencyKey, Sku};
use crate::purchase::{Decision, Level, Wish, decide};
use crate::store::{Changes, Reading, Reads, Store, StoreError, WriteError};
use crate::telemetry::{CheckoutMetrics, Metrics};

/// How often a batch is tried again because of an idempotency key that is taken and yet has no order.
const MAX_ROUNDS: u32 = 3;

/// The critical section of one replica.
pub struct Section {
    store: Arc<dyn Store>,
    strategy: &'static str,
    guard: Guard,
    reads: Reads,
    replica: String,
    think_time: Duration,
    store_timeout: Duration,
    lock_wait: Duration,
    failpoints: FailpointsSection,
    metrics: CheckoutMetrics,
}

impl Section {
    /// A critical section on `store`, to be run under leases of `strategy`.
    pub fn new(config: &Config, store: Arc<dyn Store>, metrics: &Metrics) -> Self {
        let strategy = config.lock.strategy;
        Self {
            store,
            strategy: strategy.as_str(),
            guard: config.guard(),
            reads: if strategy.locks_rows() { Reads::ForUpdate } else { Reads::Plain },
            replica: config.replica(),
            think_time: config.checkout.think_time,
            store_timeout: config.store.timeout,
            lock_wait: config.lock.wait,
            failpoints: config.failpoints,
            metrics: metrics.checkout.clone(),
        }
    }

    /// Makes the changes of a batch in one transaction and answers each, after the commit; `recording` is told what
    /// was written and what the guard refused.
    ///
    /// Answers nobody and returns the batch when what was read had changed by the time of the write: then the
    /// lock has to be taken again. Not to be dropped half way: those who wait would not be answered.
    pub async fn run(
        &self,
        lease: &Lease,
        recording: &Recording<'_>,
        sku: &Sku,
        mut batch: Vec<Waiting>,
    ) -> Vec<Waiting> {
        for _ in 0..MAX_ROUNDS {
            if batch.is_empty() {
                return batch;
            }
            let reading = match self.read(sku).await {
                Ok(reading) => reading,
                Err(refusal) => return answer_all(batch, &refusal),
            };
            self.failpoints.after_read.hit().await;
            let mut draft = self.draft(reading.level(), lease.token(), &batch);
            // With nothing to write, what was read is let go of before anything else is asked: a reading may hold one
            // of the store's connections.
            let reading = Some(reading).filter(|_| draft.changes.versions > 0);
            if let Err(error) = self.recall(&batch, &mut draft.answers).await {
                return answer_all(batch, &error.into());
            }
            if !self.think_time.is_zero() {
                tokio::time::sleep(self.think_time).await;
            }
            match self.write(reading, lease, recording, &draft.changes).await {
                Ok(()) => {
                    batch.into_iter().zip(draft.answers).for_each(|(waiting, answer)| waiting.answer(answer));
                    return Vec::new();
                }
                Err(WriteError::Stale) => {
                    self.metrics.stale_writes_rejected.inc();
                    recording.refused();
                    return batch;
                }
                Err(WriteError::KeyTaken) => batch = self.replay(batch).await,
                Err(WriteError::NotCancellable) => batch = self.drop_cancelled(batch).await,
                Err(WriteError::NotWritten(error)) => return answer_all(batch, &error.into()),
                Err(WriteError::Unknown(error)) => {
                    tracing::error!(%error, "the outcome of a commit is not known");
                    return answer_all(batch, &Refusal::OutcomeUnknown);
                }
            }
        }
        // Somebody has the key and nobody has the order: a request that is being written, or rolled back.
        let (with_key, without) = batch.into_iter().partition(|waiting| key(&waiting.change).is_some());
        answer_all(with_key, &Refusal::KeyInFlight);
        without
    }

    async fn read(&self, sku: &Sku) -> Result<Box<dyn Reading>, Refusal> {
        // Where the read locks the row, it is the lock, and may be waited for as long as one.
        let (patience, too_late) = match self.reads {
            Reads::Plain => (self.store_timeout, no_answer()),
            Reads::ForUpdate => (self.lock_wait, Refusal::LockTimeout),
        };
        match timeout(patience, self.store.read(sku, self.reads)).await {
            Ok(Ok(Some(reading))) => Ok(reading),
            Ok(Ok(None)) => Err(Refusal::NoSuchProduct(sku.clone())),
            Ok(Err(StoreError::Busy(_))) if self.reads == Reads::ForUpdate => Err(Refusal::LockTimeout),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(too_late),
        }
    }

    /// Writes, however long it takes: a commit that is given up may still come to pass, and nothing else may be
    /// done under the lock until it has. Whoever waits for the answer has a time-out of its own.
    async fn write(
        &self,
        reading: Option<Box<dyn Reading>>,
        lease: &Lease,
        recording: &Recording<'_>,
        changes: &Changes,
    ) -> Result<(), WriteError> {
        let Some(reading) = reading else { return Ok(()) };
        let read = reading.level().version;
        self.failpoints.before_commit.hit().await;
        reading.write(lease, self.guard, changes).await?;
        recording.wrote(read + 1, read + changes.versions);
        self.failpoints.after_commit.hit().await;
        Ok(())
    }

    /// What to write, and what to answer once it is written.
    fn draft(&self, level: Level, token: Option<FencingToken>, batch: &[Waiting]) -> Draft {
        let wishes: Vec<_> = batch.iter().map(|waiting| wish(&waiting.change)).collect();
        let (decisions, after) = decide(level, &wishes);
        let mut draft = Draft {
            changes: Changes {
                stock_after: after.stock,
                versions: after.version - level.version,
                ..Changes::default()
            },
            answers: Vec::with_capacity(batch.len()),
        };
        let author = Author { section: self, token, now: now() };
        for (waiting, decision) in batch.iter().zip(decisions) {
            draft.add(&author, &waiting.change, decision);
        }
        draft
    }

    /// Turns a refusal for want of stock into a replay, where the idempotency key has an order. A sale needs no
    /// such look-up: the unique constraint on the key speaks up when it is written.
    async fn recall(&self, batch: &[Waiting], answers: &mut [Answer]) -> Result<(), StoreError> {
        let refused = |answer: &Answer| matches!(answer, Err(Refusal::InsufficientStock { .. }));
        let keys = batch.iter().zip(&*answers).filter(|(_, answer)| refused(answer));
        let orders = self.ordered(keys.filter_map(|(waiting, _)| key(&waiting.change)).collect()).await?;
        for (waiting, answer) in batch.iter().zip(answers).filter(|(_, answer)| refused(answer)) {
            if let Some(replayed) = replayed(&waiting.change, &orders) {
                *answer = replayed;
            }
        }
        Ok(())
    }

    /// Answers those whose idempotency key has an order; returns the others.
    async fn replay(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let keys = batch.iter().filter_map(|waiting| key(&waiting.change)).collect();
        let orders = match self.ordered(keys).await {
            Ok(orders) => orders,
            Err(error) => return answer_all(batch, &error.into()),
        };
        let mut others = Vec::new();
        for waiting in batch {
            match replayed(&waiting.change, &orders) {
                Some(answer) => waiting.answer(answer),
                None => others.push(waiting),
            }
        }
        others
    }

    async fn ordered(&self, keys: Vec<&IdempotencyKey>) -> Result<HashMap<String, Order>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let orders = timeout(self.store_timeout, self.store.orders_by_key(&keys)).await;
        let orders = orders.map_err(|_| StoreError::Busy("no answer in time".into()))??;
        Ok(orders.into_iter().collect())
    }

    /// Answers those whose order is cancelled or gone; returns the others.
    async fn drop_cancelled(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let mut others = Vec::new();
        for waiting in batch {
            let Change::Cancellation(order) = &waiting.change else {
                others.push(waiting);
                continue;
            };
            let id = order.id;
            match self.store.order(id).await {
                Ok(Some(order)) if order.status == OrderStatus::Confirmed => others.push(waiting),
                Ok(Some(_)) => waiting.answer(Err(Refusal::NotCancellable(id))),
                Ok(None) => waiting.answer(Err(Refusal::NoSuchOrder(id))),
                Err(error) => waiting.answer(Err(error.into())),
            }
        }
        others
    }
}

/// What to write, and what to answer once it is written.
struct Draft {
    changes: Changes,
    answers: Vec<Answer>,
}

/// Who writes, and when.
struct Author<'a> {
    section: &'a Section,
    token: Option<FencingToken>,
    now: Timestamp,
}

impl Draft {
    fn add(&mut self, author: &Author<'_>, change: &Change, decision: Decision) {
        let (stock_before, stock_after, version) = match decision {
            Decision::Done { stock_before, stock_after, version } => (stock_before, stock_after, version),
            Decision::Insufficient { available, version } => {
                let Wish::Buy(requested) = wish(change) else { unreachable!("only a purchase needs stock") };
                self.answers.push(Err(Refusal::InsufficientStock { requested, available, version }));
                return;
            }
        };
        let adjustment = |sku: &str, delta: i64, reason: String| Adjustment {
            id: Uuid::now_v7(),
            sku: sku.into(),
            delta,
            reason,
            version,
            created_at: author.now,
        };
        let outcome = match change {
            Change::Purchase(request) => {
                let order = Order {
                    id: Uuid::now_v7(),
                    sku: request.sku.as_str().into(),
                    buyer: request.buyer.as_str().into(),
                    quantity: request.quantity.units(),
                    status: OrderStatus::Confirmed,
                    stock_before,
                    stock_after,
                    version,
                    lock: LockEvidence {
                        strategy: author.section.strategy.into(),
                        fencing_token: author.token.map(|token| token.0),
                    },
                    replica: author.section.replica.clone(),
                    created_at: author.now,
                };
                self.changes.orders.push((order.clone(), request.key.clone()));
                Outcome::Ordered(order)
            }
            Change::Cancellation(order) => {
                self.changes.cancelled.push(order.id);
                let reason = format!("cancelled {}", order.id);
                self.changes.adjustments.push(adjustment(&order.sku, order.quantity, reason));
                Outcome::Cancelled(Order { status: OrderStatus::Cancelled, ..order.clone() })
            }
            Change::Restock(restock) => {
                let units = restock.quantity.units();
                let adjustment = adjustment(restock.sku.as_str(), units, restock.reason.as_str().into());
                self.changes.supplied += units;
                self.changes.adjustments.push(adjustment.clone());
                Outcome::Restocked(adjustment)
            }
            Change::Reset(product) => {
                let product = Product {
                    sku: product.sku.as_str().into(),
                    name: product.name.as_str().into(),
                    stock: product.stock,
                    version,
                    supply: product.stock,
                    created_at: author.now,
                };
                self.changes.reset = Some(product.clone());
                Outcome::Reset(product)
            }
        };
        self.answers.push(Ok(outcome));
    }
}

fn wish(change: &Change) -> Wish {
    match change {
        Change::Purchase(order) => Wish::Buy(order.quantity.units()),
        Change::Cancellation(order) => Wish::PutBack(order.quantity),
        Change::Restock(restock) => Wish::Add(restock.quantity.units()),
        Change::Reset(product) => Wish::StartAfresh(product.stock),
    }
}

fn key(change: &Change) -> Option<&IdempotencyKey> {
    match change {
        Change::Purchase(order) => order.key.as_ref(),
        _ => None,
    }
}

/// The answer to a purchase whose idempotency key is among `orders`.
fn replayed(change: &Change, orders: &HashMap<String, Order>) -> Option<Answer> {
    let Change::Purchase(request) = change else { return None };
    let order = orders.get(request.key.as_ref()?.as_str())?;
    if !request.asked_for(order) {
        return Some(Err(Refusal::KeyReused));
    }
    // The same answer as the first time, whatever became of the order since.
    Some(Ok(Outcome::Replayed(Order { status: OrderStatus::Confirmed, ..order.clone() })))
}

fn answer_all(batch: Vec<Waiting>, refusal: &Refusal) -> Vec<Waiting> {
    for waiting in batch {
        waiting.answer(Err(refusal.clone()));
    }
    Vec::new()
}

fn no_answer() -> Refusal {
    Refusal::DependencyDown("the store did not answer in time".into())
}

/// The present, as exactly as the stores keep it.
fn now() -> Timestamp {
    let micros = Timestamp::now().as_microsecond();
    Timestamp::from_microsecond(micros).expect("the present can be told in microseconds")
}
