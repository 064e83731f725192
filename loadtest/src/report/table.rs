//! The table for people: strategies side by side.

use comfy_table::{Cell, Color};

use super::details::{broken, headline};
use super::{Report, RunReport, Screen, Strategy};
use crate::resources::Resources;
use crate::verdict::{Status, Verdict};

/// Of more runs than these, faults are not listed one by one.
const MANY: usize = 7;

/// How many runs it takes until a bound on their like says anything.
const FEW: usize = 10;

/// The columns.
const TITLES: [&str; 12] = [
    "strategy",
    "verdict",
    "sold",
    "oversold",
    "orders/s",
    "p50 ms",
    "p99 ms",
    "lock wait p99",
    "hold p50",
    "batch",
    "stale",
    "longest gap",
];

/// The runs of a suite, a row for each strategy: medians where there are several runs. Where the table is too
/// wide for the screen, it is several tables.
pub fn comparison(report: &Report, screen: Screen) -> String {
    table(report, screen) + &screen.wrap(&remarks(report))
}

/// The table alone.
pub fn table(report: &Report, screen: Screen) -> String {
    let of = |strategy: &Strategy| report.runs.iter().filter(|run| run.strategy == *strategy).collect();
    let rows = strategies(report).into_iter().map(|strategy| Row { runs: of(strategy), screen }.cells());
    let not_run = report.not_run.iter().map(|not_run| {
        let word = if not_run.broke_off { "broke off" } else { "not run" };
        vec![Cell::new(not_run.strategy), Cell::new(word)]
    });
    screen.markdown(&TITLES, &rows.chain(not_run).collect::<Vec<_>>())
}

/// A row: the runs of a strategy.
struct Row<'a> {
    runs: Vec<&'a RunReport>,
    screen: Screen,
}

impl Row<'_> {
    fn cells(&self) -> Vec<Cell> {
        let whole = |figure: fn(&RunReport) -> f64| Screen::number(format!("{:.0}", self.median(figure)));
        let tenths = |figure: fn(&RunReport) -> f64| Screen::number(format!("{:.1}", self.median(figure)));
        vec![
            Cell::new(self.runs[0].name()),
            self.verdict(),
            Screen::number(self.sold()),
            Screen::number(self.known(|run| run.oversold_units)),
            whole(|run| run.accepted_per_second),
            tenths(|run| run.latency_ms.p50),
            tenths(|run| run.latency_ms.p99),
            self.of_lock(|run| run.lock.wait_ms.p99),
            self.of_lock(|run| run.lock.hold_ms.p50),
            tenths(|run| run.lock.batch_mean),
            whole(|run| run.lock.stale_writes_rejected as f64),
            Screen::number(format!("{:.0} ms", self.median(|run| run.availability.longest_gap.ms))),
        ]
    }

    fn verdict(&self) -> Cell {
        let (runs, all) = (&self.runs, self.runs.len());
        let wrong = runs.iter().filter(|run| run.verdict != Verdict::Correct).count();
        let oversold = runs.iter().filter(|run| run.oversold() > 0).count();
        let inconclusive = runs.iter().filter(|run| run.verdict == Verdict::Inconclusive).count();
        let (word, colour, count) = if oversold > 0 {
            ("OVERSOLD", Color::Red, oversold)
        } else if wrong > inconclusive {
            ("VIOLATED", Color::Red, wrong - inconclusive)
        } else if inconclusive > 0 {
            ("inconclusive", Color::Yellow, inconclusive)
        } else {
            ("correct", Color::Green, all)
        };
        if all == 1 {
            self.screen.word(word, colour)
        } else {
            self.screen.word(&format!("{word} {count}/{all}"), colour)
        }
    }

    fn sold(&self) -> String {
        let supply = self.median(|run| run.supply.unwrap_or(run.stock) as f64);
        format!("{} of {supply:.0}", self.known(|run| run.units_sold))
    }

    /// The median of those that are known.
    fn known(&self, figure: fn(&RunReport) -> Option<i64>) -> String {
        let values: Vec<_> =
            self.runs.iter().filter_map(|run| figure(run)).map(|value| value as f64).collect();
        if values.is_empty() { "unknown".into() } else { format!("{:.0}", median(values)) }
    }

    /// A time in milliseconds. Where there is no lock, there is no waiting for it, and no hold.
    fn of_lock(&self, figure: fn(&RunReport) -> f64) -> Cell {
        let has_lock = self.runs[0].strategy.has_lock();
        Screen::number(if has_lock { format!("{:.1} ms", self.median(figure)) } else { "–".into() })
    }

    fn median(&self, figure: impl Fn(&RunReport) -> f64) -> f64 {
        median(self.runs.iter().map(|run| figure(run)).collect())
    }
}

