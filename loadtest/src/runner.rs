//! Sends the orders of a scenario, and records every attempt.

mod answer;
mod buyer;
mod resend;
mod side;
mod stocker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::pacer::Pacer;
use crate::progress::Progress;
use crate::record::Record;
use crate::scenario::{Amount, Scenario};

pub use resend::resend;

/// How long a buyer waits before it turns to the next replica when one cannot be reached.
const TURN: Duration = Duration::from_millis(10);

/// Sends the orders of `scenario` for the product `sku` to the replicas behind `clients`. Each buyer goes on
/// with the next replica when its own cannot be reached or breaks off. Dropping the future ends all buyers.
pub async fn run(clients: &[Client], sku: &str, scenario: &Scenario, progress: &Arc<Progress>) -> Record {
    warm_up(clients).await;
    let begun_ns = order_service::clock::now_ns();
    progress.begin(sku, begun_ns);
    let run = Arc::new(Run {
        clients: clients.to_vec(),
        sku: sku.into(),
        scenario: scenario.clone(),
        pacer: Pacer::new(scenario.rate),
        next: AtomicU64::new(0),
        start: Instant::now(),
        progress: Arc::clone(progress),
        gone: CancellationToken::new(),
    });
    let processor_time_before = processor_time(UsageWho::RUSAGE_SELF);
    let mut buyers = JoinSet::new();
    for number in 0..scenario.buyers {
        buyers.spawn(buyer::run(number, Arc::clone(&run)));
    }
    let stocking = tokio::spawn(stocker::run(Arc::clone(&run)));
    // Also when this future is dropped.
    let buyers_gone = run.gone.clone().drop_guard();
    let (mut attempts, mut side_operations) = (Vec::new(), Vec::new());
    for (bought, done) in buyers.join_all().await {
        attempts.extend(bought);
        side_operations.extend(done);
    }
    let took = run.start.elapsed();
    progress.end(order_service::clock::now_ns());
    drop(buyers_gone);
    // What it has begun is carried through, and must be on record.
    side_operations.extend(stocking.await.expect("the stocker does not panic"));
    let processor_time = processor_time(UsageWho::RUSAGE_SELF) - processor_time_before;
    let mut record = Record { attempts, side_operations, took, processor_time, begun_ns, start: run.start };
    record.sort();
    record
}

/// The time that this process, or its children that have ended, spent on processors, for itself and in the
/// kernel.
pub(crate) fn processor_time(whose: UsageWho) -> Duration {
    let usage = getrusage(whose).expect("a process may read its own usage");
    let time = |value: TimeVal| Duration::from_micros(value.num_microseconds().unsigned_abs());
    time(usage.user_time()) + time(usage.system_time())
}

/// Opens connections, so that the first orders do not wait for them.
async fn warm_up(clients: &[Client]) {
    for client in clients {
        // A replica that is down is noticed by the buyers.
        client.info().await.ok();
    }
}

/// What the buyers and the stocker of a run share.
struct Run {
    clients: Vec<Client>,
    sku: String,
    scenario: Scenario,
    pacer: Pacer,
    /// The index of the next attempt.
    next: AtomicU64,
    /// From when the times of attempts count.
    start: Instant,
    progress: Arc<Progress>,
    /// Cancelled when all buyers have ended.
    gone: CancellationToken,
}

impl Run {
    /// Nanoseconds from the start of the run.
    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// The next attempt and when it is due; `None` when the run is over.
    fn take(&self) -> Option<(u64, Option<Duration>)> {
        if self.progress.stop().is_cancelled() {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.pacer.due(index);
        let goes_on = match self.scenario.amount {
            Amount::Orders(orders) => index < orders,
            Amount::For(time) => due.unwrap_or_else(|| self.start.elapsed()) < time,
        };
        goes_on.then_some((index, due))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run ends before five centuries have passed")
}
