//! One run in full, for people.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement};

use super::{RunReport, Screen};
use crate::verdict::{Status, Verdict};

/// One run, with every check.
pub fn details(run: &RunReport, screen: Screen) -> String {
    let stopped = if run.stopped { "\nStopped before the end: the verdict is on what was done." } else { "" };
    let parts = [
        screen.wrap(&format!("{}{stopped}", headline(run))),
        format!("{}\n", checks(run, screen)),
        screen.wrap(&figures(run)),
        latencies(run),
        screen.wrap(&remarks(run)),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n")
}

fn checks(run: &RunReport, screen: Screen) -> String {
    let mut table = Screen::table(NOTHING);
    if let Some(width) = screen.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for check in &run.checks {
        let (word, colour) = match check.status {
            Status::Pass => ("pass", Color::Green),
            Status::Fail => ("FAIL", Color::Red),
            Status::Unknown => ("unknown", Color::Yellow),
            Status::NotApplicable => ("not applicable", Color::Reset),
        };
        table.add_row([screen.word(word, colour), Cell::new(check.name), Cell::new(&check.detail)]);
    }
    table.trim_fmt()
}

fn figures(run: &RunReport) -> String {
    let gap = run.availability.longest_gap;
    format!(
        "{:.0} orders/s over {:.2} s, the longest time without a sale {:.0} ms (from {:.0} ms on), \
         {} buyers, {} replicas, batches of {:.1}",
        run.accepted_per_second,
        run.availability.selling_ms / 1e3,
        gap.ms,
        gap.from_ms,
        run.buyers,
        run.replicas,
        run.lock.batch_mean,
    )
}

/// Response times from the intended start, and service times from when an attempt was sent, in milliseconds.
fn latencies(run: &RunReport) -> String {
    let mut table = Screen::table(NOTHING);
    table.set_header(["", "attempts", "response p50", "p99", "max ms", "service p50", "p99", "max ms"]);
    for (outcome, latency) in &run.latencies.by_outcome {
        let (response, service) = (latency.response, latency.service);
        let times = [response.p50, response.p99, response.max, service.p50, service.p99, service.max];
        let times = times.map(|time| format!("{time:.1}"));
        table.add_row([outcome.to_string(), latency.attempts.to_string()].into_iter().chain(times));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn remarks(run: &RunReport) -> String {
    let mut remarks = Vec::new();
    if !run.faults.is_empty() {
        remarks.push(broken(run).trim_start().to_owned());
    }
    remarks.extend(run.failures.iter().map(|(why, attempts)| format!("{attempts} × {why}")));
    if !run.generator_kept_up {
        remarks.push(format!(
            "the load generator itself was late (p99 {:.1} ms): the figures of cost are inconclusive",
            run.latencies.schedule_lag_p99_ms
        ));
    }
    remarks.join("\n")
}

/// What was broken in a run, and when.
pub(super) fn broken(run: &RunReport) -> String {
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

/// A run in one line.
pub fn headline(run: &RunReport) -> String {
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
