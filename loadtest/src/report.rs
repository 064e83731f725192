//! What a person reads and what a program reads: the table and the JSON.

pub mod html;
mod table;

use std::collections::BTreeMap;

use order_service::api::Info;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Outcome};
use crate::environment::Environment;
use crate::evidence::Evidence;
use crate::faults::FaultMark;
use crate::metrics::{Latencies, LockFigures, Percentiles};
use crate::resources::Resources;
use crate::scenario::Scenario;
use crate::series::Series;
use crate::verdict::{Check, EXPLAINED_BY_NO_LOCK, Status, Verdict, checks, verdict};

pub use table::{comparison, details};

/// The report of a suite, as it is written to a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    pub schema: u32,
    /// One entry for each run.
    pub runs: Vec<RunReport>,
    /// What was asked for and not run.
    pub not_run: Vec<NotRun>,
    /// The command that makes such a report again, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Where it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// A strategy that was asked for and not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// Which.
    pub strategy: String,
    /// Why.
    pub reason: String,
    /// The command that would make it run, where there is one.
    pub install: Option<String>,
}

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The locking strategy.
    pub strategy: String,
    /// The store.
    pub store: String,
    /// How many replicas.
    pub replicas: usize,
    /// How many buyers at the same time.
    pub buyers: usize,
    /// Orders per second that were intended; absent in a closed loop.
    pub rate: Option<f64>,
    /// The most orders per transaction.
    pub max_batch: usize,
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Attempts, replays left out.
    pub attempts: u64,
    /// Attempts that were confirmed.
    pub accepted: u64,
    /// Attempts that were refused for want of stock.
    pub sold_out: u64,
    /// Attempts that were definitely refused for another reason.
    pub failed: u64,
    /// Attempts whose outcome was not known from the answer.
    pub unknown: u64,
    /// Confirmed orders that were sent again.
    pub replays: u64,
    /// Units in confirmed orders, by the database.
    pub units_sold: i64,
    /// Units sold that there never were.
    pub oversold_units: i64,
    /// What the run has shown.
    pub verdict: Verdict,
    /// What it was expected to show: in a suite, what has no lock is expected to oversell.
    pub expected: Verdict,
    /// The checks.
    pub checks: Vec<Check>,
    /// Confirmed orders per second.
    pub accepted_per_second: f64,
    /// Seconds from the first attempt to the last answer.
    pub seconds: f64,
    /// What customers waited whose orders were confirmed, from the intended start.
    pub latency_ms: Percentiles,
    /// All latencies, by outcome.
    pub latencies: Latencies,
    /// The processor time that the generator spent from the first attempt to the last answer, in seconds.
    #[serde(default)]
    pub generator_seconds: f64,
    /// Whether the generator kept its schedule; if not, the figures of cost mean little.
    pub generator_kept_up: bool,
    /// What the locks counted.
    pub lock: LockFigures,
    /// Confirmed orders by replica.
    pub replica_share: BTreeMap<String, u64>,
    /// Why attempts failed, and how many.
    pub failures: BTreeMap<String, u64>,
    /// What the replicas needed of the machine, where they are ours.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// What was broken on purpose meanwhile.
    #[serde(default)]
    pub faults: Vec<FaultMark>,
    /// What the quantities were drawn from.
    pub seed: u64,
    /// The commit that the service was built from.
    pub commit: Option<String>,
    /// The run along its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}

/// How late the generator may be, 99 of 100.
const MAX_SCHEDULE_LAG_MS: f64 = 10.0;

