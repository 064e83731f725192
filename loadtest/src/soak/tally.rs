//! Rounds added up, and the table that they make.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{Cell, CellAlignment, Table};
use order_service::config::StrategyName;
use serde::{Deserialize, Serialize};

use super::Soak;
use crate::environment::Environment;
use crate::report::RunReport;
use crate::verdict::{CheckName, Status, Verdict};

/// What a soak has shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SoakReport {
    /// How many orders had to be sent under each strategy.
    pub orders: u64,
    /// How many faults had to be injected under each.
    pub faults: u64,
    /// What all was drawn from.
    pub seed: u64,
    /// Whether it was stopped.
    pub stopped: bool,
    /// One for each strategy.
    pub tallies: Vec<Tally>,
    /// Where it was made.
    pub environment: Environment,
}

/// The rounds of a strategy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// The strategy.
    pub strategy: String,
    /// The commit that the service was built from.
    pub commit: Option<String>,
    /// How many rounds.
    pub rounds: u64,
    /// How many of them were inconclusive, and why.
    pub inconclusive: Vec<String>,
    /// Rounds that could not be carried through, with their commands.
    pub broken_off: Vec<String>,
    /// Orders that were sent, repetitions left out.
    pub sent: u64,
    /// Orders that were confirmed.
    pub confirmed: u64,
    /// Orders that were refused for want of stock.
    pub sold_out: u64,
    /// Orders that were refused for another reason.
    pub refused: u64,
    /// Orders whose first answer did not say what became of them.
    pub unanswered: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Writes of holders that had lost their lock, refused by the guard.
    pub stale: u64,
    /// Units sold that there never were.
    pub oversold: i64,
    /// Rounds in which a confirmed order was gone.
    pub lost: u64,
    /// Rounds in which something was stored that was not ordered.
    pub invented: u64,
    /// Rounds in which an order was carried out twice.
    pub doubled: u64,
    /// All checks that failed, each with what it said.
    pub violations: Vec<String>,
    /// The longest time without a sale, in milliseconds.
    pub longest_gap_ms: f64,
    /// The smallest round that fails, where one did.
    pub failure: Option<String>,
}

impl Tally {
    pub(super) fn new(strategy: StrategyName) -> Self {
        Self { strategy: strategy.to_string(), ..Self::default() }
    }

    pub(super) fn add(&mut self, run: &RunReport) {
        self.commit = run.commit.clone();
        self.rounds += 1;
        self.sent += run.attempts;
        self.confirmed += run.accepted;
        self.sold_out += run.sold_out;
        self.refused += run.failed;
        self.unanswered += run.unknown;
        self.faults += run.faults.len() as u64;
        self.stale += run.lock.stale_writes_rejected;
        self.oversold += run.oversold();
        let has_failed = |name| u64::from(run.failed(name).is_some());
        self.lost += has_failed(CheckName::NothingLost);
        self.invented +=
            has_failed(CheckName::NothingInvented).max(has_failed(CheckName::NothingRefusedWasSold));
        self.doubled += has_failed(CheckName::OncePerKey);
        let failed = run.checks.iter().filter(|check| check.status == Status::Fail);
        self.violations.extend(failed.map(|check| format!("{}: {}", check.name, check.detail)));
        if run.verdict == Verdict::Inconclusive {
            let why = run.reason().map(|check| format!("{}: {}", check.name, check.detail));
            self.inconclusive.push(why.unwrap_or_default());
        }
        self.longest_gap_ms = self.longest_gap_ms.max(run.availability.longest_gap.ms);
    }

    pub(super) fn is_enough(&self, orders: u64, faults: u64) -> bool {
        self.sent >= orders && self.faults >= faults
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Whether everything could be seen.
    pub(super) fn is_clear(&self) -> bool {
        self.inconclusive.is_empty() && self.broken_off.is_empty()
    }

    pub(super) fn in_words(&self) -> String {
        format!("{} sent, {} confirmed, {} faults", self.sent, self.confirmed, self.faults)
    }
}

impl SoakReport {
    pub(super) fn new(soak: &Soak, tallies: Vec<Tally>, stopped: bool) -> Self {
        let Soak { orders, faults, seed, .. } = *soak;
        Self { orders, faults, seed, stopped, tallies, environment: Environment::here() }
    }

    /// The table, as Markdown, with what belongs to it.
    pub fn markdown(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let mut header = vec![Cell::new("")];
        header.extend(self.tallies.iter().map(|tally| Cell::new(format!("`{}`", tally.strategy))));
        table.set_header(header);
        type Figure = (&'static str, fn(&Tally) -> String);
        let figures: [Figure; 15] = [
            ("rounds", |tally| tally.rounds.to_string()),
            ("orders sent", |tally| tally.sent.to_string()),
            ("orders confirmed", |tally| tally.confirmed.to_string()),
            ("refused: sold out", |tally| tally.sold_out.to_string()),
            ("refused: for another reason", |tally| tally.refused.to_string()),
            ("first answer missing or unknown", |tally| tally.unanswered.to_string()),
            ("faults", |tally| tally.faults.to_string()),
            ("stale writes refused by the guard", |tally| tally.stale.to_string()),
            ("**units oversold**", |tally| tally.oversold.to_string()),
            ("**rounds with an order lost**", |tally| tally.lost.to_string()),
            ("**rounds with an order invented**", |tally| tally.invented.to_string()),
            ("**rounds with an order doubled**", |tally| tally.doubled.to_string()),
            ("rounds in which any check failed", |tally| u64::from(tally.has_failed()).to_string()),
            ("rounds inconclusive, or broken off", |tally| {
                (tally.inconclusive.len() + tally.broken_off.len()).to_string()
            }),
            ("longest time without a sale", |tally| format!("{:.1} s", tally.longest_gap_ms / 1e3)),
        ];
        for (name, figure) in figures {
            let mut row = vec![Cell::new(name)];
            let cell = |tally: &Tally| Cell::new(figure(tally)).set_alignment(CellAlignment::Right);
            row.extend(self.tallies.iter().map(cell));
            table.add_row(row);
        }
        let commit = self.tallies.iter().find_map(|tally| tally.commit.clone());
        let commit = commit.unwrap_or_else(|| "unknown".into());
        let Environment { system, processor, processors, build, .. } = &self.environment;
        let mut text = format!(
            "{table}\n\nSeed {}, commit {commit}, {processors} × {processor}, {system}, a {build} build.\n",
            self.seed
        );
        if self.stopped {
            text += "\nStopped before its end.\n";
        }
        for tally in &self.tallies {
            let findings = tally.violations.iter().chain(&tally.inconclusive).chain(&tally.broken_off);
            for what in findings.chain(&tally.failure) {
                text += &format!("\n{}: {what}\n", tally.strategy);
            }
        }
        text
    }
}
