//! What a person reads and what a program reads: the table and the JSON.

pub mod html;
mod strategy;
mod table;

use std::collections::BTreeMap;

use order_service::api::Info;
use order_service::config::StrategyName;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, FailureReason, OutcomeGroup};
use crate::availability::Availability;
use crate::environment::Environment;
use crate::evidence::Evidence;
use crate::faults::FaultMark;
use crate::metrics::{Latencies, LockFigures, Percentiles};
use crate::resources::Resources;
use crate::scenario::Scenario;
use crate::series::Series;
use crate::verdict::{Check, CheckName, Status, Verdict, checks, verdict};

pub use strategy::Strategy;
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
    /// Whether somebody stopped it before its end.
    #[serde(default)]
    pub stopped: bool,
    /// Where it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// A strategy that was asked for and not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// Which.
    pub strategy: StrategyName,
    /// Why.
    pub reason: String,
    /// The command that would make it run, where there is one.
    pub install: Option<String>,
}

impl NotRun {
    /// One whose turn had not come when the suite was stopped.
    pub(crate) fn stopped(strategy: StrategyName) -> Self {
        Self { strategy, reason: "stopped before its turn".into(), install: None }
    }
}

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The locking strategy.
    pub strategy: Strategy,
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
    /// Units in confirmed orders, by the database; absent when that could not be read.
    pub units_sold: Option<i64>,
    /// Units sold that there never were; absent when the database could not be read.
    pub oversold_units: Option<i64>,
    /// Units that were there or were put in stock, by the database; absent when that could not be read.
    #[serde(default)]
    pub supply: Option<i64>,
    /// What the run has shown.
    pub verdict: Verdict,
    /// What it was expected to show: in a suite, what has no lock is expected to oversell.
    pub expected: Verdict,
    /// Whether it was run beside the others, only to see whether the load breaks a shop without a lock.
    #[serde(default)]
    pub is_control: bool,
    /// Whether somebody stopped it before its end: it is judged by what was done.
    #[serde(default)]
    pub stopped: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// Confirmed orders per second, for as long as there was something to sell.
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
    pub failures: BTreeMap<FailureReason, u64>,
    /// What the replicas needed of the machine, where they are ours.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// When nothing was sold, and what came after each fault.
    #[serde(default)]
    pub availability: Availability,
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
        let count = |group| original().filter(|attempt| attempt.outcome.group() == group).count() as u64;
        let accepted = count(OutcomeGroup::Accepted);
        let mut replica_share = BTreeMap::new();
        for sale in original().filter_map(Attempt::sale) {
            *replica_share.entry(sale.replica.clone()).or_default() += 1;
        }
        let mut failures = BTreeMap::new();
        for why in original().filter_map(|attempt| attempt.outcome.failure()) {
            *failures.entry(why).or_default() += 1;
        }
        let latencies = Latencies::of(&evidence.attempts);
        let audit = evidence.database.as_ref().ok().map(|database| &database.audit);
        let availability = Availability::of(evidence);
        let checks = checks(evidence);
        Self {
            strategy: info.strategy.clone().into(),
            store: info.store.clone(),
            replicas,
            buyers: scenario.buyers,
            rate: scenario.rate,
            max_batch: info.max_batch,
            stock: scenario.stock,
            attempts: original().count() as u64,
            accepted,
            sold_out: count(OutcomeGroup::SoldOut),
            failed: count(OutcomeGroup::Failed),
            unknown: count(OutcomeGroup::Unknown),
            replays: evidence.attempts.iter().filter(|attempt| attempt.replay).count() as u64,
            units_sold: audit.map(|audit| audit.units_sold),
            oversold_units: audit.map(|audit| audit.oversold_units),
            supply: audit.map(|audit| audit.supply),
            verdict: verdict(&checks),
            expected: Verdict::Correct,
            is_control: false,
            stopped: false,
            checks,
            accepted_per_second: accepted as f64 / (availability.selling_ms / 1e3).max(1e-9),
            seconds,
            latency_ms: latencies.accepted(),
            generator_seconds: 0.0,
            generator_kept_up: latencies.schedule_lag_p99_ms <= MAX_SCHEDULE_LAG_MS,
            latencies,
            lock,
            replica_share,
            failures,
            resources: None,
            availability,
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

    /// Units sold that there never were, as far as is known.
    pub fn oversold(&self) -> i64 {
        self.oversold_units.unwrap_or_default()
    }

    /// What was sold of what there was, in words.
    pub fn sold_in_words(&self, whole: impl Fn(i64) -> String) -> String {
        match (self.units_sold, self.supply) {
            (Some(sold), Some(supply)) => format!("{} sold of {}", whole(sold), whole(supply)),
            (Some(sold), None) => format!("{} sold of {}", whole(sold), whole(self.stock)),
            (None, _) => "what was sold is not known".into(),
        }
    }

    /// The check that the verdict rests on: the first that failed, or else the first that could not be made.
    pub fn reason(&self) -> Option<&Check> {
        let first = |status| self.checks.iter().find(|check| check.status == status);
        first(Status::Fail).or_else(|| first(Status::Unknown))
    }

    /// Why the run is not as expected, where it has no check to say so.
    pub fn disappointment(&self) -> Option<&'static str> {
        let is_unbroken = self.expected == Verdict::Violated && self.verdict != Verdict::Violated;
        is_unbroken.then_some(
            "it has no lock between its replicas, and neither oversold nor lost an update: this load proves nothing",
        )
    }

    /// What the run says of the expectation. A run that was to break did so only when nothing went wrong that the want of
    /// a lock does not explain.
    fn conclude(&self) -> Conclusion {
        let explained = |check: &Check| check.name.may_fail_without_lock();
        let mut failed = self.checks.iter().filter(|check| check.status == Status::Fail);
        match (self.expected, self.verdict) {
            // It was not asked for: what it cannot show is no violation of the others.
            (Verdict::Violated, _) if self.is_control && !failed.clone().all(explained) => {
                Conclusion::Inconclusive
            }
            (Verdict::Violated, _) if !failed.all(explained) => Conclusion::Violated,
            (Verdict::Violated, Verdict::Violated) => Conclusion::AsExpected,
            // The check `sensitive` of those that it was run for says so.
            (Verdict::Violated, _) if self.is_control => Conclusion::AsExpected,
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

    /// The check of this name, if it was made.
    pub fn check(&self, name: CheckName) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The check of this name, if it failed.
    pub fn failed(&self, name: CheckName) -> Option<&Check> {
        self.check(name).filter(|check| check.status == Status::Fail)
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
        let environment = Some(Environment::here());
        Self { schema: 1, runs, not_run, command: None, stopped: false, environment }
    }

    /// The runs that were asked for: all but the control.
    pub fn asked_for(&self) -> impl Iterator<Item = &RunReport> + Clone {
        self.runs.iter().filter(|run| !run.is_control)
    }

    /// How many of several strategies have oversold, or have gone wrong otherwise, and which.
    pub fn summary(&self) -> String {
        let of = |is_it: fn(&RunReport) -> bool| {
            let mut names: Vec<_> = Vec::new();
            for run in self.asked_for().filter(|run| is_it(run)) {
                if !names.contains(&&run.strategy) {
                    names.push(&run.strategy);
                }
            }
            names
        };
        let all = of(|_| true).len();
        let counted = |strategies: Vec<&Strategy>, word: &str| {
            let names: Vec<_> = strategies.iter().map(ToString::to_string).collect();
            (!names.is_empty()).then(|| format!("{} of {all} {word}: {}", names.len(), names.join(", ")))
        };
        let parts = [
            counted(of(|run| run.oversold() > 0), "oversold"),
            counted(of(|run| run.oversold() == 0 && run.verdict == Verdict::Violated), "violated"),
            counted(of(|run| run.verdict == Verdict::Inconclusive), "inconclusive"),
        ];
        let told: Vec<_> = parts.into_iter().flatten().collect();
        if told.is_empty() { format!("{all} of {all} correct") } else { told.join("; ") }
    }

    /// What the suite says as a whole.
    pub fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        let any = |conclusion| self.runs.iter().any(|run| run.conclude() == conclusion);
        if any(Conclusion::Violated) {
            return Conclusion::Violated;
        }
        // What was stopped before its turn has shown nothing.
        let is_cut_short = self.stopped && !self.not_run.is_empty();
        if any(Conclusion::Inconclusive) || self.asked_for().next().is_none() || is_cut_short {
            return Conclusion::Inconclusive;
        }
        if self.missed(thresholds).is_empty() { Conclusion::AsExpected } else { Conclusion::ThresholdMissed }
    }

    /// The limits that were missed, a sentence for each.
    pub fn missed(&self, thresholds: &Thresholds) -> Vec<String> {
        let mut missed = Vec::new();
        for run in self.runs.iter().filter(|run| run.expected == Verdict::Correct) {
            let (strategy, p99, rate) = (&run.strategy, run.latency_ms.p99, run.accepted_per_second);
            if let Some(max) = thresholds.max_p99_ms.filter(|max| p99 > *max) {
                missed.push(format!("{strategy}: the p99 is {p99:.3} ms, and {max:.3} ms are allowed"));
            }
            if let Some(min) = thresholds.min_rate.filter(|min| rate < *min) {
                missed.push(format!("{strategy}: {rate:.1} orders/s, where {min:.1} are wanted at least"));
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strategy: StrategyName, replicas: usize, verdict: Verdict) -> RunReport {
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
            units_sold: Some(1),
            oversold_units: Some(i64::from(verdict == Verdict::Violated)),
            supply: Some(1),
            verdict,
            expected: if strategy == StrategyName::None { Verdict::Violated } else { Verdict::Correct },
            is_control: false,
            stopped: false,
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
            availability: Availability::default(),
            faults: Vec::new(),
            seed: 1,
            commit: None,
            series: None,
        }
    }

    #[test]
    fn several_runs_are_told_in_one_line() {
        use Verdict::{Correct, Inconclusive, Violated};
        let mut lost = run(StrategyName::Row, 3, Violated);
        lost.oversold_units = Some(0);
        let mut control = run(StrategyName::None, 3, Violated);
        control.is_control = true;
        let told = |runs: &[RunReport]| Report::new(runs.to_vec(), Vec::new()).summary();
        let (none, local, database) = (
            run(StrategyName::None, 3, Violated),
            run(StrategyName::Local, 3, Violated),
            run(StrategyName::Database, 3, Correct),
        );
        assert_eq!(told(&[none, local, database.clone()]), "2 of 3 oversold: none, local");
        let redis = run(StrategyName::Redis, 3, Inconclusive);
        assert_eq!(
            told(&[database.clone(), lost, redis]),
            "1 of 3 violated: row; 1 of 3 inconclusive: redis"
        );
        assert_eq!(told(&[database.clone(), database, control]), "1 of 1 correct");
    }

    #[test]
    fn what_could_not_be_read_is_not_said_to_be_nothing() {
        let mut unread = run(StrategyName::Database, 3, Verdict::Inconclusive);
        (unread.units_sold, unread.oversold_units, unread.supply) = (None, None, None);
        let check = |name, status| Check { name, status, detail: "no replica answers".into() };
        unread.checks =
            vec![check(CheckName::Exercised, Status::Pass), check(CheckName::Balanced, Status::Unknown)];
        unread.unknown = 21;
        let report = Report::new(vec![unread.clone()], Vec::new());
        for text in [comparison(&report), details(&unread), html::page(&report)] {
            assert!(!text.contains("0 sold"), "{text}");
            assert!(text.contains("what was sold is not known"), "{text}");
            // The reason is what the verdict rests on.
            assert!(text.contains("INCONCLUSIVE") && text.contains("balanced"), "{text}");
            assert!(!text.contains("outcomes unknown"), "{text}");
        }
    }

    #[test]
    fn the_exit_code_says_whether_all_was_as_expected() {
        use Verdict::{Correct, Inconclusive, Violated};
        let limits = Thresholds { max_p99_ms: Some(2.9), min_rate: None };
        let none = Thresholds::default();
        let mut lost = run(StrategyName::None, 3, Violated);
        lost.checks.push(Check { name: CheckName::NothingLost, status: Status::Fail, detail: String::new() });
        for (runs, thresholds, code) in [
            (vec![run(StrategyName::None, 3, Violated), run(StrategyName::Database, 3, Correct)], &none, 0),
            (vec![run(StrategyName::Local, 1, Correct)], &none, 0),
            (vec![lost], &none, 1),
            (vec![run(StrategyName::Local, 1, Violated)], &none, 1),
            (vec![run(StrategyName::None, 3, Violated), run(StrategyName::Database, 3, Violated)], &none, 1),
            (vec![run(StrategyName::None, 3, Correct), run(StrategyName::Database, 3, Violated)], &none, 1),
            (vec![run(StrategyName::None, 3, Correct), run(StrategyName::Database, 3, Correct)], &none, 2),
            (vec![run(StrategyName::Database, 3, Inconclusive)], &none, 2),
            (Vec::new(), &none, 2),
            (vec![run(StrategyName::Database, 3, Correct)], &limits, 99),
            (vec![run(StrategyName::None, 3, Violated)], &limits, 0),
        ] {
            let report = Report::new(runs, Vec::new());
            assert_eq!(report.conclude(thresholds).exit_code(), code, "{report:?}");
        }
    }
}
