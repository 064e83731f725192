//! The critical section: take the lock, read, decide, commit, release. The same under every strategy; only the lock
//! differs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderStatus, Product};
use crate::change::{Change, ChangeError, ChangeResult, KeptAnswer, Made, Outcome};
use crate::commit::{Committer, LockedRow, WriteError};
use crate::config::{Config, FailpointsSection, Guard};
use crate::holds::{self, Holds, Recording};
use crate::inventory::{Decision, Operation, StockLevel, decide};
use crate::lock::{Acquire, Lease, Lock, LockError, Mode, Waited};
use crate::order::Sku;
use crate::reader::Reader;
use crate::store::{CommitError, Rejected, Store, WriteBatch};
use crate::telemetry::{CheckoutMetrics, Metrics};

/// How often changes are decided again because of an idempotency key that is taken and yet has no order.
const MAX_ROUNDS: u32 = 3;

/// The critical section of one replica, for all products.
pub(crate) struct CriticalSection {
    lock: Arc<dyn Lock>,
    reader: Reader,
    committer: Committer,
    holds: Holds,
    strategy: &'static str,
    guard: Guard,
    has_lock: bool,
    locks_rows: bool,
    replica: String,
    think_time: Duration,
    failpoints: FailpointsSection,
    metrics: CheckoutMetrics,
}

/// A product's lock that was asked for.
pub(crate) struct Entry {
    acquire: Box<dyn Acquire>,
    asked_ns: u64,
}

/// What came of waiting for a product's lock.
pub(crate) enum Entered {
    /// It is held.
    Granted(Lease),
    /// Not in time, and why; the place in the lock's queue is kept.
    Pending(ChangeError),
    /// The attempt is over; there has to be another.
    Failed(ChangeError),
}

/// What a replica knows of a product that it has written last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    level: StockLevel,
    /// The number of the lease under which it was written, where leases of a key are numbered.
    sequence: Option<i64>,
}

/// A product whose lock is held.
pub(crate) struct Section<'a> {
    shared: &'a CriticalSection,
    sku: &'a Sku,
    lease: Lease,
    recording: Recording<'a>,
    /// What the product's row says unless the guard finds otherwise.
    known: Option<StockLevel>,
}

impl CriticalSection {
    /// A critical section on `store`, under `lock`.
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn Store>,
        lock: Arc<dyn Lock>,
        metrics: &Metrics,
    ) -> Self {
        let strategy = config.lock.strategy;
        let holds_kept = if strategy.has_lock() { config.checkout.holds_kept } else { 0 };
        let combines = strategy.combines() && config.checkout.max_batch > 1;
        Self {
            lock,
            reader: Reader::new(&store, config.store.timeout),
            committer: Committer::new(&store, combines, config.lock.wait),
            holds: Holds::new(config.replica(), holds_kept),
            strategy: strategy.as_str(),
            guard: config.guard(),
            has_lock: strategy.has_lock(),
            locks_rows: strategy.locks_rows(),
            replica: config.replica(),
            think_time: config.checkout.think_time,
            failpoints: config.failpoints,
            metrics: metrics.checkout.clone(),
        }
    }

    /// The record of the latest lock holds under which changes were made.
    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Whether others have to be given way after a long hold: with neither a lock nor a locked row, whoever has written
    /// last knows the level first, and would go on winning.
    pub(crate) fn gives_way(&self) -> bool {
        !self.has_lock && !self.locks_rows
    }

    /// Asks for the lock of a product.
    pub(crate) fn begin(&self, sku: &Sku) -> Entry {
        Entry { acquire: self.lock.begin(sku.as_str(), Mode::Exclusive), asked_ns: holds::now_ns() }
    }

    /// Enters with a lease that was granted. `memory` is what is known of the product from the last time.
    pub(crate) async fn enter<'a>(
        &'a self,
        sku: &'a Sku,
        entry: Entry,
        lease: Lease,
        memory: Option<Memory>,
    ) -> Section<'a> {
        let recording = self.holds.begin(sku, entry.asked_ns, &lease);
        self.failpoints.after_lock.hit().await;
        let known = self.known(memory, &lease);
        Section { shared: self, sku, lease, recording, known }
    }

    /// What is known of a product without reading it. It must be so still, since nobody had the lock since it was noted;
    /// or there is no lock; and if it is not so, the guard will notice.
    fn known(&self, memory: Option<Memory>, lease: &Lease) -> Option<StockLevel> {
        if !self.notes_levels() {
            return None;
        }
        let follows = |last: i64| lease.sequence() == Some(last + 1);
        let memory = memory.filter(|memory| !self.has_lock || memory.sequence.is_some_and(follows));
        let noted = || lease.note().and_then(|note| note.parse().ok());
        memory.map(|memory| memory.level).or_else(noted)
    }

    /// Whether levels may be known without reading: there is the guard, and a row that is locked need not be read.
    fn notes_levels(&self) -> bool {
        self.guard == Guard::Version && !self.locks_rows
    }

    /// Waits for the commits that are in flight.
    pub(crate) async fn close(&self) {
        self.committer.close().await;
    }

    /// What is known of a product whose lock is held: its level, and the row where the strategy locks that.
    async fn read(&self, sku: &Sku) -> Result<(StockLevel, Option<LockedRow>), ChangeError> {
        if self.locks_rows {
            let row = self.committer.lock_row(sku).await?;
            return Ok((row.level, Some(row)));
        }
        Ok((self.reader.level(sku).await?, None))
    }
}

