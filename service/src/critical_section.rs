//! The critical section: take the lock, read, decide, commit, release. The same under every strategy; only
//! the lock differs.

mod plan;
mod replays;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use self::plan::{Evidence, Plan};
use crate::change::{Change, ChangeError, ChangeResult};
use crate::clock;
use crate::commit::{Committer, LockedRow, WriteError};
use crate::config::{Config, FailpointsSection, Guard, PaymentRule};
use crate::holds::{Holds, Recording};
use crate::inventory::StockLevel;
use crate::lock::{Acquire, Lease, Lock, LockError, Mode, Waited};
use crate::order::Sku;
use crate::reader::Reader;
use crate::store::{CommitError, Rejected, Store, WriteBatch};
use crate::telemetry::{CheckoutMetrics, Metrics};

/// How often changes are decided again because of an idempotency key that is taken and yet has no order.
const MAX_FRUITLESS_ROUNDS: u32 = 3;

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
    payment: Option<PaymentRule>,
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
pub(crate) struct KnownLevel {
    level: StockLevel,
    /// The number of the lease under which it was written, where leases of a key are numbered.
    sequence: Option<i64>,
}

/// A product whose lock is held.
pub(crate) struct OpenSection<'a> {
    shared: &'a CriticalSection,
    sku: &'a Sku,
    lease: Lease,
    recording: Recording<'a>,
    /// What the product's row says unless the guard finds otherwise.
    known: Option<StockLevel>,
    /// From when to when the last changes were committed.
    last_commit: Option<(Instant, Instant)>,
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
            payment: config.checkout.payment_rule(),
            think_time: config.checkout.think_time,
            failpoints: config.failpoints,
            metrics: metrics.checkout.clone(),
        }
    }

    /// The record of the latest lock holds under which changes were made.
    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Sees to it that there is such a product.
    pub(crate) async fn find(&self, sku: &Sku) -> Result<(), ChangeError> {
        self.reader.find(sku).await
    }

    /// Whether others have to be given way after a long hold: with neither a lock nor a locked row, whoever
    /// has written last knows the level first, and would go on winning.
    pub(crate) fn gives_way(&self) -> bool {
        !self.has_lock && !self.locks_rows
    }

    /// Asks for the lock of a product.
    pub(crate) fn begin(&self, sku: &Sku) -> Entry {
        Entry { acquire: self.lock.begin(sku.as_str(), Mode::Exclusive), asked_ns: clock::now_ns() }
    }

    /// Enters with a lease that was granted. `memory` is what is known of the product from the last time.
    pub(crate) async fn enter<'a>(
        &'a self,
        sku: &'a Sku,
        entry: Entry,
        lease: Lease,
        memory: Option<KnownLevel>,
    ) -> OpenSection<'a> {
        let recording = self.holds.begin(sku, entry.asked_ns, &lease);
        self.failpoints.after_lock.hit().await;
        let known = self.known(memory, &lease);
        OpenSection { shared: self, sku, lease, recording, known, last_commit: None }
    }

    /// What is known of a product without reading it. It must be so still, since no other holder had the lock
    /// since it was noted; or there is no lock; and if it is not so, the guard will notice.
    fn known(&self, memory: Option<KnownLevel>, lease: &Lease) -> Option<StockLevel> {
        if !self.notes_levels() {
            return None;
        }
        let follows = |last: i64| lease.sequence() == Some(last + 1);
        let memory = memory.filter(|memory| !self.has_lock || memory.sequence.is_some_and(follows));
        let noted = || lease.note().and_then(|note| note.parse().ok());
        memory.map(|memory| memory.level).or_else(noted)
    }

    /// Whether levels may be known without reading: there is the guard, and a row that is locked need not be
    /// read.
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

impl<'s> OpenSection<'s> {
    /// Makes changes in one commit. Returns the result of each, after the commit; `None` where what was read
    /// had changed by then: nothing was written, and the lock has to be taken again. When the future is
    /// dropped, a commit that is in flight goes on.
    pub(crate) async fn execute(&mut self, changes: &[&Change]) -> Vec<Option<ChangeResult>> {
        self.last_commit = None;
        let mut results: Vec<Option<ChangeResult>> = vec![None; changes.len()];
        if matches!(self.rounds(changes, &mut results).await, Round::Over | Round::Stale) {
            return results;
        }
        // Another request has the key of one of them, and there is no order: it is being written, or rolled
        // back. Which of them it is shows when each is tried alone: the others are not refused for it.
        for (change, result) in changes.iter().zip(&mut results) {
            if result.is_some() {
                continue;
            }
            let mut alone = [None];
            match self.rounds(&[change], &mut alone).await {
                Round::Over => [*result] = alone,
                // The lock has to be taken again, for all that are left.
                Round::Stale => break,
                Round::Again => *result = change.key().map(|_| Err(ChangeError::KeyInFlight)),
            }
        }
        results
    }

