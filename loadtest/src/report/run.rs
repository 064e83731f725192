//! The report of one run.

use std::collections::BTreeMap;

use order_service::api::Info;
use serde::{Deserialize, Serialize};

use super::{Conclusion, Strategy};
use crate::attempt::{Attempt, FailureReason, OutcomeGroup};
use crate::availability::Availability;
use crate::evidence::{Database, Evidence};
use crate::faults::FaultMark;
use crate::metrics::{Latencies, LockFigures, Percentiles};
use crate::payments::Payments;
use crate::resources::Resources;
use crate::scenario::Scenario;
use crate::series::Series;
use crate::verdict::{Check, CheckName, Status, Verdict, checks, verdict};

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The product that was made for it and sold; empty in reports of earlier versions.
    #[serde(default)]
    pub sku: String,
    /// The locking strategy.
    pub strategy: Strategy,
    /// The kind of store: `sqlite` or `postgres`.
    pub store: String,
    /// How many replicas of the service there were.
    pub replicas: usize,
    /// How many buyers ordered concurrently.
    pub buyers: usize,
    /// Orders per second that were intended; absent in a closed loop.
    pub rate: Option<f64>,
    /// The most orders per transaction.
    pub max_batch: usize,
    /// Units in stock at the beginning.
    pub stock: i64,
    /// How many orders were attempted, repetitions left out.
    pub attempts: u64,
    /// How many of them were confirmed.
    pub accepted: u64,
    /// How many were refused for want of stock.
    pub sold_out: u64,
    /// How many were definitely refused for another reason.
    pub failed: u64,
    /// How many have no answer that says what became of them.
    pub unknown: u64,
    /// How many times an order was sent again.
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
    /// Whether it was run only to see whether the load breaks a shop without a lock.
    #[serde(default)]
    pub is_control: bool,
    /// Whether it was stopped before its end: it is judged by what was done.
    #[serde(default)]
    pub stopped: bool,
    /// What each check has shown.
    pub checks: Vec<Check>,
    /// Confirmed orders per second, for as long as there was something to sell.
    pub accepted_per_second: f64,
    /// Seconds from the first attempt to the last answer.
    pub seconds: f64,
    /// The response times of confirmed orders, from the intended start.
    pub latency_ms: Percentiles,
    /// All latencies, by outcome.
    pub latencies: Latencies,
    /// The processor time that the generator spent from the first attempt to the last answer, in seconds.
    #[serde(default)]
    pub generator_seconds: f64,
    /// Whether the generator kept its schedule; if not, the figures of cost mean little.
    pub generator_kept_up: bool,
    /// What the locks have measured and counted.
    pub lock: LockFigures,
    /// How many orders each replica has confirmed.
    pub replica_share: BTreeMap<String, u64>,
    /// How many attempts failed, by the reason.
    pub failures: BTreeMap<FailureReason, u64>,
    /// What the replicas needed of the machine, where they are ours.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// When nothing was sold, and what came after each fault.
    #[serde(default)]
    pub availability: Availability,
    /// What became of the orders, where they had to be paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payments: Option<Payments>,
    /// What was broken on purpose while it went on.
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

/// A run that sells for less time than this is too short to compare speeds.
const SHORT_MS: f64 = 2_000.0;

impl RunReport {
    /// Judges a run by its evidence. `seconds` is how long it took.
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
        let database = evidence.database.as_ref().ok();
        let availability = Availability::of(evidence);
        let checks = checks(evidence);
        Self {
            sku: String::new(),
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
            units_sold: database.map(Database::units_sold),
            oversold_units: database.map(Database::oversold_units),
            supply: database.map(|database| database.audit.supply),
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
            payments: Payments::of(evidence),
            faults: Vec::new(),
            seed: scenario.seed,
            commit: info.commit.clone(),
            series: None,
        }
    }

    /// Adds a check that only the suite can carry out.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
        self.verdict = verdict(&self.checks);
    }

    /// What the run is called among others.
    pub fn name(&self) -> String {
        if self.is_control { format!("{} (control)", self.strategy) } else { self.strategy.to_string() }
    }

    /// Units sold that there never were, as far as is known.
    pub fn oversold(&self) -> i64 {
        self.oversold_units.unwrap_or_default()
    }

    /// Updates of the stock that another one overwrote, as far as is known.
    pub fn lost_updates(&self) -> u64 {
        self.series.as_ref().map_or(0, |series| series.lost_updates)
    }

    /// What was violated, in a few words: what was oversold, or else lost, or else which check failed.
    pub fn violation(&self, whole: impl Fn(i64) -> String) -> Option<String> {
        let lost = i64::try_from(self.lost_updates()).unwrap_or(i64::MAX);
        match (self.verdict, self.oversold(), lost) {
            (Verdict::Correct | Verdict::Inconclusive, ..) => None,
            (Verdict::Violated, 1.., _) => Some(format!("oversold by {}", whole(self.oversold()))),
            (Verdict::Violated, _, 1) => Some("1 update lost".into()),
            (Verdict::Violated, _, 1..) => Some(format!("{} updates lost", whole(lost))),
            (Verdict::Violated, ..) => Some(
                self.reason().map_or_else(|| "violated".into(), |check| format!("{} failed", check.name)),
            ),
        }
    }

    /// Whether there was something to sell for so short a time that its speed says little.
    pub fn is_short(&self) -> bool {
        self.accepted > 0 && self.availability.selling_ms < SHORT_MS
    }

    /// Why its speed is compared with no other's, where it is whole.
    pub fn unfit(&self) -> Option<&'static str> {
        if self.stopped {
            Some("stopped before its end")
        } else if !self.generator_kept_up {
            Some("the generator was late")
        } else if self.is_short() {
            Some("too short")
        } else {
            None
        }
    }

    /// What was sold of what there was, in words.
    pub fn sold_in_words(&self, whole: impl Fn(i64) -> String) -> String {
        match (self.units_sold, self.supply) {
            (Some(sold), Some(supply)) => format!("{} sold of {}", whole(sold), whole(supply)),
            (Some(sold), None) => format!("{} sold of {}", whole(sold), whole(self.stock)),
            (None, _) => "what was sold is not known".into(),
        }
    }

    /// The check that the verdict rests on: the first that failed, or else the first that could not be
    /// carried out.
    pub fn reason(&self) -> Option<&Check> {
        let first = |status| self.checks.iter().find(|check| check.status == status);
        first(Status::Fail).or_else(|| first(Status::Unknown))
    }

    /// Why the run is not as expected, where it has no check to say so.
    pub fn disappointment(&self) -> Option<&'static str> {
        let is_unbroken = self.expected == Verdict::Violated && self.verdict != Verdict::Violated;
        is_unbroken.then_some(
            "it has no lock between its replicas, and neither oversold nor lost an update: \
             this load proves nothing",
        )
    }

    /// What the run says of the expectation. A run that was to break did so only when nothing went wrong that
    /// the want of a lock does not explain.
    pub(super) fn conclude(&self) -> Conclusion {
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

    /// The check of this name, if it was carried out.
    pub fn check(&self, name: CheckName) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The check of this name, if it failed.
    pub fn failed(&self, name: CheckName) -> Option<&Check> {
        self.check(name).filter(|check| check.status == Status::Fail)
    }
}
