//! Reports of runs: the table for people, the JSON for programs, and the page.

mod cases;
mod details;
pub mod html;
mod junit;
mod markdown;
mod run;
mod screen;
mod strategy;
mod table;

use order_service::config::StrategyName;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::verdict::Verdict;

pub use cases::{Case, CaseOutcome, Suite};
pub use details::{details, headline};
pub use junit::junit;
pub use markdown::markdown;
pub use run::RunReport;
pub use screen::Screen;
pub use strategy::Strategy;
pub use table::{comparison, table};

/// The report of a suite, as it is written to a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the form of the JSON.
    pub schema: u32,
    /// One entry for each run.
    pub runs: Vec<RunReport>,
    /// The strategies that were asked for and not run.
    pub not_run: Vec<NotRun>,
    /// The command that such a report comes from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Whether it was stopped before its end.
    #[serde(default)]
    pub stopped: bool,
    /// The machine and the program that it was measured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// A strategy that was asked for and not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// The strategy.
    pub strategy: StrategyName,
    /// Why it was not run, for people.
    pub reason: String,
    /// The command that installs what is missing, where there is one.
    pub install: Option<String>,
    /// Whether its run had begun, and broke off.
    #[serde(default)]
    pub broke_off: bool,
}

impl NotRun {
    /// One whose turn had not come when the suite was stopped.
    pub(crate) fn stopped(strategy: StrategyName) -> Self {
        Self { strategy, reason: "stopped before its turn".into(), install: None, broke_off: false }
    }