    /// Decides and commits, again where keys were taken, until all is done or several rounds in a row have
    /// found no result for any change.
    async fn rounds(&mut self, changes: &[&Change], results: &mut [Option<ChangeResult>]) -> Round {
        let open =
            |results: &[Option<ChangeResult>]| results.iter().filter(|result| result.is_none()).count();
        let mut fruitless = 0;
        while fruitless < MAX_FRUITLESS_ROUNDS {
            let before = open(results);
            match self.round(changes, results).await {
                Round::Again if open(results) == 0 => return Round::Over,
                Round::Again if open(results) < before => fruitless = 0,
                Round::Again => fruitless += 1,
                round => return round,
            }
        }
        Round::Again
    }

    /// Whether there is a lock, which would have to be taken again for a change that is still to come.
    pub(crate) fn has_lock(&self) -> bool {
        self.shared.has_lock
    }

    /// Whether others are known to want the lock.
    pub(crate) fn is_contended(&self) -> bool {
        self.lease.is_contended()
    }

    /// From when to when the changes that were executed last were committed; `None` where there was nothing
    /// to write.
    pub(crate) fn last_commit(&self) -> Option<(Instant, Instant)> {
        self.last_commit
    }

    /// Whether the lease is still good.
    pub(crate) fn is_valid(&self) -> bool {
        self.lease.check().is_ok()
    }

    /// Leaves: returns what is known of the product, and the release of the lock, to be waited for.
    pub(crate) fn leave(self) -> (Option<KnownLevel>, impl Future<Output = ()> + use<'s>) {
        let sequence = self.lease.sequence();
        let memory = self.known.map(|level| KnownLevel { level, sequence });
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
                return match replays::find(&self.shared.reader, &open_changes).await {
                    Ok(replays) => {
                        for (index, replay) in open.iter().zip(replays) {
                            results[*index] = replay;
                        }
                        Round::Again
                    }
                    Err(error) => set_all(results, &error),
                };
            }
            Err(WriteError::Rejected(Rejected::OrderChanged)) => {
                for index in open {
                    results[index] = replays::find_changed(&self.shared.reader, changes[index]).await;
                }
                return Round::Again;
            }
            Err(WriteError::Rejected(Rejected::TooManyOrders)) => {
                plan.fail(&ChangeError::TooManyOrders, &ChangeError::TooManyOrders);
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
        if let Err(error) = replays::replace_refused(&self.shared.reader, &open_changes, &mut decided).await {
            return set_refused(results, &open, decided, &error);
        }
        open.into_iter().zip(decided).for_each(|(index, result)| results[index] = Some(result));
        Round::Over
    }

    /// Decides on what is known of the product, or else on what is read. No change is refused on what is only
    /// known: a sale is guarded, a refusal is not.
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
        let begun = Instant::now();
        let committed = match row {
            Some(row) => row.commit(batch, &self.lease).await,
            None => self.shared.committer.commit(batch, &self.lease).await,
        };
        self.last_commit = Some((begun, Instant::now()));
        plan.batch = committed?;
        self.shared.metrics.commits.inc();
        self.recording.wrote(first, last);
        self.known = Some(plan.after).filter(|_| self.shared.notes_levels());
        self.shared.failpoints.after_commit.hit().await;
        Ok(())
    }

    /// What to write, and the results once it is written.
    fn plan(&self, level: StockLevel, changes: &[&Change]) -> Plan {
        let evidence = Evidence {
            strategy: self.shared.strategy,
            token: self.lease.token().map(|token| token.0),
            replica: &self.shared.replica,
            now: now(),
            payment: self.shared.payment,
        };
        let batch = WriteBatch {
            guarded: (self.shared.guard == Guard::Version).then_some(level.version),
            ..WriteBatch::empty(self.sku.clone())
        };
        Plan::new(batch, level, changes, &evidence)
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
