//! The claims of the course, tried on the real thing.
//!
//! None is scripted to its answer: what is observed comes from the orders in the database, the lock service's
//! own state, or the clock. An experiment whose precondition did not occur (no two overlapped, say) is
//! inconclusive, never reproduced.

mod comparison;
mod database_deadlock;
mod database_io;
mod database_spof;
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
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{ContentArrangement, Table};
use lab::ServerKind;
use serde::{Deserialize, Serialize};
use textwrap::Options;

pub(crate) use self::fixtures::Contenders;
use self::fixtures::Timeline;
pub use self::page::page;
use crate::report::Conclusion;

/// How wide the report for people is.
const WIDTH: usize = 110;

/// A claim and the way to try it.
#[derive(Debug, Clone, Copy)]
pub struct Experiment {
    /// What to call it on the command line.
    pub name: &'static str,
    /// What the course says.
    pub claim: &'static str,
    /// What is set up.
    pub setup: &'static str,
    /// The servers without which it cannot be tried.
    pub needs: &'static [ServerKind],
    run: fn() -> Running,
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
#[derive(Debug, Clone, Default)]
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
    fn figure(&mut self, name: impl Into<String>, figure: impl ToString) {
        self.figures.push((name.into(), figure.to_string()));
    }
}

/// An experiment with what was observed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExperimentReport {
    /// Which experiment.
    pub name: String,
    /// What the course says.
    pub claim: String,
    /// What was set up.
    pub setup: String,
    /// What happened when.
    pub timeline: Vec<String>,
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
    let broken = || format!("the experiment {} broke off", experiment.name);
    let missing: Vec<_> = experiment.needs.iter().copied().filter_map(ServerKind::missing).collect();
    let observation = if missing.is_empty() {
        (experiment.run)().await.with_context(broken)?
    } else {
        let (observed, finding) = (missing.join("; "), Some(Finding::NotRun));
        Observation { observed, finding, ..Observation::default() }
    };
    Ok(ExperimentReport {
        name: experiment.name.into(),
        claim: experiment.claim.into(),
        setup: experiment.setup.into(),
        timeline: observation.timeline.lines(),
        figures: observation.figures,
        observed: observation.observed,
        explanation: observation.explanation,
        table: observation.table,
        finding: observation.finding.unwrap_or(Finding::Inconclusive),
    })
}

/// What the experiments say as a whole: a refutation is a finding, not a failure, and what is
/// not run is reported and left at that.
pub fn conclude(reports: &[ExperimentReport]) -> Conclusion {
    let inconclusive = reports.iter().any(|report| report.finding == Finding::Inconclusive);
    if inconclusive { Conclusion::Inconclusive } else { Conclusion::AsExpected }
}

impl fmt::Display for ExperimentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.figures.iter().map(|(name, figure)| format!("{name}: {figure}"));
        let parts = [
            ("the course says", vec![self.claim.clone()]),
            ("set-up", vec![self.setup.clone()]),
            ("what happened", self.timeline.clone()),
            ("figures", figures.collect()),
            ("observed", vec![self.observed.clone()]),
            ("why", self.explanation.iter().cloned().collect()),
        ];
        writeln!(f, "{}", self.name)?;
        for (title, lines) in parts {
            for (i, line) in lines.iter().enumerate() {
                let first = format!("  {:16} ", if i == 0 { title } else { "" });
                let options =
                    Options::new(WIDTH).initial_indent(&first).subsequent_indent("                   ");
                writeln!(f, "{}", textwrap::fill(line, options))?;
            }
        }
        if let Some((head, rows)) = self.table.split_first() {
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN).set_header(head).add_rows(rows);
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH as u16);
            writeln!(f, "{table}")?;
        }
        let finding = match self.finding {
            Finding::Reproduced => "REPRODUCED",
            Finding::Refuted => "REFUTED",
            Finding::Inconclusive => "INCONCLUSIVE",
            Finding::NotRun => "NOT RUN",
        };
        write!(f, "  the claim is     {finding}")
    }
}
