//! The verdict: pure functions from the evidence to a judgement.
//!
//! A check that cannot see what it needs is `unknown`, never `pass`. Violated outranks inconclusive, and
//! inconclusive outranks correct.

mod faults;
mod holds;
mod judgement;
mod keys;
mod linearizable;
#[cfg(test)]
mod mutations;
mod name;
mod orders;
mod reservations;
mod stock;
mod tokens;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::{Database, Evidence};

use judgement::Judgement;

pub use name::CheckName;

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
    /// What has to hold does hold.
    Pass,
    /// It does not hold.
    Fail,
    /// What the check needs could not be seen.
    Unknown,
    /// The run has nothing that the check is about.
    NotApplicable,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The name of the check: what has to hold.
    pub name: CheckName,
    /// Whether it holds.
    pub status: Status,
    /// What was seen: a figure, a witness, a counterexample, or what is missing.
    pub detail: String,
}

/// Runs all checks on one run's evidence. Whether the load was [`sensitive`] only a suite with a negative
/// control can say.
pub fn checks(evidence: &Evidence) -> Vec<Check> {
    let on_database = ON_DATABASE.map(|(name, check)| {
        let judgement = match &evidence.database {
            Ok(database) => check(evidence, database),
            Err(why) => Judgement::Unknown(why.clone()),
        };
        Check::new(name, judgement)
    });
    let others = OTHERS.map(|(name, check)| Check::new(name, check(evidence)));
    on_database.into_iter().chain(others).collect()
}

type DatabaseCheck = fn(&Evidence, &Database) -> Judgement;

/// The checks that need what the database says.
const ON_DATABASE: [(CheckName, DatabaseCheck); 14] = [
    (CheckName::Exercised, orders::exercised),
    (CheckName::NotOversold, stock::not_oversold),
    (CheckName::Balanced, stock::balanced),
    (CheckName::NothingLost, orders::nothing_lost),
    (CheckName::AnswersAsStored, orders::answers_as_stored),
    (CheckName::NothingInvented, orders::nothing_invented),
    (CheckName::NothingRefusedWasSold, orders::nothing_refused_was_sold),
    (CheckName::AdjustmentsKept, stock::adjustments_kept),
    (CheckName::ReservationsSettled, reservations::reservations_settled),
    (CheckName::OncePerKey, keys::once_per_key),
    (CheckName::NoDuplicateReads, stock::no_duplicate_reads),
    (CheckName::Linearizable, linearizable::linearizable),
    (CheckName::TokensIncrease, tokens::tokens_increase),
    (CheckName::NoFalseSoldOut, stock::no_false_sold_out),
];

type EvidenceCheck = fn(&Evidence) -> Judgement;

/// The checks that need no database.
const OTHERS: [(CheckName, EvidenceCheck); 4] = [
    (CheckName::FaultsStruck, faults::faults_struck),
    (CheckName::Available, faults::available),
    (CheckName::NoOverlappingHolds, holds::no_overlapping_holds),
    (CheckName::AllAnswered, faults::all_answered),
];

impl Check {
    fn new(name: CheckName, judgement: Judgement) -> Self {
        let (status, detail) = match judgement {
            Judgement::Pass(detail) => (Status::Pass, detail),
            Judgement::Fail(detail) => (Status::Fail, detail),
            Judgement::Unknown(detail) => (Status::Unknown, detail),
            Judgement::NotApplicable(detail) => (Status::NotApplicable, detail),
        };
        Self { name, status, detail }
    }
}

/// What a load has done to a shop without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Units that were sold beyond the supply.
    pub oversold_units: i64,
    /// Updates of the stock that another one overwrote.
    pub lost_updates: u64,
}

/// Whether the negative control, which has no lock, broke under the same load: otherwise that was not hard
/// enough for the other verdicts to mean anything.
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
                "the same load without a lock lost {lost_updates} updates; \
                 the stock was too large to oversell"
            ),
        ),
        Some(_) => (
            Status::Unknown,
            "not proven: the same load without a lock neither oversold nor lost an update".into(),
        ),
        None => (Status::NotApplicable, "no run without a lock to compare with".into()),
    };
    Check { name: CheckName::Sensitive, status, detail }
}

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
