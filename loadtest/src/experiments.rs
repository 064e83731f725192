//! The claims of the course, tried on the real thing.
//!
//! None is scripted to its answer: what is observed comes from the orders in the database, the lock service's
//! own state, or the clock. An experiment whose precondition did not occur (no two overlapped, say) is
//! inconclusive, never reproduced.

mod advice;
mod comparison;
mod database_deadlock;
mod database_io;
mod database_spof;
mod drawing;
mod event;
mod fairness;
mod herd;
mod herd_bug;
mod lock_table;
mod oversell;
mod page;
mod payment_time;
mod redis_atomic_expiry;
mod redis_counter;
mod redis_crash;
mod redis_expiry;
mod redis_failover;
mod redis_queue;
mod redis_redlock;
mod redis_setnx;
mod reentrancy;
mod row_lock;
mod single_machine_lock;
mod split_stock;
mod terminal;
mod timeline;
mod transaction_crash;
mod fixtures;
mod zookeeper_crash;
mod zookeeper_ensemble;
mod zookeeper_order;
mod zookeeper_read_write;
mod zookeeper_session;
mod zookeeper_waiter_crash;

use std::fmt;
use std::pin::Pin;

use anyhow::{Context as _, bail};
use lab::ServerKind;
use serde::{Deserialize, Serialize};

pub use self::advice::Advice;
use self::drawing::{diagrams, legend};
pub use self::event::{Event, EventKind, Party, Role};
pub(crate) use self::fixtures::Contenders;
pub use self::page::{details, drawn, finding, meaning, observed, page, summary, unfolded};
pub use self::terminal::text;
use self::timeline::Timeline;
pub use self::timeline::{Recording, lines};
use crate::report::{Conclusion, Screen};

/// A claim and the way to try it.
#[derive(Debug, Clone, Copy)]
pub struct Experiment {
    /// What to call it on the command line.
    pub name: &'static str,
    /// What it is about, in a few plain words.
    pub title: &'static str,
    /// What the course says.
    pub claim: &'static str,
    /// What is set up.
    pub setup: &'static str,
    /// What follows for whoever builds a shop.
    pub advice: Advice,
    /// The servers without which it cannot be tried.
    pub needs: &'static [ServerKind],
    run: fn(Timeline) -> Running,
}

type Running = Pin<Box<dyn Future<Output = anyhow::Result<Observation>>>>;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It happened as the course says.
    Reproduced,
    /// It happened otherwise.
    Refuted,
    /// What the claim is about did not come to pass.
    Inconclusive,
    /// A server that it takes is not installed.
    NotRun,
}

/// What was observed.
#[derive(Debug, Clone)]
struct Observation {
    timeline: Timeline,
    /// Figures with their names.
    figures: Vec<(String, String)>,
    /// What was observed, in a sentence.
    observed: String,
    /// Why it is so, where that is not what the course says or not all of it.
    explanation: Option<String>,
    /// A table whose first row is its head; empty where there is none.
    table: Vec<Vec<String>>,
    finding: Option<Finding>,
}

impl Observation {
    fn of(timeline: Timeline) -> Self {
        Self {
            timeline,
            figures: Vec::new(),
            observed: String::new(),
            explanation: None,
            table: Vec::new(),
            finding: None,
        }
    }

    fn figure(&mut self, name: impl Into<String>, figure: impl ToString) {
        self.figures.push((name.into(), figure.to_string()));
    }
}

/// An experiment with what was observed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExperimentReport {
    /// Which experiment.
    pub name: String,
    /// What it is about, in a few plain words; empty in a report of an earlier version.
    #[serde(default)]
    pub title: String,
    /// What the course says.
    pub claim: String,
    /// What was set up.
    pub setup: String,
    /// What happened when, in words.
    pub timeline: Vec<String>,
    /// The same as records, from which the drawing is made; none in a report of an earlier version.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Figures with their names.
    pub figures: Vec<(String, String)>,
    /// What was observed, in a sentence.
    pub observed: String,
    /// Why it is so, where that is not what the course says or not all of it.
    #[serde(default)]
    pub explanation: Option<String>,
    /// A table whose first row is its head; empty where there is none.
    #[serde(default)]
    pub table: Vec<Vec<String>>,
    /// What became of the claim.
    pub finding: Finding,
    /// What follows for whoever builds a shop; empty in a report of an earlier version.
    #[serde(default)]
    pub advice: String,
}

