//! What was found in a shop, for people: a table, and what went wrong.

use std::fmt;

use comfy_table::{Cell, Color};

use super::report::{ShopReport, ShopRun};
use crate::report::Screen;
use crate::verdict::{Status, Verdict};

impl ShopReport {
    /// What was found, for people.
    pub fn text(&self, screen: Screen) -> String {
        format!("{}\n\n{}", self.table(screen), screen.wrap(&remarks(self)))
    }

    /// A row for each run.
    pub fn table(&self, screen: Screen) -> String {
        let row = |run: &ShopRun| {
            let sold = run.sold.map_or_else(|| "?".into(), |sold| sold.to_string());
            let mut row = vec![
                Cell::new(run.arrival),
                screen.word(&run.word(), colour(run)),
                Cell::new(format!("{sold} of {}", run.stock)),
            ];
            row.extend([run.oversold, run.bought, run.refused, run.unknown].map(Screen::number));
            row.extend([ms(run.p50_ms), ms(run.p99_ms)].map(Screen::number));
            row
        };
        let titles =
            ["buyers", "verdict", "sold", "oversold", "confirmed", "refused", "unknown", "p50 ms", "p99 ms"];
        screen.markdown(&titles, &self.runs.iter().map(row).collect::<Vec<_>>())
    }
}

impl fmt::Display for ShopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Screen::default()))
    }
}

/// What is said below the table.
fn remarks(report: &ShopReport) -> String {
    let mut lines = vec![report.headline.clone()];
    lines.extend(refusals(report));
    lines.extend(report.broke_off.clone().filter(|why| !report.headline.contains(why)));
    // What goes wrong in the same way is told once, of the first run in which it did.
    let mut told = Vec::new();
    for run in report.runs.iter().filter(|run| run.verdict != Verdict::Correct) {
        let wrong = run.checks.iter().filter(|check| matches!(check.status, Status::Fail | Status::Unknown));
        let wrong: Vec<_> = wrong.collect();
        let names: Vec<_> = wrong.iter().map(|check| (check.name, check.status)).collect();
        if told.contains(&names) {
            continue;
        }
        told.push(names);
        lines.push(format!("\n{}:", run.arrival));
        lines.extend(wrong.into_iter().map(|check| format!("  {}: {}", check.name, check.detail)));
        lines.extend(run.counterexample.iter().map(|counterexample| format!("  {counterexample}")));
        let told = |what: &str| run.checks.iter().any(|check| check.detail.contains(what));
        for unclear in run.unclear.iter().filter(|unclear| !told(&unclear.what)) {
            let times =
                if unclear.purchases == 1 { "once".into() } else { format!("{} times", unclear.purchases) };
            lines.push(format!("  also unclear, {times}: {}", unclear.what));
        }
    }
    lines.join("\n")
}

/// What was taken for a refusal, where that was more than one thing: a rule may match too much.
fn refusals(report: &ShopReport) -> Vec<String> {
    let Some(most) = report.runs.iter().max_by_key(|run| run.refusals.len()) else { return Vec::new() };
    if most.refusals.len() < 2 {
        return Vec::new();
    }
    let head = format!("\ntaken for refusals for want of stock, {}:", most.arrival);
    let lines = most.refusals.iter().map(|answers| format!("  {} × {}", answers.purchases, answers.what));
    std::iter::once(head).chain(lines).collect()
}

/// Milliseconds for people.
fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.0}"))
}

/// The colour of a run's verdict.
fn colour(run: &ShopRun) -> Color {
    match run.verdict {
        Verdict::Correct => Color::Green,
        Verdict::Inconclusive => Color::Yellow,
        Verdict::Violated => Color::Red,
    }
}
