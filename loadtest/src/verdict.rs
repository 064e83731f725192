//! The verdict: pure functions from the evidence to a judgement.
//!
//! A check that cannot see what it needs is `unknown`, never `pass`. Violated outranks inconclusive, and
//! inconclusive outranks correct.

mod checks;
mod holds;
mod linearizable;
#[cfg(test)]
mod mutations;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;

/// What a run has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check that applies has passed.
    Correct,
    /// Nothing was found wrong, and something could not be seen.
    Inconclusive,
    /// Something is wrong.
    Violated,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Correct => "correct",
            Self::Inconclusive => "inconclusive",
            Self::Violated => "violated",
        })
    }
}

/// What a check has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It could not be seen.
    Unknown,
    /// There was nothing to check.
    NotApplicable,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What has to hold.
    pub name: String,
    /// Whether it does.
    pub status: Status,
    /// What was seen: a figure, a witness, a counterexample, or what is missing.
    pub detail: String,
}

/// Runs all checks on one run's evidence. Whether the load was [`sensitive`] only a suite with a negative control
/// can say.
pub fn checks(evidence: &Evidence) -> Vec<Check> {
    let database = evidence.database.as_ref().map_err(String::as_str);
    let mut results = Vec::new();
    let mut add = |name: &str, result: Finding| {
        let (status, detail) = match result {
            Finding::Pass(detail) => (Status::Pass, detail),
            Finding::Fail(detail) => (Status::Fail, detail),
            Finding::Unknown(detail) => (Status::Unknown, detail),
            Finding::NotApplicable(detail) => (Status::NotApplicable, detail),
        };
        results.push(Check { name: name.into(), status, detail });
    };
    type DatabaseCheck = fn(&Evidence, &crate::evidence::Database) -> Finding;
    let on_database: [(&str, DatabaseCheck); 13] = [
        ("exercised", checks::exercised),
        ("not-oversold", checks::not_oversold),
        ("balanced", checks::balanced),
        ("nothing-lost", checks::nothing_lost),
        ("answers-as-stored", checks::answers_as_stored),
        ("nothing-invented", checks::nothing_invented),
        ("nothing-refused-was-sold", checks::nothing_refused_was_sold),
        ("adjustments-kept", checks::adjustments_kept),
        ("once-per-key", checks::once_per_key),
        ("no-duplicate-reads", checks::no_duplicate_reads),
        ("linearizable", linearizable::linearizable),
        ("tokens-increase", checks::tokens_increase),
        ("no-false-sold-out", checks::no_false_sold_out),
    ];
    for (name, check) in on_database {
        add(
            name,
            match database {
                Ok(database) => check(evidence, database),
                Err(why) => Finding::Unknown(why.into()),
            },
        );
    }
    add("faults-struck", checks::faults_struck(evidence));
    add("available", checks::available(evidence));
    add("no-overlapping-holds", holds::no_overlapping_holds(evidence));
    add("all-answered", checks::all_answered(evidence));
    results
}

/// What a load has done to a shop without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Units sold that there never were.
    pub oversold_units: i64,
    /// Updates of the stock that another one overwrote.
    pub lost_updates: u64,
}

/// Whether the negative control, which has no lock, broke under the same load: otherwise that was not hard enough for the
/// other verdicts to mean anything.
pub fn sensitive(control: Option<Control>) -> Check {
    let (status, detail) = match control {
        Some(Control { oversold_units, lost_updates }) if oversold_units > 0 => (
            Status::Pass,
            format!(
                "the same load without a lock oversold by {oversold_units} and lost {lost_updates} updates"
            ),
        ),
        Some(Control { lost_updates, .. }) if lost_updates > 0 => (
            Status::Pass,
            format!(
                "the same load without a lock lost {lost_updates} updates; the stock was too large to oversell"
            ),
        ),
        Some(_) => (
            Status::Unknown,
            "not proven: the same load without a lock neither oversold nor lost an update".into(),
        ),
        None => (Status::NotApplicable, "no run without a lock to compare with".into()),
    };
    Check { name: "sensitive".into(), status, detail }
}

/// The checks that may fail where there is no lock: what that explains, and no more.
pub const EXPLAINED_BY_NO_LOCK: [&str; 7] = [
    "not-oversold",
    "balanced",
    "no-duplicate-reads",
    "linearizable",
    "no-false-sold-out",
    "tokens-increase",
    "no-overlapping-holds",
];

/// The verdict of a list of checks.
pub fn verdict(checks: &[Check]) -> Verdict {
    let any = |status| checks.iter().any(|check| check.status == status);
    if any(Status::Fail) {
        Verdict::Violated
    } else if any(Status::Unknown) {
        Verdict::Inconclusive
    } else {
        Verdict::Correct
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Pass(String),
    Fail(String),
    Unknown(String),
    NotApplicable(String),
}