/// All experiments, in the order of the course.
pub fn all() -> Vec<Experiment> {
    vec![
        oversell::EXPERIMENT,
        single_machine_lock::EXPERIMENT,
        lock_table::EXPERIMENT,
        database_deadlock::EXPERIMENT,
        database_spof::EXPERIMENT,
        database_io::EXPERIMENT,
        redis_setnx::EXPERIMENT,
        redis_crash::EXPERIMENT,
        redis_expiry::EXPERIMENT,
        redis_queue::EXPERIMENT,
        redis_failover::EXPERIMENT,
        redis_atomic_expiry::EXPERIMENT,
        redis_counter::EXPERIMENT,
        redis_redlock::EXPERIMENT,
        zookeeper_order::EXPERIMENT,
        zookeeper_read_write::EXPERIMENT,
        zookeeper_crash::EXPERIMENT,
        zookeeper_session::EXPERIMENT,
        zookeeper_ensemble::EXPERIMENT,
        zookeeper_waiter_crash::EXPERIMENT,
        herd::EXPERIMENT,
        herd_bug::EXPERIMENT,
        reentrancy::EXPERIMENT,
        fairness::EXPERIMENT,
        row_lock::EXPERIMENT,
        split_stock::EXPERIMENT,
        payment_time::EXPERIMENT,
        transaction_crash::EXPERIMENT,
        comparison::EXPERIMENT,
    ]
}

/// The experiments of these names; `all` stands for all.
pub fn choose(names: &[String]) -> anyhow::Result<Vec<Experiment>> {
    if names == ["all"] {
        return Ok(all());
    }
    let find = |name: &String| all().into_iter().find(|experiment| experiment.name == name);
    let mut chosen = Vec::new();
    for name in names {
        let Some(experiment) = find(name) else {
            bail!("there is no experiment {name:?}; `loadtest experiment list` names them");
        };
        chosen.push(experiment);
    }
    Ok(chosen)
}

/// Tries a claim, where the servers that it takes are installed.
pub async fn run(experiment: Experiment) -> anyhow::Result<ExperimentReport> {
    run_recorded(experiment, &Recording::default()).await
}

/// The same, while others look at what is recorded.
pub async fn run_recorded(experiment: Experiment, recording: &Recording) -> anyhow::Result<ExperimentReport> {
    let broken = || format!("the experiment {} broke off", experiment.name);
    let missing: Vec<_> = experiment.missing().collect();
    let timeline = Timeline::begin(recording.clone());
    let observation = if missing.is_empty() {
        (experiment.run)(timeline).await.with_context(broken)?
    } else {
        let (observed, finding) = (missing.join("; "), Some(Finding::NotRun));
        Observation { observed, finding, ..Observation::of(timeline) }
    };
    let events = recording.events();
    let finding = observation.finding.unwrap_or(Finding::Inconclusive);
    Ok(ExperimentReport {
        name: experiment.name.into(),
        title: experiment.title.into(),
        claim: experiment.claim.into(),
        setup: experiment.setup.into(),
        timeline: lines(&events),
        events,
        figures: observation.figures,
        observed: observation.observed,
        explanation: observation.explanation,
        table: observation.table,
        finding,
        advice: experiment.advice.on(finding).into(),
    })
}

impl Experiment {
    /// What is not installed of what it takes, each with the command that installs it.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        self.needs.iter().copied().filter_map(ServerKind::missing)
    }
}

/// What the experiments say as a whole: a refutation is a finding, not a failure, and what is
/// not run is reported and left at that.
pub fn conclude(reports: &[ExperimentReport]) -> Conclusion {
    let inconclusive = reports.iter().any(|report| report.finding == Finding::Inconclusive);
    if inconclusive { Conclusion::Inconclusive } else { Conclusion::AsExpected }
}

impl fmt::Display for ExperimentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self, Screen::default()))
    }
}

impl Finding {
    /// All findings.
    pub const ALL: [Self; 4] = [Self::Reproduced, Self::Refuted, Self::Inconclusive, Self::NotRun];
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reproduced => "reproduced",
            Self::Refuted => "refuted",
            Self::Inconclusive => "inconclusive",
            Self::NotRun => "not run",
        })
    }
}
