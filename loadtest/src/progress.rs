//! How far a run has come: counters that the runner writes and any thread may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::lost_updates::Readers;
use crate::metrics;
use crate::series::{Counterexample, FirstLost, Interval, IntervalLatency, Ledger};

/// The counters of a run, and how to end it early.
#[derive(Debug)]
pub struct Progress {
    stop: CancellationToken,
    beginning: OnceLock<Beginning>,
    ended_ns: OnceLock<u64>,
    sent: AtomicU64,
    done: AtomicU64,
    sold: AtomicU64,
    recent: Mutex<Recent>,
}

/// What is sold in a run, and since when.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The product.
    pub sku: String,
    /// When the first order could be sent, by this host's monotonic clock.
    pub begun_ns: u64,
}

/// What was answered since the last sample, and what it adds up to.
#[derive(Debug)]
struct Recent {
    interval: Interval,
    latencies: Histogram<u64>,
    ledger: Ledger,
    /// The updates by what they read: one that reads the same as another overwrites it.
    reads: Readers<()>,
    first_lost: FirstLost,
    /// Units that were there or were put in stock.
    supply: i64,
    /// Units that may be back in stock: what puts them there is under way, or nobody knows what became of it.
    open: i64,
}

/// The counters at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What was answered since the last sample. Its end is not set: who takes the sample knows the time.
    pub interval: Interval,
    /// Updates of the stock that another one has overwritten so far.
    pub lost_updates: u64,
    /// The first of them that was seen.
    pub counterexample: Option<Counterexample>,
    /// Units that were there or were put in stock so far.
    pub supply: i64,
    /// Units that are confirmed and cannot be there, even if all came back of which that is not known yet.
    pub oversold: i64,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Progress {
    /// The progress of a run that begins with this stock.
    pub fn new(stock: i64) -> Self {
        Self::until(CancellationToken::new(), stock)
    }

    /// The same of a run that begins no order any more once `stop` is cancelled: what is under way is waited
    /// for, and what was done is judged.
    pub fn until(stop: CancellationToken, stock: i64) -> Self {
        let recent = Recent {
            interval: Interval::default(),
            latencies: metrics::histogram(),
            ledger: Ledger::new(stock),
            reads: Readers::default(),
            first_lost: FirstLost::default(),
            supply: stock,
            open: 0,
        };
        Self {
            stop,
            beginning: OnceLock::new(),
            ended_ns: OnceLock::new(),
            sent: AtomicU64::new(0),
            done: AtomicU64::new(0),
            sold: AtomicU64::new(0),
            recent: Mutex::new(recent),
        }
    }

    /// Cancelled to end the run early.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// What is sold, and since when; `None` before the run begins.
    pub fn beginning(&self) -> Option<&Beginning> {
        self.beginning.get()
    }

    /// Notes the begin of the run. Of several, the first stands.
    pub(crate) fn begin(&self, sku: &str, begun_ns: u64) {
        self.beginning.get_or_init(|| Beginning { sku: sku.into(), begun_ns });
    }

    /// Notes that all buyers have ended, by this host's monotonic clock.
    pub(crate) fn end(&self, ended_ns: u64) {
        self.ended_ns.get_or_init(|| ended_ns);
    }

    /// When all buyers had ended; `None` before. What is done afterwards is not selling.
    pub fn ended_ns(&self) -> Option<u64> {
        self.ended_ns.get().copied()
    }

    /// Attempts that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Attempts that have ended.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Orders that were confirmed.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Relaxed)
    }

    /// What was answered since the last sample.
    pub fn sample(&self) -> Sample {
        let mut recent = self.recent();
        let latency_ms = IntervalLatency::of(&recent.latencies);
        recent.latencies.reset();
        let (stock, expected) = (recent.ledger.stock, recent.ledger.expected);
        let interval = Interval { latency_ms, stock, expected, ..std::mem::take(&mut recent.interval) };
        let lost_updates = recent.reads.lost_updates();
        let counterexample = recent.first_lost.found().cloned();
        let oversold = (-expected - recent.open).max(0);
        Sample { interval, lost_updates, counterexample, supply: recent.supply, oversold }
    }

    /// Units in stock, by the latest answer.
    pub(crate) fn left(&self) -> i64 {
        self.recent().ledger.stock
    }

    /// Notes that units may come to the stock from now on, before what brings them is sent: others may buy
    /// them before its answer is here. Whether they have come is counted below, or is never known.
    pub(crate) fn expect(&self, units: i64) {
        self.recent().open += units;
    }

    /// Counts expected units that did not come.
    pub(crate) fn count_refused(&self, units: i64) {
        self.recent().open -= units;
    }

    /// Counts expected units that were put in stock.
    pub(crate) fn count_restock(&self, units: i64) {
        let mut recent = self.recent();
        recent.open -= units;
        recent.supply += units;
        recent.ledger.put_back(units);
    }

    /// Counts expected units of an order that was cancelled, or has expired.
    pub(crate) fn count_cancel(&self, units: i64) {
        let mut recent = self.recent();
        recent.open -= units;
        recent.ledger.put_back(units);
    }

    /// Counts units that an order takes when it is paid.
    pub(crate) fn count_taken(&self, units: i64) {
        self.recent().ledger.put_back(-units);
    }

    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_done(&self, attempt: &Attempt) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent();
        recent.interval.count(&attempt.outcome);
        recent.ledger.apply(attempt);
        if let Some(sale) = attempt.sale() {
            self.sold.fetch_add(1, Ordering::Relaxed);
            recent.latencies.saturating_record(attempt.received.saturating_sub(attempt.intended));
            recent.reads.add(sale.version, sale.stock_before, ());
            recent.first_lost.add(attempt, sale);
        }
    }

    /// Counts an order whose answer was lost, and that was found when it was sent again.
    pub(crate) fn count_late(&self, attempt: &Attempt) {
        self.recent().ledger.apply(attempt);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_oversold_that_units_cover_which_may_be_back() {
        let progress = Progress::new(2);
        let oversold = || progress.sample().oversold;
        progress.count_taken(3);
        assert_eq!(oversold(), 1);
        // A restock that is under way, and that is refused.
        progress.expect(5);
        assert_eq!(oversold(), 0);
        progress.count_refused(5);
        assert_eq!(oversold(), 1);
        progress.expect(1);
        progress.count_restock(1);
        assert_eq!((oversold(), progress.sample().supply), (0, 3));
        progress.count_taken(2);
        // Of this cancellation nobody knows what became of it.
        progress.expect(1);
        assert_eq!(oversold(), 1);
        progress.expect(1);
        progress.count_cancel(1);
        assert_eq!(oversold(), 0);
    }
}
