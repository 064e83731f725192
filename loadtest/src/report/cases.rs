//! A report as test cases: what other people's CI shows of it.

use std::collections::BTreeMap;

use super::{Conclusion, Report, RunReport, Strategy, Thresholds};
use crate::verdict::{Check, Status, Verdict};

/// Cases that belong together: those of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// What the run is called.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case: a check, or a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The check's name.
    pub name: String,
    /// What it has shown.
    pub outcome: CaseOutcome,
    /// The reason, in words.
    pub detail: String,
}

/// What a case has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseOutcome {
    /// What was expected.
    Passed,
    /// What has to hold does not.
    Failed,
    /// What is needed could not be seen.
    Inconclusive,
    /// It does not apply, or was not run.
    Skipped,
}

impl Case {
    /// A case.
    pub fn new(name: impl ToString, outcome: CaseOutcome, detail: impl Into<String>) -> Self {
        Self { name: name.to_string(), outcome, detail: detail.into() }
    }

    /// The case of a check, where nothing is expected to fail.
    pub fn of(check: &Check) -> Self {
        let outcome = match check.status {
            Status::Pass => CaseOutcome::Passed,
            Status::Fail => CaseOutcome::Failed,
            Status::Unknown => CaseOutcome::Inconclusive,
            Status::NotApplicable => CaseOutcome::Skipped,
        };
        Self::new(check.name, outcome, &check.detail)
    }

    /// Whether it keeps the suite from passing.
    pub fn is_bad(&self) -> bool {
        matches!(self.outcome, CaseOutcome::Failed | CaseOutcome::Inconclusive)
    }
}

impl Suite {
    /// A suite.
    pub fn new(name: impl Into<String>, seconds: f64, cases: Vec<Case>) -> Self {
        Self { name: name.into(), seconds, cases }
    }

    /// The limits on figures as cases, where there are any; `missed` are the sentences on those that were.
    pub fn of_limits(thresholds: &Thresholds, missed: &[String]) -> Option<Self> {
        let mut cases: Vec<_> =
            missed.iter().map(|why| Case::new("threshold", CaseOutcome::Failed, why)).collect();
        if cases.is_empty() {
            let max_p99 = thresholds.max_p99_ms.map(|_| "max-p99");
            let limits = max_p99.into_iter().chain(thresholds.min_rate.map(|_| "min-rate"));
            cases = limits.map(|limit| Case::new(limit, CaseOutcome::Passed, "")).collect();
        }
        (!cases.is_empty()).then(|| Self::new("thresholds", 0.0, cases))
    }
}

impl Report {
    /// The report as test cases. One of them is bad exactly when the suite as a whole is not as expected.
    pub fn suites(&self, thresholds: &Thresholds) -> Vec<Suite> {
        let mut suites = Vec::new();
        let mut repetitions = BTreeMap::<String, usize>::new();
        for run in &self.runs {
            let name = run.name();
            let number = repetitions.entry(name.clone()).or_default();
            *number += 1;
            let name = if *number > 1 { format!("{name}, run {number}") } else { name };
            suites.push(Suite::new(name, run.seconds, cases(run)));
        }
        for not_run in &self.not_run {
            let (name, is_bad) =
                (Strategy::from(not_run.strategy).to_string(), self.stopped || not_run.broke_off);
            let outcome = if is_bad { CaseOutcome::Inconclusive } else { CaseOutcome::Skipped };
            suites.push(Suite::new(name, 0.0, vec![Case::new("run", outcome, &not_run.reason)]));
        }
        if self.asked_for().next().is_none() {
            let nothing = Case::new("run", CaseOutcome::Inconclusive, "nothing was run");
            suites.push(Suite::new("all", 0.0, vec![nothing]));
        }
        suites.extend(Suite::of_limits(thresholds, &self.missed(thresholds)));
        suites
    }
}

/// The cases of a run. What has no lock is expected to fail in the ways that the want of a lock explains.
fn cases(run: &RunReport) -> Vec<Case> {
    let is_broken = run.expected == Verdict::Violated;
    let case = |check: &Check| match check.status {
        Status::Fail if is_broken && check.name.may_fail_without_lock() => {
            let detail = format!("fails, as is expected without a lock: {}", check.detail);
            Case::new(check.name, CaseOutcome::Passed, detail)
        }
        // It was not asked for: what it cannot show is no violation of the others.
        Status::Fail if run.is_control => Case::new(check.name, CaseOutcome::Inconclusive, &check.detail),
        Status::Unknown if is_broken => Case::new(check.name, CaseOutcome::Skipped, &check.detail),
        _ => Case::of(check),
    };
    let mut cases: Vec<_> = run.checks.iter().map(case).collect();
    let conclusion = run.conclude();
    if conclusion != Conclusion::AsExpected && !cases.iter().any(Case::is_bad) {
        let outcome =
            if conclusion == Conclusion::Violated { CaseOutcome::Failed } else { CaseOutcome::Inconclusive };
        let why = run.disappointment().map_or_else(|| format!("the verdict is {}", run.verdict), Into::into);
        cases.push(Case::new("verdict", outcome, why));
    }
    cases
}