impl RunReport {
    /// Judges a run.
    pub fn new(
        scenario: &Scenario,
        replicas: usize,
        info: &Info,
        evidence: &Evidence,
        lock: LockFigures,
        seconds: f64,
    ) -> Self {
        let original = || Attempt::firsts(&evidence.attempts);
        let count = |of: fn(&Attempt) -> bool| original().filter(|a| of(a)).count() as u64;
        let accepted = count(|attempt| attempt.sale().is_some());
        let mut replica_share = BTreeMap::new();
        for sale in original().filter_map(Attempt::sale) {
            *replica_share.entry(sale.replica.clone()).or_default() += 1;
        }
        let mut failures = BTreeMap::new();
        for attempt in original() {
            match &attempt.outcome {
                Outcome::Failed { why } | Outcome::Unknown { why } | Outcome::Broken { why } => {
                    *failures.entry(why.clone()).or_default() += 1;
                }
                Outcome::Unanswered => *failures.entry("unanswered".into()).or_default() += 1,
                Outcome::Sold(_) | Outcome::SoldOut { .. } => {}
            }
        }
        let latencies = Latencies::of(&evidence.attempts);
        let audit = evidence.database.as_ref().ok().map(|database| &database.audit);
        let checks = checks(evidence);
        Self {
            strategy: info.strategy.clone(),
            store: info.store.clone(),
            replicas,
            buyers: scenario.buyers,
            rate: scenario.rate,
            max_batch: info.max_batch,
            stock: scenario.stock,
            attempts: original().count() as u64,
            accepted,
            sold_out: count(|attempt| matches!(attempt.outcome, Outcome::SoldOut { .. })),
            failed: count(|attempt| matches!(attempt.outcome, Outcome::Failed { .. })),
            unknown: count(Attempt::is_unknown),
            replays: evidence.attempts.iter().filter(|attempt| attempt.replay).count() as u64,
            units_sold: audit.map_or(0, |audit| audit.units_sold),
            oversold_units: audit.map_or(0, |audit| audit.oversold_units),
            verdict: verdict(&checks),
            expected: Verdict::Correct,
            checks,
            accepted_per_second: accepted as f64 / seconds,
            seconds,
            latency_ms: latencies.accepted(),
            generator_seconds: 0.0,
            generator_kept_up: latencies.schedule_lag_p99_ms <= MAX_SCHEDULE_LAG_MS,
            latencies,
            lock,
            replica_share,
            failures,
            resources: None,
            faults: Vec::new(),
            seed: scenario.seed,
            commit: info.commit.clone(),
            series: None,
        }
    }

    /// Adds a check that only the suite can make.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
        self.verdict = verdict(&self.checks);
    }

    /// What the run says of the expectation. A run that was to oversell did so only when it oversold, and nothing
    /// went wrong that the want of a lock does not explain.
    fn conclude(&self) -> Conclusion {
        let explained = |check: &Check| EXPLAINED_BY_NO_LOCK.contains(&check.name.as_str());
        let mut failed = self.checks.iter().filter(|check| check.status == Status::Fail);
        match (self.expected, self.verdict) {
            (Verdict::Violated, _) if !failed.all(explained) => Conclusion::Violated,
            (Verdict::Violated, Verdict::Violated) if self.oversold_units > 0 => Conclusion::AsExpected,
            (Verdict::Violated, _) => Conclusion::Inconclusive,
            (_, Verdict::Violated) => Conclusion::Violated,
            (_, Verdict::Inconclusive) => Conclusion::Inconclusive,
            (_, Verdict::Correct) => Conclusion::AsExpected,
        }
    }

    /// Whether the run has shown what it was expected to.
    pub fn is_as_expected(&self) -> bool {
        self.conclude() == Conclusion::AsExpected
    }

    /// The check of this name, if it failed.
    pub fn failed(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name && check.status == Status::Fail)
    }
}

/// Limits on the figures, beyond which a suite does not pass although its verdicts are as expected.
#[derive(Debug, Clone, Default)]
pub struct Thresholds {
    /// The greatest p99 of confirmed orders, in milliseconds.
    pub max_p99_ms: Option<f64>,
    /// The least confirmed orders per second.
    pub min_rate: Option<f64>,
}

