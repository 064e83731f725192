//! The committer: what was decided for many products is written by one commit.
//!
//! Whoever holds a product's lock hands over what was decided under it. While one commit is in flight, all
//! that is handed over gathers for the next. A product whose version has moved is rejected alone; the others
//! are written.
//!
//! In textbook mode, and under the strategy that combines nothing, each product has a commit of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::change::ChangeError;
use crate::combine::{Combiner, FlightLimits};
use crate::inventory::StockLevel;
use crate::lock::Lease;
use crate::order::Sku;
use crate::store::{CommitError, Rejected, RowLevel, Store, StoreError, WriteBatch, Written};

/// The most products in one commit.
const PRODUCTS: usize = 512;

/// How many commits of one product each may be in flight at the same time: those that are not combined, and
/// those that wait for a row which another transaction has locked. Fewer than the store has connections, so
/// that these are never all taken.
const ALONE: usize = 12;

/// Writes together what was decided at the same time.
pub(crate) struct Committer {
    decided: Combiner<Decided>,
    rows: Combiner<RowRequest>,
    alone: Arc<Alone>,
}

/// What goes into a commit of its own, since it has to wait for its row.
struct Alone {
    decided: Combiner<Decided>,
    rows: Combiner<RowRequest>,
}

/// What was decided for a product, and the lease under which it was.
struct Decided {
    batch: WriteBatch,
    /// Held until the commit's fate is known, whatever becomes of those who wait for it.
    lease: Lease,
    done: oneshot::Sender<Committed>,
}

/// The batch that was written, for its orders, or why it was not.
type Committed = Result<WriteBatch, WriteError>;

/// Why a batch was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    /// It was rejected; nothing of it was written.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The commit failed: nothing was written, or it is not known.
    #[error(transparent)]
    Failed(#[from] CommitError),
}

/// A request to decide on a product while its row is locked.
struct RowRequest {
    sku: Sku,
    level: oneshot::Sender<Result<StockLevel, ChangeError>>,
    /// An error says that there is nothing to write.
    decided: oneshot::Receiver<Decided>,
}

/// A product whose row is locked until what was decided on it is committed. Its drop writes nothing.
pub(crate) struct LockedRow {
    /// What the row says.
    pub(crate) level: StockLevel,
    decided: oneshot::Sender<Decided>,
}

impl Committer {
    /// A committer to `store`. `combines`: products share commits. A row that another transaction has locked
    /// is waited for no longer than `lock_wait`.
    pub(crate) fn new(store: &Arc<dyn Store>, combines: bool, lock_wait: Duration) -> Self {
        let single = FlightLimits { flights: ALONE, jobs: 1 };
        let limits = |flights| if combines { FlightLimits { flights, jobs: PRODUCTS } } else { single };
        let waiting = Arc::clone(store);
        let waiting_rows = Arc::clone(store);
        let alone = Arc::new(Alone {
            decided: Combiner::new(single, move |jobs| write(Arc::clone(&waiting), jobs, None)),
            rows: Combiner::new(single, move |requests| {
                decide_locked(Arc::clone(&waiting_rows), lock_wait, requests, None)
            }),
        });
        let (together, spare) = (Arc::clone(store), Arc::clone(&alone));
        let decided = Combiner::new(limits(1), move |jobs| {
            write(Arc::clone(&together), jobs, Some(Arc::clone(&spare)))
        });
        let (together, spare) = (Arc::clone(store), Arc::clone(&alone));
        let rows = Combiner::new(limits(store.locking_at_once()), move |requests| {
            decide_locked(Arc::clone(&together), lock_wait, requests, Some(Arc::clone(&spare)))
        });
        Self { decided, rows, alone }
    }

    /// Writes a batch that was decided under `lease`; returns when its fate is known. The commit goes on when
    /// the future is dropped, and the lease is held until it has come to its end.
    pub(crate) async fn commit(&self, batch: WriteBatch, lease: &Lease) -> Committed {
        let (done, committed) = oneshot::channel();
        self.decided.submit(Decided { batch, lease: lease.enter(), done });
        fate(committed).await
    }

    /// Locks the row of a product, which is waited for as long as for a lock.
    pub(crate) async fn lock_row(&self, sku: &Sku) -> Result<LockedRow, ChangeError> {
        let (level, read) = oneshot::channel();
        let (decided, waiting) = oneshot::channel();
        self.rows.submit(RowRequest { sku: sku.clone(), level, decided: waiting });
        let level = read.await.unwrap_or_else(|_| {
            Err(ChangeError::DependencyDown("the lock of the product's row failed".into()))
        })?;
        Ok(LockedRow { level, decided })
    }

