//! A run along its time: what charts are drawn from. Its size does not grow with the run's.

mod lanes;
mod live;
mod lost;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Outcome, OutcomeGroup};
use crate::evidence::Evidence;
use crate::metrics::{self, Percentiles};
use crate::side_operation::{SideAction, SideOperation};

pub use lanes::{HoldSpan, Locks, ReplicaLane};
pub use live::{Encounter, Heard, LiveLocks};
pub(crate) use lost::FirstLost;
pub use lost::{Counterexample, Reader};

/// The most intervals that a series has.
pub const MAX_INTERVALS: usize = 400;

/// How wide intervals are, in milliseconds, and the most that a series has of that width; a longer run has
/// wider ones. Narrow ones show the batches rather than the run.
const WIDTHS: [(f64, f64); 3] = [(20.0, 60.0), (50.0, 60.0), (100.0, 120.0)];

/// A run along its time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// How long an interval is, in milliseconds; the last one may be shorter.
    pub interval_ms: f64,
    /// The intervals, without a gap, from the first order.
    pub intervals: Vec<Interval>,
    /// Updates of the stock that another one overwrote.
    pub lost_updates: u64,
    /// The lost update of the smallest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterexample: Option<Counterexample>,
    /// The lock timeline; absent where the replicas' clocks cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<Locks>,
}

/// What was answered within an interval of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The end of the interval, in milliseconds after the first order.
    pub until_ms: f64,
    /// How many orders were confirmed.
    pub accepted: u64,
    /// How many orders were refused for want of stock.
    pub sold_out: u64,
    /// How many orders were refused for another reason.
    pub failed: u64,
    /// How many orders have no answer that says what became of them.
    pub unknown: u64,
    /// The response times of confirmed orders, from the intended start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<IntervalLatency>,
    /// The stock at the end of the interval, as the latest order wrote it.
    pub stock: i64,
    /// The stock as it would be if no update had been lost: the supply less all units in confirmed orders.
    #[serde(alias = "owed")]
    pub expected: i64,
}

/// Percentiles of the response times of an interval, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct IntervalLatency {
    /// The median.
    pub p50: f64,
    /// 19 of 20 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
}

impl Series {
    /// The series of a run that took `seconds`, from its evidence.
    pub fn of(evidence: &Evidence, seconds: f64) -> Self {
        let changes = changes(evidence);
        let mut series = Self::answered(&evidence.attempts, &changes, evidence.initial_stock, seconds);
        // What was answered last need not have been written last: the end is for the database to say.
        if let (Some(last), Ok(database)) = (series.intervals.last_mut(), &evidence.database) {
            let taken = database.units_sold() + database.units_reserved();
            (last.stock, last.expected) = (database.audit.stock, database.audit.supply - taken);
        }
        let is_known = evidence.holds.records.iter().any(Result::is_ok);
        series.locks = is_known.then(|| Locks::of(evidence.holds.known(), evidence.holds.begun_ns));
        series
    }

    /// The series from the answers to buyers, without repetitions of orders; `changes` are when and by how
    /// much the stock was changed otherwise, in the order of time.
    fn answered(attempts: &[Attempt], changes: &[(u64, i64)], stock: i64, seconds: f64) -> Self {
        let mut answered: Vec<_> = Attempt::firsts(attempts).collect();
        answered.sort_by_key(|attempt| attempt.received);
        let interval_ms = width_ms(seconds * 1e3);
        let last = answered.last().map_or(0.0, |attempt| attempt.received as f64 / 1e6);
        // A last interval that is too short for a rate belongs to the one before it.
        let count = (last / interval_ms + 0.7).floor().max(1.0) as usize;
        let mut ledger = Ledger::new(stock);
        let mut rest = answered.into_iter().peekable();
        let mut changes = changes.iter().peekable();
        let mut intervals = Vec::with_capacity(count);
        for number in 1..=count {
            let until_ms = if number == count { last } else { number as f64 * interval_ms };
            let mut interval = Interval { until_ms, ..Interval::default() };
            let mut latencies = metrics::histogram();
            while let Some(attempt) =
                rest.next_if(|attempt| number == count || attempt.received as f64 / 1e6 <= until_ms)
            {
                interval.count(&attempt.outcome);
                ledger.apply(attempt);
                if attempt.sale().is_some() {
                    latencies.saturating_record(attempt.received.saturating_sub(attempt.intended));
                }
            }
            while let Some((_, units)) = changes.next_if(|(at, _)| *at as f64 / 1e6 <= until_ms) {
                ledger.put_back(*units);
            }
            interval.latency_ms = IntervalLatency::of(&latencies);
            (interval.stock, interval.expected) = (ledger.stock, ledger.expected);
            intervals.push(interval);
        }
        let (lost_updates, counterexample) = lost::updates(attempts);
        Self { interval_ms, intervals, lost_updates, counterexample, locks: None }
    }