impl Entry {
    /// Waits for the lock until `deadline`.
    pub(crate) async fn wait(&mut self, deadline: Instant) -> Entered {
        match self.acquire.wait(deadline).await {
            Waited::Granted(lease) => Entered::Granted(lease),
            Waited::Pending(error) => Entered::Pending(error.into()),
            Waited::Failed(error) => Entered::Failed(error.into()),
        }
    }
}

/// What came of one round.
enum Round {
    /// Every change has its result.
    Over,
    /// Those without a result are to be decided again.
    Again,
    /// Those without a result are to be decided under a new lease: what was read had changed.
    Stale,
}

impl<'s> Section<'s> {
    /// Makes changes in one commit. Returns the result of each, after the commit; `None` where what was read had changed
    /// by then: nothing was written, and the lock has to be taken again. When the future is dropped, a commit that is in
    /// flight goes on.
    pub(crate) async fn execute(&mut self, changes: &[&Change]) -> Vec<Option<ChangeResult>> {
        let mut results: Vec<Option<ChangeResult>> = vec![None; changes.len()];
        for _ in 0..MAX_ROUNDS {
            match self.round(changes, &mut results).await {
                Round::Over | Round::Stale => return results,
                Round::Again => {}
            }
        }
        // Another request has the key, and there is no order: it is being written, or rolled back.
        for (change, result) in changes.iter().zip(&mut results) {
            if result.is_none() && change.key().is_some() {
                *result = Some(Err(ChangeError::KeyInFlight));
            }
        }
        results
    }

    /// Whether there is a lock, which would have to be taken again for a change that is still to come.
    pub(crate) fn has_lock(&self) -> bool {
        self.shared.has_lock
    }

    /// Whether others are known to want the lock.
    pub(crate) fn is_contended(&self) -> bool {
        self.lease.is_contended()
    }

    /// Whether the lease is still good.
    pub(crate) fn is_valid(&self) -> bool {
        self.lease.check().is_ok()
    }

    /// Leaves: returns what is known of the product, and the release of the lock, to be waited for.
    pub(crate) fn leave(self) -> (Option<Memory>, impl Future<Output = ()> + use<'s>) {
        let sequence = self.lease.sequence();
        let memory = self.known.map(|level| Memory { level, sequence });
        if let Some(level) = self.known {
            self.lease.leave_note(level.to_string());
        }
        let release = async move {
            self.shared.failpoints.before_release.hit().await;
            self.recording.end();
            self.lease.release().await;
        };
        (memory, release)
    }

