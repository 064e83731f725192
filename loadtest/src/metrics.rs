//! Figures: latencies from the record of attempts, and the lock's figures from the replicas' metrics.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, OutcomeGroup};

/// Percentiles of a duration, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

/// The latencies of the attempts with one outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeLatency {
    /// How many attempts had the outcome.
    pub attempts: u64,
    /// From the intended start to the answer: what a customer waits.
    pub response: Percentiles,
    /// From the actual send to the answer: what the service takes.
    pub service: Percentiles,
}

/// The attempts that took up to so long, and longer than those of the bucket before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The end of the bucket, in milliseconds.
    pub until_ms: f64,
    /// How many attempts are in it.
    pub attempts: u64,
}

/// The latencies of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// By outcome; one that no attempt had is absent.
    pub by_outcome: BTreeMap<OutcomeGroup, OutcomeLatency>,
    /// How many confirmed orders took how long to be answered, from the intended start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_buckets: Vec<LatencyBucket>,
    /// How much later than it could have been an attempt was sent, 99 of 100: the generator's own delay.
    pub schedule_lag_p99_ms: f64,
}

impl Latencies {
    /// The latencies of `attempts`, replays left out.
    pub fn of(attempts: &[Attempt]) -> Self {
        let mut by_outcome = BTreeMap::<OutcomeGroup, (Histogram<u64>, Histogram<u64>)>::new();
        let mut lag = histogram();
        for attempt in Attempt::firsts(attempts) {
            let (response, service) =
                by_outcome.entry(attempt.outcome.group()).or_insert_with(|| (histogram(), histogram()));
            response.saturating_record(attempt.received.saturating_sub(attempt.intended));
            service.saturating_record(attempt.received - attempt.sent);
            lag.saturating_record(attempt.sent.saturating_sub(attempt.free));
        }
        let accepted = by_outcome.get(&OutcomeGroup::Accepted);
        let accepted_buckets = accepted.map(|(response, _)| buckets_of(response)).unwrap_or_default();
        let latency = |(response, service): (Histogram<u64>, Histogram<u64>)| OutcomeLatency {
            attempts: response.len(),
            response: percentiles(&response),
            service: percentiles(&service),
        };
        Self {
            by_outcome: by_outcome.into_iter().map(|(group, both)| (group, latency(both))).collect(),
            accepted_buckets,
            schedule_lag_p99_ms: percentiles(&lag).p99,
        }
    }

    /// The response times of confirmed orders.
    pub fn accepted(&self) -> Percentiles {
        self.by_outcome.get(&OutcomeGroup::Accepted).map(|latency| latency.response).unwrap_or_default()
    }
}

/// From a microsecond to an hour, in nanoseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("the bounds are in order")
}

/// How many buckets a decade has: each is a third longer than the one before.
const BUCKETS_OF_DECADE: i32 = 8;

/// The buckets of a histogram of nanoseconds, without a gap from the first that has any to the last.
fn buckets_of(histogram: &Histogram<u64>) -> Vec<LatencyBucket> {
    // From a hundredth of a millisecond to an hour.
    let ends = (-2 * BUCKETS_OF_DECADE..=7 * BUCKETS_OF_DECADE)
        .map(|number| 10_f64.powf(f64::from(number) / f64::from(BUCKETS_OF_DECADE)));
    let mut below = 0;
    let mut buckets: Vec<_> = ends
        .map(|until_ms| {
            let all = histogram.count_between(0, (until_ms * 1e6) as u64);
            let attempts = all - std::mem::replace(&mut below, all);
            LatencyBucket { until_ms, attempts }
        })
        .skip_while(|bucket| bucket.attempts == 0)
        .collect();
    while buckets.last().is_some_and(|bucket| bucket.attempts == 0) {
        buckets.pop();
    }
    buckets
}

pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let ms = |ns: u64| ns as f64 / 1e6;
    Percentiles {
        p50: ms(histogram.value_at_quantile(0.50)),
        p90: ms(histogram.value_at_quantile(0.90)),
        p99: ms(histogram.value_at_quantile(0.99)),
        max: ms(histogram.max()),
    }
}

/// What the locks of all replicas have measured and counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LockFigures {
    /// From asking for a lease to its acquisition; `max` is the upper end of the last bucket that has any.
    pub wait_ms: Percentiles,
    /// From the acquisition of a lease to its release.
    pub hold_ms: Percentiles,
    /// How many leases were acquired.
    pub holds: u64,
    /// Requests per transaction, on average.
    pub batch_mean: f64,
    /// Writes that the guard refused.
    pub stale_writes_rejected: u64,
    /// Leases that were over before their release.
    pub lost_leases: u64,
    /// Extensions of leases by their holders.
    #[serde(default)]
    pub renewals: u64,
    /// Round trips to the lock's backend.
    #[serde(default)]
    pub round_trips: u64,
    /// Announcements of a change by ZooKeeper or etcd.
    #[serde(default)]
    pub watch_notifications: u64,
    /// Listings of a lock's queue in ZooKeeper or etcd.
    #[serde(default)]
    pub listings: u64,
}