    /// How long the run was, in milliseconds.
    pub fn span_ms(&self) -> f64 {
        self.intervals.last().map_or(0.0, |interval| interval.until_ms)
    }

    /// Adds what was answered since the last interval; merges two and two when there are too many. A merged
    /// interval has the greater of both latencies.
    pub fn push(&mut self, interval: Interval) {
        let count = self.intervals.len();
        let since = count.checked_sub(2).map_or(0.0, |before| self.intervals[before].until_ms);
        match self.intervals.last_mut() {
            // It is not as long yet as the others.
            Some(last) if last.until_ms - since < self.interval_ms * 0.75 => {
                *last = Interval::merged(&[last.clone(), interval]);
            }
            _ => self.intervals.push(interval),
        }
        if self.intervals.len() > MAX_INTERVALS {
            self.interval_ms *= 2.0;
            self.intervals = self.intervals.chunks(2).map(Interval::merged).collect();
        }
    }
}

impl Interval {
    /// Counts an answer.
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome.group() {
            OutcomeGroup::Accepted => self.accepted += 1,
            OutcomeGroup::SoldOut => self.sold_out += 1,
            OutcomeGroup::Failed => self.failed += 1,
            OutcomeGroup::Unknown => self.unknown += 1,
        }
    }

    fn merged(parts: &[Self]) -> Self {
        let last = &parts[parts.len() - 1];
        let sum = |of: fn(&Self) -> u64| parts.iter().map(of).sum();
        Self {
            until_ms: last.until_ms,
            accepted: sum(|part| part.accepted),
            sold_out: sum(|part| part.sold_out),
            failed: sum(|part| part.failed),
            unknown: sum(|part| part.unknown),
            latency_ms: parts.iter().filter_map(|part| part.latency_ms).reduce(|a, b| IntervalLatency {
                p50: a.p50.max(b.p50),
                p95: a.p95.max(b.p95),
                p99: a.p99.max(b.p99),
            }),
            stock: last.stock,
            expected: last.expected,
        }
    }
}

impl IntervalLatency {
    /// The percentiles of a histogram of nanoseconds, if there is anything in it.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Option<Self> {
        let Percentiles { p50, p99, .. } = metrics::percentiles(histogram);
        let p95 = histogram.value_at_quantile(0.95) as f64 / 1e6;
        (!histogram.is_empty()).then_some(Self { p50, p95, p99 })
    }
}

/// The stock of a product, as the answers to its buyers give it: what was written last, and what is expected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    version: i64,
    /// As the order of the latest version wrote it.
    pub(crate) stock: i64,
    /// As all confirmed orders leave it.
    pub(crate) expected: i64,
}

impl Ledger {
    pub(crate) fn new(stock: i64) -> Self {
        Self { version: 0, stock, expected: stock }
    }

    pub(crate) fn apply(&mut self, attempt: &Attempt) {
        let seen = match &attempt.outcome {
            Outcome::Sold(sale) => {
                self.expected -= sale.units_taken(attempt.quantity);
                (sale.version, sale.stock_after)
            }
            Outcome::SoldOut { available, version } => (*version, *available),
            _ => return,
        };
        if seen.0 >= self.version {
            (self.version, self.stock) = seen;
        }
    }

    /// Units came back. The stock that is recorded then is known from the next order.
    pub(crate) fn put_back(&mut self, units: i64) {
        self.expected += units;
    }
}

/// When stock was put in or taken back, and how much.
fn changes(evidence: &Evidence) -> Vec<(u64, i64)> {
    let sold = evidence.attempts.iter().filter_map(|attempt| Some((attempt.sale()?.id, attempt)));
    let sold: HashMap<_, _> = sold.collect();
    let (mut orders, mut deltas) = (HashMap::new(), HashMap::new());
    if let Ok(database) = &evidence.database {
        orders.extend(database.orders.iter().map(|order| (order.id, order)));
        deltas.extend(database.adjustments.iter().map(|a| (a.reason.clone(), a.delta)));
    }
    let done = evidence.side_operations.iter().filter(|operation| operation.is_done());
    let units = |operation: &SideOperation| {
        let stored = operation.reason().and_then(|reason| deltas.get(&reason).copied());
        stored.or_else(|| match &operation.action {
            SideAction::Cancel { order } => sold.get(order).map(|attempt| attempt.quantity),
            SideAction::Restock { quantity, .. } => Some(*quantity),
            SideAction::Pay { .. } | SideAction::Read { .. } => None,
        })
    };
    let mut changes: Vec<_> =
        done.filter_map(|operation| Some((operation.received, units(operation)?))).collect();
    // What was not paid came back when its time was over.
    changes.extend(sold.values().filter_map(|attempt| {
        let order = orders.get(&attempt.sale()?.id)?;
        let units = deltas.get(&format!("expired {}", order.id))?;
        let window = order.pay_by?.duration_since(order.created_at).as_nanos();
        Some((attempt.received + u64::try_from(window).ok()?, *units))
    }));
    changes.sort_unstable();
    changes
}