    /// One whose run broke off.
    pub(crate) fn broken_off(strategy: StrategyName, why: String) -> Self {
        Self { strategy, reason: why, install: None, broke_off: true }
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

    /// In a word or two.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::AsExpected => "as expected",
            Self::Violated => "VIOLATED",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::ThresholdMissed => "THRESHOLD MISSED",
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

    /// The run that tells most of several: the first that went wrong, or else the last.
    pub fn telling(&self) -> Option<&RunReport> {
        let first = |verdict| self.asked_for().find(|run| run.verdict == verdict);
        let wrong = first(Verdict::Violated).or_else(|| first(Verdict::Inconclusive));
        wrong.or_else(|| self.asked_for().last())
    }

    /// How many of several strategies have oversold, or have gone wrong otherwise, and which.
    pub fn summary(&self) -> String {
        let of = |is_it: &dyn Fn(&RunReport) -> bool| {
            let mut names: Vec<_> = Vec::new();
            for run in self.asked_for().filter(|run| is_it(run)) {
                if !names.contains(&&run.strategy) {
                    names.push(&run.strategy);
                }
            }
            names
        };
        let is_violated = |run: &RunReport| run.oversold() == 0 && run.verdict == Verdict::Violated;
        let all = of(&|_| true).len();
        let noun = if all == 1 { "strategy" } else { "strategies" };
        let counted = |strategies: Vec<&Strategy>, word: &str| {
            let names: Vec<_> = strategies.iter().map(ToString::to_string).collect();
            let said = || format!("{} of {all} {noun} {word}: {}", names.len(), names.join(", "));
            (!names.is_empty()).then(said)
        };
        let parts = [
            counted(of(&|run| run.oversold() > 0), "oversold"),
            counted(of(&|run| is_violated(run) && run.lost_updates() > 0), "lost updates"),
            counted(of(&|run| is_violated(run) && run.lost_updates() == 0), "violated"),
            counted(of(&|run| run.verdict == Verdict::Inconclusive), "inconclusive"),
        ];
        let words: Vec<_> = parts.into_iter().flatten().collect();
        match words.is_empty() {
            true if all == 0 => "nothing was run".into(),
            true => format!("{all} of {all} {noun} correct"),
            false => words.join("; "),
        }
    }

    /// The verdict in one line.
    pub fn line(&self, thresholds: &Thresholds) -> String {
        let line = match &self.runs[..] {
            [run] if self.not_run.is_empty() => headline(run),
            _ => format!("{}: {}", self.conclude(thresholds).in_words(), self.summary()),
        };
        let missed = self.missed(thresholds).into_iter().map(|missed| format!(" · {missed}"));
        std::iter::once(line).chain(missed).collect()
    }

    /// What the suite says as a whole.
    pub fn conclude(&self, thresholds: &Thresholds) -> Conclusion {
        let any = |conclusion| self.runs.iter().any(|run| run.conclude() == conclusion);
        if any(Conclusion::Violated) {
            return Conclusion::Violated;
        }
        // What was stopped before its turn has shown nothing.
        let is_cut_short =
            self.stopped && !self.not_run.is_empty() || self.not_run.iter().any(|not_run| not_run.broke_off);
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
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::availability::Availability;
    use crate::metrics::{Latencies, LockFigures, Percentiles};
    use crate::series::Series;
    use crate::verdict::{Check, CheckName, Status};

    /// A run that has shown this.
    pub(crate) fn run(strategy: StrategyName, replicas: usize, verdict: Verdict) -> RunReport {
        RunReport {
            sku: "hair-dryer".into(),
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
            payments: None,
            faults: Vec::new(),
            seed: 1,
            commit: None,
            series: None,
        }
    }

    #[test]
    fn several_runs_are_summarized_in_one_line() {
        use Verdict::{Correct, Inconclusive, Violated};
        let mut lost = run(StrategyName::Row, 3, Violated);
        lost.oversold_units = Some(0);
        let mut control = run(StrategyName::None, 3, Violated);
        control.is_control = true;
        let summary = |runs: &[RunReport]| Report::new(runs.to_vec(), Vec::new()).summary();
        let (none, local, database) = (
            run(StrategyName::None, 3, Violated),
            run(StrategyName::Local, 3, Violated),
            run(StrategyName::Database, 3, Correct),
        );
        assert_eq!(summary(&[none, local, database.clone()]), "2 of 3 strategies oversold: none, local");
        let redis = run(StrategyName::Redis, 3, Inconclusive);
        assert_eq!(
            summary(&[database.clone(), lost, redis]),
            "1 of 3 strategies violated: row; 1 of 3 strategies inconclusive: redis"
        );
        assert_eq!(summary(&[database.clone(), database, control]), "1 of 1 strategy correct");
    }

    #[test]
    fn the_cost_of_those_that_are_whole_is_compared() {
        let long = |strategy, per_second, verdict| {
            let mut run = run(strategy, 3, verdict);
            (run.accepted_per_second, run.availability.selling_ms) = (per_second, 5_000.0);
            run
        };
        let runs = vec![
            long(StrategyName::None, 99.0, Verdict::Violated),
            long(StrategyName::Row, 10.0, Verdict::Correct),
            long(StrategyName::Redis, 15.0, Verdict::Correct),
        ];
        let page = html::page(&Report::new(runs.clone(), Vec::new()));
        assert!(page.contains("Differences are to row.") && page.contains("+50%"));
        let short = vec![runs[1].clone(), run(StrategyName::Redis, 3, Verdict::Correct)];
        assert!(!html::page(&Report::new(short, Vec::new())).contains("Differences are to"));
    }

    #[test]
    fn what_was_violated_is_said_where_nothing_was_oversold() {
        let mut lost = run(StrategyName::None, 3, Verdict::Violated);
        lost.oversold_units = Some(0);
        lost.series = Some(Series { lost_updates: 384, ..Series::default() });
        let report = Report::new(vec![lost.clone(), run(StrategyName::Row, 3, Verdict::Correct)], Vec::new());
        assert_eq!(report.summary(), "1 of 2 strategies lost updates: none");
        let page = html::page(&report);
        for words in ["VIOLATED: 384 updates lost", "<b>none</b> 384 updates lost", "</svg>384 updates lost"]
        {
            assert!(page.contains(words), "{words}");
        }
        // Nothing is compared with what is broken.
        assert!(!page.contains("Differences are to") && !page.contains("span class=\"difference\""));
        // It had something to sell for no time at all.
        assert!(page.contains("too short to compare speeds"));
        lost.availability.selling_ms = 2_500.0;
        assert!(!html::page(&Report::new(vec![lost], Vec::new())).contains("too short"));
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
        let screen = Screen::default();
        for text in [comparison(&report, screen), details(&unread, screen), html::page(&report)] {
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
            let suites = report.suites(thresholds);
            let is_bad = suites.iter().flat_map(|suite| &suite.cases).any(Case::is_bad);
            assert_eq!(is_bad, code != 0, "CI is told the same: {suites:?}");
        }
    }
}