    /// Waits for the commits that are in flight. Nothing may be handed over afterwards.
    pub(crate) async fn close(&self) {
        self.rows.close().await;
        self.decided.close().await;
        self.alone.rows.close().await;
        self.alone.decided.close().await;
    }
}

impl LockedRow {
    /// Writes what was decided on the row; returns when its fate is known.
    pub(crate) async fn commit(self, batch: WriteBatch, lease: &Lease) -> Committed {
        let (done, committed) = oneshot::channel();
        // An error says what the lost channel does below.
        self.decided.send(Decided { batch, lease: lease.enter(), done }).ok();
        fate(committed).await
    }
}

async fn fate(committed: oneshot::Receiver<Committed>) -> Committed {
    // The commit's task has panicked, and nothing is known.
    let lost = |_| CommitError::Unknown(StoreError::Unavailable("the commit's task failed".into()));
    committed.await.map_err(lost)?
}

/// Writes in one commit. With `alone`, no row is waited for that another transaction has locked: what has to
/// be, goes there.
async fn write(store: Arc<dyn Store>, jobs: Vec<Decided>, alone: Option<Arc<Alone>>) {
    let batches: Vec<_> = jobs.iter().map(|job| &job.batch).collect();
    // Without the guard, what was decided is written whatever happened.
    let may_write =
        |number: usize| jobs[number].batch.guarded.is_none() || jobs[number].lease.check().is_ok();
    let results = match store.begin().await {
        Ok(transaction) => transaction.commit(&batches, alone.is_none(), &may_write).await,
        Err(error) => Err(CommitError::NotWritten(error)),
    };
    answer(jobs, results, alone.as_deref());
}

fn answer(
    jobs: Vec<Decided>,
    results: Result<Vec<Result<Written, Rejected>>, CommitError>,
    alone: Option<&Alone>,
) {
    match results {
        Ok(results) => {
            for (job, result) in jobs.into_iter().zip(results) {
                match (result, alone) {
                    (Err(Rejected::Busy), Some(alone)) => alone.decided.submit(job),
                    (result, _) => job.answer(result.map_err(WriteError::from)),
                }
            }
        }
        Err(error) => jobs.into_iter().for_each(|job| job.answer(Err(error.clone().into()))),
    }
}

impl Decided {
    fn answer(self, result: Result<Written, WriteError>) {
        let Self { mut batch, lease, done } = self;
        // Before whoever waits releases the lock: with the last handle of the lease.
        drop(lease);
        let written = result.map(|Written { pay_by }| {
            batch.orders.iter_mut().for_each(|(order, _)| order.pay_by = pay_by);
            batch
        });
        done.send(written).ok();
    }
}

/// Locks the rows of products, lets their requesters decide, and writes what they did in one commit.
async fn decide_locked(
    store: Arc<dyn Store>,
    lock_wait: Duration,
    requests: Vec<RowRequest>,
    alone: Option<Arc<Alone>>,
) {
    let skus: Vec<_> = requests.iter().map(|request| request.sku.clone()).collect();
    let locked = async {
        let mut transaction = store.begin().await?;
        let levels = transaction.lock_rows(&skus, alone.is_none()).await?;
        Ok((transaction, levels))
    };
    let (transaction, levels) = match timeout(lock_wait, locked).await {
        Ok(Ok(locked)) => locked,
        Ok(Err(error)) => return refuse(requests, &row_error(error)),
        Err(_) => return refuse(requests, &ChangeError::LockTimeout),
    };
    let mut deciding = Vec::with_capacity(requests.len());
    for (request, level) in requests.into_iter().zip(levels) {
        match (level, &alone) {
            (RowLevel::Locked(level), _) => {
                request.level.send(Ok(level)).ok();
                deciding.push(request.decided);
            }
            (RowLevel::Absent, _) => {
                request.level.send(Err(ChangeError::NoSuchProduct(request.sku))).ok();
            }
            (RowLevel::Busy, Some(alone)) => alone.rows.submit(request),
            (RowLevel::Busy, None) => drop(request.level.send(Err(ChangeError::LockTimeout))),
        }
    }
    let mut jobs = Vec::with_capacity(deciding.len());
    for decided in deciding {
        jobs.extend(decided.await.ok());
    }
    let batches: Vec<_> = jobs.iter().map(|job: &Decided| &job.batch).collect();
    let results = transaction.commit(&batches, false, &|_| true).await;
    answer(jobs, results, None);
}

fn refuse(requests: Vec<RowRequest>, error: &ChangeError) {
    requests.into_iter().for_each(|request| drop(request.level.send(Err(error.clone()))));
}

/// Where the read locks the row, it is the lock: whoever is kept from it waits for a lock.
fn row_error(error: StoreError) -> ChangeError {
    match error {
        StoreError::Busy(_) => ChangeError::LockTimeout,
        error @ StoreError::Unavailable(_) => error.into(),
    }
}