/// The width of intervals for a run of this length: a round one.
fn width_ms(run_ms: f64) -> f64 {
    let known = WIDTHS.into_iter().find(|(width, most)| run_ms / width <= *most);
    known.map_or_else(|| (run_ms / 120.0 / 100.0).ceil() * 100.0, |(width, _)| width)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::attempt::Sale;

    fn sold(index: u64, received_ms: u64, read: i64, wrote: i64, version: i64) -> Attempt {
        let sale = Sale {
            id: Uuid::from_u128(index.into()),
            stock_before: read,
            stock_after: wrote,
            version,
            token: None,
            replica: "replica-1".into(),
            replayed: false,
            pay_by: None,
        };
        let (received, outcome) = (received_ms * 1_000_000, Outcome::Sold(sale));
        Attempt {
            index,
            replay: false,
            twin: false,
            quantity: 1,
            intended: 0,
            free: 0,
            sent: 0,
            received,
            outcome,
        }
    }

    #[test]
    fn two_lines_part_where_an_update_is_lost() {
        let attempts = [sold(1, 10, 10, 9, 1), sold(2, 30, 9, 8, 2), sold(3, 56, 9, 8, 2)];
        let series = Series::answered(&attempts, &[], 10, 0.06);
        let lines: Vec<_> = series.intervals.iter().map(|i| (i.until_ms, i.stock, i.expected)).collect();
        assert_eq!(lines, [(20.0, 9, 9), (40.0, 8, 8), (56.0, 8, 7)]);
        assert_eq!(series.lost_updates, 1);
        let readers = series.counterexample.expect("a counterexample").readers;
        assert_eq!(
            readers.map(|reader| (reader.buyer, reader.wrote)),
            [("attempt-2".to_owned(), 8), ("attempt-3".to_owned(), 8)]
        );
    }

    #[test]
    fn units_that_come_back_are_counted_once() {
        // The second order has found them, and is answered before the restock that put them there.
        let attempts = [sold(1, 10, 10, 9, 1), sold(2, 30, 14, 13, 3), sold(3, 56, 13, 12, 4)];
        let series = Series::answered(&attempts, &[(35_000_000, 5)], 10, 0.06);
        let lines: Vec<_> = series.intervals.iter().map(|i| (i.stock, i.expected)).collect();
        assert_eq!(lines, [(9, 9), (13, 13), (12, 12)]);
    }

    #[test]
    fn a_long_run_has_no_more_intervals_than_a_short_one() {
        for seconds in [0.001, 0.1, 1.0, 7.0, 60.0, 3600.0, 86_400.0] {
            let attempts = [sold(1, (seconds * 1e3) as u64, 10, 9, 1)];
            let series = Series::answered(&attempts, &[], 10, seconds);
            assert!((1..=MAX_INTERVALS).contains(&series.intervals.len()), "{seconds} s");
            assert_eq!(series.intervals.last().map(|interval| interval.accepted), Some(1));
        }
        let mut live = Series { interval_ms: 100.0, ..Series::default() };
        for number in 1..=5 * MAX_INTERVALS {
            live.push(Interval { until_ms: number as f64 * 100.0, accepted: 1, ..Interval::default() });
        }
        assert!(live.intervals.len() <= MAX_INTERVALS);
        let accepted: u64 = live.intervals.iter().map(|interval| interval.accepted).sum();
        assert_eq!(accepted, 5 * MAX_INTERVALS as u64);
    }

    #[test]
    fn a_series_of_an_earlier_version_is_read() {
        let interval = Interval { until_ms: 20.0, stock: 9, expected: 8, ..Interval::default() };
        let old = serde_json::to_string(&interval).unwrap().replace("\"expected\"", "\"owed\"");
        assert_eq!(serde_json::from_str::<Interval>(&old).unwrap(), interval);
    }
}