    async fn round(&mut self, changes: &[&Change], results: &mut [Option<ChangeResult>]) -> Round {
        let open: Vec<_> = (0..changes.len()).filter(|index| results[*index].is_none()).collect();
        let open_changes: Vec<_> = open.iter().map(|index| changes[*index]).collect();
        let set_all = |results: &mut [Option<ChangeResult>], error: &ChangeError| {
            open.iter().for_each(|index| results[*index] = Some(Err(error.clone())));
            Round::Over
        };
        let (mut plan, row) = match self.decide(&open_changes).await {
            Ok(decided) => decided,
            Err(error) => return set_all(results, &error),
        };
        if !self.shared.think_time.is_zero() {
            tokio::time::sleep(self.shared.think_time).await;
        }
        let committed = self.commit(&mut plan, row).await;
        match committed {
            Ok(()) => {}
            Err(WriteError::Rejected(Rejected::Stale | Rejected::Busy)) => {
                self.shared.metrics.stale_writes_rejected.inc();
                self.recording.refused();
                return Round::Stale;
            }
            Err(WriteError::Rejected(Rejected::KeyTaken)) => {
                return match self.find_replays(&open_changes).await {
                    Ok(replays) => {
                        for (index, replay) in open.iter().zip(replays) {
                            results[*index] = replay;
                        }
                        Round::Again
                    }
                    Err(error) => set_all(results, &error),
                };
            }
            Err(WriteError::Rejected(Rejected::NotCancellable)) => {
                for index in open {
                    results[index] = self.find_not_cancellable(changes[index]).await;
                }
                return Round::Again;
            }
            Err(WriteError::Failed(CommitError::NotWritten(error))) => {
                let error = error.into();
                plan.fail(&error, &error);
            }
            Err(WriteError::Failed(CommitError::Unknown(error))) => {
                tracing::error!(%error, sku = self.sku.as_str(), "the outcome of a commit is not known");
                plan.fail(&ChangeError::OutcomeUnknown, &error.into());
            }
        }
        let mut decided = plan.into_results();
        if let Err(error) = self.replay_refused(&open_changes, &mut decided).await {
            return set_refused(results, &open, decided, &error);
        }
        open.into_iter().zip(decided).for_each(|(index, result)| results[index] = Some(result));
        Round::Over
    }

    /// Decides on what is known of the product, or else on what is read. Nobody is refused on what is only known: a sale
    /// is guarded, a refusal is not.
    async fn decide(&mut self, changes: &[&Change]) -> Result<(Plan, Option<LockedRow>), ChangeError> {
        if let Some(level) = self.known {
            self.shared.failpoints.after_read.hit().await;
            let plan = self.plan(level, changes);
            if !plan.refuses {
                return Ok((plan, None));
            }
        }
        let (level, row) = self.shared.read(self.sku).await?;
        self.known = Some(level).filter(|_| self.shared.notes_levels());
        self.shared.failpoints.after_read.hit().await;
        let plan = self.plan(level, changes);
        // With nothing to write, a row is let go of before anything else is asked.
        let row = row.filter(|_| !plan.batch.is_empty());
        Ok((plan, row))
    }

    async fn commit(&mut self, plan: &mut Plan, row: Option<LockedRow>) -> Result<(), WriteError> {
        if plan.batch.is_empty() {
            return Ok(());
        }
        let (first, last) = (plan.after.version - plan.batch.versions + 1, plan.after.version);
        self.known = None;
        self.shared.failpoints.before_commit.hit().await;
        let batch = plan.take_batch();
        let committed = match row {
            Some(row) => row.commit(batch, &self.lease).await,
            None => self.shared.committer.commit(batch, &self.lease).await,
        };
        plan.batch = committed?;
        self.recording.wrote(first, last);
        self.known = Some(plan.after).filter(|_| self.shared.notes_levels());
        self.shared.failpoints.after_commit.hit().await;
        Ok(())
    }

    /// What to write, and the results once it is written.
    fn plan(&self, level: StockLevel, changes: &[&Change]) -> Plan {
        let operations: Vec<_> = changes.iter().map(|change| operation(change)).collect();
        let (decisions, after) = decide(level, &operations);
        let batch = WriteBatch {
            guarded: (self.shared.guard == Guard::Version).then_some(level.version),
            stock_after: after.stock,
            versions: after.version - level.version,
            ..WriteBatch::empty(self.sku.clone())
        };
        let planned = Vec::with_capacity(changes.len());
        let mut plan = Plan { batch, before: level.version, after, planned, refuses: false };
        let evidence = Evidence {
            strategy: self.shared.strategy,
            token: self.lease.token().map(|token| token.0),
            replica: &self.shared.replica,
            now: now(),
        };
        for (change, decision) in changes.iter().zip(decisions) {
            plan.add(&evidence, change, decision);
        }
        plan
    }

    /// Turns refusals for want of stock into replays, where the idempotency key has an order. A sale needs no such
    /// look-up: the unique constraint on the key rejects it when it is written.
    async fn replay_refused(
        &self,
        changes: &[&Change],
        results: &mut [ChangeResult],
    ) -> Result<(), ChangeError> {
        let refused = |result: &ChangeResult| matches!(result, Err(ChangeError::InsufficientStock { .. }));
        let keys = changes.iter().zip(&*results).filter(|(_, result)| refused(result));
        let keys = keys.filter_map(|(change, _)| change.key().cloned()).collect();
        let orders = self.shared.reader.orders(keys).await?;
        for (change, result) in changes.iter().zip(results).filter(|(_, result)| refused(result)) {
            if let Some(replayed) = replayed(change, &orders) {
                *result = replayed;
            }
        }
        Ok(())
    }