/// What a process's exit code says of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Every verdict is as expected.
    AsExpected,
    /// Something is wrong that should not be.
    Violated,
    /// Something could not be seen, or a negative control did not oversell.
    Inconclusive,
    /// A limit on the figures was missed.
    ThresholdMissed,
}

impl Conclusion {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::AsExpected => 0,
            Self::Violated => 1,
            Self::Inconclusive => 2,
            Self::ThresholdMissed => 99,
        }
    }
}

impl Report {
    /// A report of runs.
    pub fn new(runs: Vec<RunReport>, not_run: Vec<NotRun>) -> Self {
        Self { schema: 1, runs, not_run, command: None, environment: Some(Environment::here()) }
    }

    /// What the suite says as a whole.
    pub fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        let any = |conclusion| self.runs.iter().any(|run| run.conclude() == conclusion);
        if any(Conclusion::Violated) {
            return Conclusion::Violated;
        }
        if any(Conclusion::Inconclusive) || self.runs.is_empty() {
            return Conclusion::Inconclusive;
        }
        let missed = self.runs.iter().filter(|run| run.expected == Verdict::Correct).any(|run| {
            thresholds.max_p99_ms.is_some_and(|max| run.latency_ms.p99 > max)
                || thresholds.min_rate.is_some_and(|min| run.accepted_per_second < min)
        });
        if missed { Conclusion::ThresholdMissed } else { Conclusion::AsExpected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strategy: &str, replicas: usize, verdict: Verdict) -> RunReport {
        RunReport {
            strategy: strategy.into(),
            store: "sqlite".into(),
            replicas,
            buyers: 1,
            rate: None,
            max_batch: 1,
            stock: 1,
            attempts: 1,
            accepted: 1,
            sold_out: 0,
            failed: 0,
            unknown: 0,
            replays: 0,
            units_sold: 1,
            oversold_units: i64::from(verdict == Verdict::Violated),
            verdict,
            expected: if strategy == "none" { Verdict::Violated } else { Verdict::Correct },
            checks: Vec::new(),
            accepted_per_second: 10.0,
            seconds: 0.1,
            latency_ms: Percentiles { p50: 1.0, p90: 2.0, p99: 3.0, max: 4.0 },
            latencies: Latencies::default(),
            generator_seconds: 0.0,
            generator_kept_up: true,
            lock: LockFigures::default(),
            replica_share: BTreeMap::new(),
            failures: BTreeMap::new(),
            resources: None,
            faults: Vec::new(),
            seed: 1,
            commit: None,
            series: None,
        }
    }

    #[test]
    fn the_exit_code_says_whether_all_was_as_expected() {
        use Verdict::{Correct, Inconclusive, Violated};
        let limits = Thresholds { max_p99_ms: Some(2.9), min_rate: None };
        let none = Thresholds::default();
        let mut lost = run("none", 3, Violated);
        lost.checks.push(Check { name: "nothing-lost".into(), status: Status::Fail, detail: String::new() });
        for (runs, thresholds, code) in [
            (vec![run("none", 3, Violated), run("database", 3, Correct)], &none, 0),
            (vec![run("local", 1, Correct)], &none, 0),
            (vec![lost], &none, 1),
            (vec![run("local", 1, Violated)], &none, 1),
            (vec![run("none", 3, Violated), run("database", 3, Violated)], &none, 1),
            (vec![run("none", 3, Correct), run("database", 3, Violated)], &none, 1),
            (vec![run("none", 3, Correct), run("database", 3, Correct)], &none, 2),
            (vec![run("database", 3, Inconclusive)], &none, 2),
            (Vec::new(), &none, 2),
            (vec![run("database", 3, Correct)], &limits, 99),
            (vec![run("none", 3, Violated)], &limits, 0),
        ] {
            let report = Report::new(runs, Vec::new());
            assert_eq!(report.conclude(thresholds).exit_code(), code, "{report:?}");
        }
    }
}