impl LockFigures {
    /// What was counted between the two readings of each span; a replica has one for each of its
    /// incarnations.
    pub fn between(spans: &[(String, String)]) -> Self {
        let mut counted = BTreeMap::<String, f64>::new();
        for (before, after) in spans {
            let before: BTreeMap<_, _> = series(before).collect();
            for (series, value) in series(after) {
                let before = before.get(&series).copied().unwrap_or_default();
                *counted.entry(series).or_default() += value - before;
            }
        }
        let value = |series: &str| counted.get(series).copied().unwrap_or_default();
        let batches = value("stocklock_checkout_batch_size_count");
        let mean = value("stocklock_checkout_batch_size_sum") / batches;
        Self {
            wait_ms: buckets(&counted, "stocklock_lock_wait_seconds_bucket"),
            hold_ms: buckets(&counted, "stocklock_lock_hold_seconds_bucket"),
            holds: value("stocklock_lock_holds_total") as u64,
            batch_mean: if batches > 0.0 { mean } else { 1.0 },
            stale_writes_rejected: value("stocklock_checkout_stale_writes_rejected_total") as u64,
            lost_leases: value("stocklock_lock_lost_leases_total") as u64,
            renewals: value("stocklock_lock_renewals_total") as u64,
            round_trips: value("stocklock_lock_round_trips_total") as u64,
            watch_notifications: value("stocklock_lock_watch_notifications_total") as u64,
            listings: value("stocklock_lock_listings_total") as u64,
        }
    }
}

/// The series of a text in the Prometheus format, with their values. All are of one strategy: its label is
/// left out.
fn series(text: &str) -> impl Iterator<Item = (String, f64)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let split = samples.filter_map(|line| line.rsplit_once(' '));
    split.filter_map(|(series, value)| Some((without_strategy(series), value.parse().ok()?)))
}

fn without_strategy(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.into() };
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("strategy="));
    let labels: Vec<_> = labels.collect();
    if labels.is_empty() { name.into() } else { format!("{name}{{{}}}", labels.join(",")) }
}

/// The percentiles of a histogram from its cumulative buckets.
fn buckets(counted: &BTreeMap<String, f64>, name: &str) -> Percentiles {
    let bucket = |(series, count): (&String, &f64)| {
        let below = series.strip_prefix(name)?.strip_prefix("{le=\"")?.strip_suffix("\"}")?;
        Some((below.parse().unwrap_or(f64::INFINITY), *count))
    };
    let mut ends: Vec<(f64, f64)> = counted.iter().filter_map(bucket).collect();
    ends.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let total = ends.last().map_or(0.0, |(_, count)| *count);
    let at = |share: f64| quantile(&ends, share * total) * 1e3;
    Percentiles { p50: at(0.50), p90: at(0.90), p99: at(0.99), max: at(1.0) }
}

/// The value below which `rank` of the observations are: linear within its bucket, as Prometheus has it.
fn quantile(ends: &[(f64, f64)], rank: f64) -> f64 {
    let (mut start, mut before) = (0.0, 0.0);
    for &(end, count) in ends {
        if count >= rank && count > before {
            let within = (rank - before) / (count - before);
            return if end.is_finite() { start + (end - start) * within } else { start };
        }
        (start, before) = (if end.is_finite() { end } else { start }, count);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Outcome;

    const MS: u64 = 1_000_000;

    fn attempt(intended: u64, sent: u64, received: u64) -> Attempt {
        let outcome = Outcome::SoldOut { available: 0, version: 0 };
        Attempt {
            index: 0,
            replay: false,
            twin: false,
            quantity: 1,
            intended,
            free: intended,
            sent,
            received,
            outcome,
        }
    }

    #[test]
    fn a_stall_shows_in_the_response_and_not_in_the_service_time() {
        // One attempt a millisecond; the service stalls for 100 ms and then answers each in one.
        let attempts: Vec<_> = (0..200)
            .map(|i| {
                let sent = i.max(100) * MS;
                attempt(i * MS, sent, sent + MS)
            })
            .collect();
        let latency = Latencies::of(&attempts).by_outcome[&OutcomeGroup::SoldOut];
        assert!(latency.response.p99 >= 98.0, "{latency:?}");
        assert!(latency.service.p99 < 1.1, "{latency:?}");
    }

    #[test]
    fn figures_are_what_several_replicas_counted_in_between() {
        let replica = "# HELP x\nstocklock_lock_wait_seconds_bucket{strategy=\"redis\",le=\"0.001\"} 90\n\
            stocklock_lock_wait_seconds_bucket{le=\"0.002\",strategy=\"redis\"} 100\n\
            stocklock_lock_wait_seconds_bucket{le=\"+Inf\"} 100\n\
            stocklock_lock_holds_total{strategy=\"redis\"} 100\nstocklock_checkout_batch_size_sum 400\n\
            stocklock_checkout_batch_size_count 100\n";
        let before = "stocklock_lock_holds_total 7\nstocklock_checkout_batch_size_sum 9\n";
        let after = replica
            .replace("\"} 100\nstocklock_checkout", "\"} 107\nstocklock_checkout")
            .replace("sum 400", "sum 409");
        let figures = LockFigures::between(&[(before.into(), after), (String::new(), replica.into())]);
        assert_eq!(figures.holds, 200);
        assert_eq!(figures.batch_mean, 4.0);
        assert!((figures.wait_ms.p50 - 0.5555).abs() < 0.001, "{figures:?}");
        assert!((figures.wait_ms.p99 - 1.9).abs() < 0.001, "{figures:?}");
        assert!((figures.wait_ms.max - 2.0).abs() < 0.001, "{figures:?}");
    }
}