    /// The results of those changes whose idempotency keys have orders.
    async fn find_replays(&self, changes: &[&Change]) -> Result<Vec<Option<ChangeResult>>, ChangeError> {
        let keys =
            changes.iter().filter(|change| change.is_purchase()).filter_map(|change| change.key().cloned());
        let orders = self.shared.reader.orders(keys.collect()).await?;
        let keys = changes.iter().filter(|change| !change.is_purchase()).filter_map(|change| change.key());
        let kept = self.shared.reader.kept_answers(&keys.collect::<Vec<_>>()).await?;
        let found = |change: &&Change| match change.is_purchase() {
            true => replayed(change, &orders),
            false => repeated(change, &kept),
        };
        Ok(changes.iter().map(found).collect())
    }

    /// The result of a cancellation whose order is cancelled or gone: perhaps by the same request.
    async fn find_not_cancellable(&self, change: &Change) -> Option<ChangeResult> {
        let Change::Cancellation(Order { id, .. }, ref key) = *change else { return None };
        match self.shared.reader.kept_answers(key.as_ref().as_slice()).await {
            Ok(kept) if !kept.is_empty() => return repeated(change, &kept),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        let order = self.shared.reader.order(id).await;
        match order {
            Ok(Some(order)) if order.status == OrderStatus::Confirmed => None,
            Ok(Some(_)) => Some(Err(ChangeError::NotCancellable(id))),
            Ok(None) => Some(Err(ChangeError::NoSuchOrder(id))),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The refusals could not be looked up: those get the error, all others their results.
fn set_refused(
    results: &mut [Option<ChangeResult>],
    open: &[usize],
    decided: Vec<ChangeResult>,
    error: &ChangeError,
) -> Round {
    for (index, result) in open.iter().zip(decided) {
        let refused = matches!(result, Err(ChangeError::InsufficientStock { .. }));
        results[*index] = Some(if refused { Err(error.clone()) } else { result });
    }
    Round::Over
}

/// What to write, and the results once it is written.
struct Plan {
    batch: WriteBatch,
    /// The version that was decided on.
    before: i64,
    after: StockLevel,
    planned: Vec<Planned>,
    /// Whether a change is refused for want of stock.
    refuses: bool,
}

/// The result of a change, once what was planned is written.
enum Planned {
    /// The next order of the batch.
    Order,
    /// This.
    Result(ChangeResult),
    /// This, of which nothing has to be written.
    Refused(ChangeError),
}

/// What every order says about the hold under which it was written.
struct Evidence<'a> {
    strategy: &'static str,
    token: Option<i64>,
    replica: &'a str,
    now: Timestamp,
}

impl Plan {
    fn add(&mut self, evidence: &Evidence<'_>, change: &Change, decision: Decision) {
        let (stock_before, stock_after, version) = match decision {
            Decision::Done { stock_before, stock_after, version } => (stock_before, stock_after, version),
            Decision::Insufficient { available, version } => {
                let Operation::Sell(requested) = operation(change) else {
                    unreachable!("only a purchase needs stock")
                };
                self.refuses = true;
                let refused = ChangeError::InsufficientStock { requested, available, version };
                self.planned.push(Planned::Refused(refused));
                return;
            }
        };
        let adjustment = |sku: &str, delta: i64, reason: String| Adjustment {
            id: Uuid::now_v7(),
            sku: sku.into(),
            delta,
            reason,
            version,
            created_at: evidence.now,
        };
        let planned = match change {
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
                    lock: LockEvidence { strategy: evidence.strategy.into(), fencing_token: evidence.token },
                    replica: evidence.replica.into(),
                    created_at: evidence.now,
                };
                self.batch.orders.push((order, request.key.clone()));
                Planned::Order
            }
            Change::Cancellation(order, _) => {
                self.batch.cancelled.push(order.id);
                let reason = format!("cancelled {}", order.id);
                self.batch.adjustments.push(adjustment(&order.sku, order.quantity, reason));
                let cancelled = Order { status: OrderStatus::Cancelled, ..order.clone() };
                self.made(change, Outcome::Cancelled(cancelled))
            }
            Change::Restock(restock) => {
                let units = restock.quantity.units();
                let adjustment = adjustment(restock.sku.as_str(), units, restock.reason.as_str().into());
                self.batch.supplied += units;
                self.batch.adjustments.push(adjustment.clone());
                self.made(change, Outcome::Restocked(adjustment))
            }
            Change::Reset(product) => {
                let product = Product {
                    sku: product.sku.as_str().into(),
                    name: product.name.as_str().into(),
                    stock: product.stock,
                    version,
                    supply: product.stock,
                    created_at: evidence.now,
                };
                self.batch.reset = Some(product.clone());
                self.made(change, Outcome::Reset(product))
            }
        };
        self.planned.push(planned);
    }

    /// A change other than an order that is made once the batch is written, and the answer that is kept for it.
    fn made(&mut self, change: &Change, outcome: Outcome) -> Planned {
        self.batch.answers.extend(KeptAnswer::of(change.key(), || change.request(), &outcome));
        Planned::Result(Ok(outcome.into()))
    }

    /// The batch, to be written; its place is taken by an empty one.
    fn take_batch(&mut self) -> WriteBatch {
        let nothing = WriteBatch::empty(self.batch.sku.clone());
        std::mem::replace(&mut self.batch, nothing)
    }

    /// Nothing was written, or nobody knows: gives every change that was to be written the result `failed`, and `undecided`
    /// to every one that was refused on account of those before it.
    fn fail(&mut self, failed: &ChangeError, undecided: &ChangeError) {
        for planned in &mut self.planned {
            match planned {
                Planned::Refused(ChangeError::InsufficientStock { version, .. })
                    if *version == self.before => {}
                Planned::Refused(_) => *planned = Planned::Result(Err(undecided.clone())),
                Planned::Order | Planned::Result(_) => *planned = Planned::Result(Err(failed.clone())),
            }
        }
    }

    /// The result of each change, now that the batch is written.
    fn into_results(self) -> Vec<ChangeResult> {
        let mut orders = self.batch.orders.into_iter().map(|(order, _)| order);
        let result = |planned| match planned {
            Planned::Order => {
                Ok(Outcome::Ordered(orders.next().expect("each has its order in the batch")).into())
            }
            Planned::Result(result) => result,
            Planned::Refused(error) => Err(error),
        };
        self.planned.into_iter().map(result).collect()
    }
}

fn operation(change: &Change) -> Operation {
    match change {
        Change::Purchase(order) => Operation::Sell(order.quantity.units()),
        Change::Cancellation(order, _) => Operation::Return(order.quantity),
        Change::Restock(restock) => Operation::Add(restock.quantity.units()),
        Change::Reset(product) => Operation::Reset(product.stock),
    }
}

/// The result of a purchase whose idempotency key is among `orders`.
fn replayed(change: &Change, orders: &HashMap<String, Order>) -> Option<ChangeResult> {
    let Change::Purchase(request) = change else { return None };
    let order = orders.get(request.key.as_ref()?.as_str())?;
    if !request.asked_for(order) {
        return Some(Err(ChangeError::KeyReused));
    }
    // The same result as the first time, whatever became of the order since.
    let outcome = Outcome::Ordered(Order { status: OrderStatus::Confirmed, ..order.clone() });
    Some(Ok(Made { outcome, replayed: true }))
}

/// The result of a change other than a purchase whose idempotency key is among `kept`.
fn repeated(change: &Change, kept: &[KeptAnswer]) -> Option<ChangeResult> {
    let key = change.key()?;
    kept.iter().find(|kept| kept.key == *key).map(|kept| change.replayed(kept))
}

/// The present, as exactly as the stores keep it.
fn now() -> Timestamp {
    let micros = Timestamp::now().as_microsecond();
    Timestamp::from_microsecond(micros).expect("the present can be told in microseconds")
}

impl From<LockError> for ChangeError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Timeout => Self::LockTimeout,
            LockError::Unavailable { .. } => Self::DependencyDown(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_what_was_not_written_is_not_told() {
        let refused = |version| {
            Planned::Refused(ChangeError::InsufficientStock { requested: 2, available: 1, version })
        };
        let sku = Sku::parse("comb").expect("a name");
        let after = StockLevel { stock: 0, version: 8, supply: 1 };
        for failed in [ChangeError::OutcomeUnknown, ChangeError::DependencyDown("failed".into())] {
            let undecided = ChangeError::DependencyDown("undecided".into());
            let mut plan = Plan {
                batch: WriteBatch::empty(sku.clone()),
                before: 7,
                after,
                // The first found too few; the third would have, had the second been written.
                planned: vec![refused(7), Planned::Order, refused(8)],
                refuses: true,
            };
            plan.fail(&failed, &undecided);
            let results: Vec<_> = plan.into_results().into_iter().map(|result| result.map(drop)).collect();
            let truly = ChangeError::InsufficientStock { requested: 2, available: 1, version: 7 };
            assert_eq!(results, [Err(truly), Err(failed), Err(undecided)]);
        }
    }
}