/// What is said below the table.
fn remarks(report: &Report) -> String {
    let mut text = String::new();
    if report.asked_for().count() > 1 {
        text += &format!("\n\n{}", report.summary());
    }
    if report.stopped {
        text += "\n\nStopped before the end: the verdicts are on what was done.";
    }
    for run in worth_showing(report) {
        text += &format!("\n\n{}: {}", run.name(), headline(run));
        let unexpected = !run.is_as_expected();
        for check in &run.checks {
            let is_shown = check.name.is_witness() || unexpected;
            if is_shown && matches!(check.status, Status::Fail | Status::Unknown) {
                text += &format!("\n  {}: {}", check.name, check.detail);
            }
        }
        text += &run.disappointment().map_or_else(String::new, |why| format!("\n  {why}"));
    }
    for run in report.runs.iter().filter(|_| report.runs.len() <= MANY) {
        if let Some(payments) = &run.payments {
            text += &format!("\n\n{}, payments: {}", run.name(), payments.in_words());
        }
    }
    for not_run in &report.not_run {
        let word = if not_run.broke_off { "broke off" } else { "not run" };
        text += &format!("\n\n{}: {word}: {}", not_run.strategy, not_run.reason);
        text += &not_run.install.as_ref().map_or_else(String::new, |install| format!("\n  {install}"));
    }
    if report.runs.iter().any(|run| !run.faults.is_empty()) {
        // Of many runs, the JSON has them.
        let is_listed = |run: &&RunReport| report.runs.len() <= MANY && !run.faults.is_empty();
        for run in report.runs.iter().filter(is_listed) {
            text += &broken(run);
        }
        text += &format!("\n\n{}", endurance(report));
    }
    let proven = report.runs.iter().filter(|run| run.expected == Verdict::Correct);
    let (proven, flawless) =
        (proven.clone().count(), proven.filter(|run| run.verdict == Verdict::Correct).count());
    if proven >= FEW && proven == flawless {
        let bound = (3.0 / proven as f64).min(1.0);
        text += &format!(
            "\n\nno violation in {proven} runs with a lock: with 95% confidence, \
             fewer than {bound:.2} of such runs have one"
        );
    }
    text
}

/// What the runs have gone through, and what it has made of the replicas.
fn endurance(report: &Report) -> String {
    let runs = &report.runs;
    let faults: usize = runs.iter().map(|run| run.faults.len()).sum();
    let orders: u64 = runs.iter().map(|run| run.accepted).sum();
    let stale: u64 = runs.iter().map(|run| run.lock.stale_writes_rejected).sum();
    let mut text = format!(
        "runs: {}, faults: {faults}, orders confirmed: {orders}, stale writes refused: {stale}",
        runs.len()
    );
    let resources: Vec<_> = runs.iter().filter_map(|run| run.resources).collect();
    if !resources.is_empty() {
        let most = |of: fn(&Resources) -> f64| resources.iter().map(of).fold(0.0, f64::max);
        text += &format!(
            "; a replica had at most {:.0} MiB and {:.0} file handles",
            most(|seen| seen.resident_mib),
            most(|seen| seen.handles as f64)
        );
        let long_lived: usize = resources.iter().map(|seen| seen.long_lived).sum();
        if long_lived > 0 {
            text += &format!(
                ", and grew by at most {:.0}% in {long_lived} lives of more than 15 s",
                (most(|seen| seen.memory_growth) - 1.0) * 100.0
            );
        }
    }
    text
}

/// Of each strategy, the first run that was not correct; and every run that was not as expected.
fn worth_showing(report: &Report) -> impl Iterator<Item = &RunReport> {
    let first = |strategy: &Strategy| {
        report.runs.iter().find(|run| run.strategy == *strategy && run.verdict != Verdict::Correct)
    };
    report.runs.iter().filter(move |run| {
        !run.is_as_expected() || first(&run.strategy).is_some_and(|first| std::ptr::eq(first, *run))
    })
}

/// The strategies in the order of their first runs.
fn strategies(report: &Report) -> Vec<&Strategy> {
    let mut strategies = Vec::new();
    for run in &report.runs {
        if !strategies.contains(&&run.strategy) {
            strategies.push(&run.strategy);
        }
    }
    strategies
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
