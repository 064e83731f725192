//! Tables for people.

use std::io::IsTerminal as _;

use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use super::{Report, RunReport, Strategy};
use crate::resources::Resources;
use crate::verdict::{Status, Verdict};

/// Of more runs than these, faults are not listed one by one.
const MANY: usize = 7;

/// How many runs it takes until a bound on their like says anything.
const FEW: usize = 10;

/// The runs of a suite, a row for each strategy: medians where there are several runs.
pub fn comparison(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
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
    ]);
    for strategy in strategies(report) {
        let runs: Vec<_> = report.runs.iter().filter(|run| run.strategy == *strategy).collect();
        // Where there is no lock, there is no waiting for it, and no hold.
        let is_lock = strategy.has_lock();
        let lock = |ms: f64| number(if is_lock { format!("{ms:.1} ms") } else { "–".into() });
        let of = |figure: fn(&RunReport) -> f64| median(runs.iter().map(|run| figure(run)).collect());
        table.add_row([
            Cell::new(name(runs[0])),
            verdicts(&runs),
            number(sold(&runs)),
            number(known(&runs, |run| run.oversold_units)),
            number(format!("{:.0}", of(|run| run.accepted_per_second))),
            number(format!("{:.1}", of(|run| run.latency_ms.p50))),
            number(format!("{:.1}", of(|run| run.latency_ms.p99))),
            lock(of(|run| run.lock.wait_ms.p99)),
            lock(of(|run| run.lock.hold_ms.p50)),
            number(format!("{:.1}", of(|run| run.lock.batch_mean))),
            number(format!("{:.0}", of(|run| run.lock.stale_writes_rejected as f64))),
            number(format!("{:.0} ms", of(|run| run.availability.longest_gap.ms))),
        ]);
    }
    for not_run in &report.not_run {
        table.add_row([Cell::new(not_run.strategy), Cell::new("not run")]);
    }
    let mut text = table.to_string();
    if report.asked_for().count() > 1 {
        text += &format!("\n\n{}", report.summary());
    }
    if report.stopped {
        text += "\n\nStopped before the end: the verdicts are on what was done.";
    }
    for run in worth_showing(report) {
        text += &format!("\n\n{}: {}", name(run), headline(run));
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
            text += &format!("\n\n{}, payments: {}", name(run), payments.in_words());
        }
    }
    for not_run in &report.not_run {
        text += &format!("\n\n{}: not run: {}", not_run.strategy, not_run.reason);
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

/// What was broken in a run, and when.
fn broken(run: &RunReport) -> String {
    let mut text = format!("\n\n{}, broken on purpose:", run.strategy);
    for (number, fault) in run.faults.iter().enumerate() {
        let lasted = fault.until_ms.map(|until| format!(", for {:.0} ms", until - fault.at_ms));
        let after = run.availability.after(number).map(|after| format!("; {}", after.in_words()));
        text += &format!(
            "\n  {:>7.0} ms  {}{}{}",
            fault.at_ms,
            fault.what,
            lasted.unwrap_or_default(),
            after.unwrap_or_default()
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

/// One run, with every check.
pub fn details(run: &RunReport) -> String {
    let mut checks = Table::new();
    checks.load_style(NOTHING);
    for check in &run.checks {
        let (word, colour) = match check.status {
            Status::Pass => ("pass", Color::Green),
            Status::Fail => ("FAIL", Color::Red),
            Status::Unknown => ("unknown", Color::Yellow),
            Status::NotApplicable => ("not applicable", Color::Reset),
        };
        checks.add_row([coloured(word, colour), Cell::new(check.name), Cell::new(&check.detail)]);
    }
    let figures = run.latencies.by_outcome.iter().map(|(outcome, latency)| {
        let (response, service) = (latency.response, latency.service);
        format!(
            "\n{outcome:9} {:>8}   response p50 {:.1} p99 {:.1} max {:.1} ms   \
             service p50 {:.1} p99 {:.1} max {:.1} ms",
            latency.attempts, response.p50, response.p99, response.max, service.p50, service.p99, service.max
        )
    });
    let stopped = if run.stopped { "\nStopped before the end: the verdict is on what was done." } else { "" };
    let gap = run.availability.longest_gap;
    let mut text = format!(
        "{}{stopped}\n{checks}\n\n{:.0} orders/s over {:.2} s, the longest time without a sale {:.0} ms \
         (from {:.0} ms on), {} buyers, {} replicas, batches of {:.1}{}",
        headline(run),
        run.accepted_per_second,
        run.availability.selling_ms / 1e3,
        gap.ms,
        gap.from_ms,
        run.buyers,
        run.replicas,
        run.lock.batch_mean,
        figures.collect::<String>()
    );
    if !run.faults.is_empty() {
        text += &broken(run);
    }
    for (why, attempts) in &run.failures {
        text += &format!("\n{attempts} × {why}");
    }
    if !run.generator_kept_up {
        text += &format!(
            "\nthe load generator itself was late (p99 {:.1} ms): the figures of cost are inconclusive",
            run.latencies.schedule_lag_p99_ms
        );
    }
    text
}

/// A run in one line.
fn headline(run: &RunReport) -> String {
    let sold = run.sold_in_words(|units| units.to_string());
    let strategy = &run.strategy;
    let why = run.reason().map_or_else(String::new, |check| format!(" · {}", check.name));
    match run.verdict {
        Verdict::Violated if run.oversold() > 0 => {
            format!("OVERSOLD by {} · {strategy} · {sold}", run.oversold())
        }
        Verdict::Violated => format!("VIOLATED{why} · {strategy} · {sold}"),
        Verdict::Inconclusive => format!("INCONCLUSIVE{why} · {strategy} · {sold}"),
        Verdict::Correct => format!("CORRECT · {strategy} · {sold}"),
    }
}

/// What a run's row is called.
fn name(run: &RunReport) -> String {
    if run.is_control { format!("{} (control)", run.strategy) } else { run.strategy.to_string() }
}

fn sold(runs: &[&RunReport]) -> String {
    let supply = median(runs.iter().map(|run| run.supply.unwrap_or(run.stock) as f64).collect());
    format!("{} of {supply:.0}", known(runs, |run| run.units_sold))
}

/// The median of those that are known.
fn known(runs: &[&RunReport], figure: fn(&RunReport) -> Option<i64>) -> String {
    let values: Vec<_> = runs.iter().filter_map(|run| figure(run)).map(|value| value as f64).collect();
    if values.is_empty() { "unknown".into() } else { format!("{:.0}", median(values)) }
}

fn verdicts(runs: &[&RunReport]) -> Cell {
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
        ("correct", Color::Green, runs.len())
    };
    if runs.len() == 1 {
        coloured(word, colour)
    } else {
        coloured(&format!("{word} {count}/{}", runs.len()), colour)
    }
}

fn coloured(text: &str, colour: Color) -> Cell {
    let cell = Cell::new(text);
    if std::io::stdout().is_terminal() { cell.fg(colour).add_attribute(Attribute::Bold) } else { cell }
}

fn number(value: impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
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
