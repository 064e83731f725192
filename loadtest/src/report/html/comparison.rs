//! The runs of a suite side by side.

use maud::{Markup, html};

use super::figures::{difference, ms, rate, whole};
use super::verdict::{Tone, icon};
use crate::report::{NotRun, RunReport};
use crate::verdict::Verdict;

/// What the columns are called.
const COLUMNS: [&str; 12] = [
    "strategy",
    "verdict",
    "oversold",
    "lost updates",
    "stale writes refused",
    "orders/s",
    "p50 ms",
    "p99 ms",
    "lock wait p99 ms",
    "hold p50 ms",
    "batch",
    "longest gap ms",
];

/// The table of a suite. `running` is the strategy whose run goes on.
pub fn section(runs: &[RunReport], not_run: &[NotRun], running: Option<&str>) -> Markup {
    html! {
        section.card id="comparison" aria-labelledby="comparison-title" {
            h2 #comparison-title { "Strategies side by side" }
            @let words = baseline_words(runs);
            @if !words.is_empty() { p.note { (words) } }
            @if let Some(brief) = brief(runs) { p.note { (brief) } }
            div.scroll tabindex="0" role="region" aria-label="Strategies side by side" {
                table.comparison {
                    thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                    tbody {
                        @for run in runs { (row(run, baseline(runs))) }
                        @if let Some(strategy) = running {
                            tr { th scope="row" { (strategy) } td colspan="11" { "running" } }
                        }
                        @for not_run in not_run {
                            tr {
                                th scope="row" { (not_run.strategy) }
                                td colspan="11" {
                                    "not run: " (not_run.reason)
                                    @if let Some(install) = &not_run.install { ": " code { (install) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is said of runs that are too short.
fn brief(runs: &[RunReport]) -> Option<String> {
    let brief: Vec<_> =
        runs.iter().filter(|run| run.is_short()).map(|run| run.strategy.to_string()).collect();
    let several = runs.len() > 1 && !brief.is_empty();
    several.then(|| format!("Under two seconds, too short to compare speeds: {}.", brief.join(", ")))
}

fn baseline_words(runs: &[RunReport]) -> String {
    match runs {
        [] => "No run is over yet.".into(),
        [_] => "One run so far. Choose several strategies to compare them.".into(),
        _ => baseline(runs).map_or_else(String::new, |run| format!("Differences are to {}.", run.strategy)),
    }
}

/// What the others' cost is compared with: the first run that is not broken. How fast a shop sells what is
/// not there, or in how short a time, means nothing.
fn baseline(runs: &[RunReport]) -> Option<&RunReport> {
    let fit: Vec<_> = runs.iter().filter(|run| is_fit(run)).collect();
    fit.first().copied().filter(|_| fit.len() > 1)
}

fn is_fit(run: &RunReport) -> bool {
    run.verdict != Verdict::Violated && run.unfit().is_none()
}

fn row(run: &RunReport, baseline: Option<&RunReport>) -> Markup {
    let baseline = baseline.filter(|baseline| !std::ptr::eq(*baseline, run) && is_fit(run));
    let lost = run.series.as_ref().map(|series| series.lost_updates);
    // Where there is no lock, there is no waiting for it, and no hold.
    let is_lock = run.strategy.has_lock();
    let lock = |value: f64| if is_lock { ms(value) } else { "–".into() };
    let compared = |value: f64, of: fn(&RunReport) -> f64| {
        let text = baseline.map(|baseline| difference(value, of(baseline))).unwrap_or_default();
        html! { @if !text.is_empty() { " " span.difference { (text) } } }
    };
    html! {
        tr {
            th scope="row" { (run.strategy) @if run.is_control { " " span.note { "control" } } }
            td class={ "verdict " (Tone::from(run.verdict).class()) } data-label=(COLUMNS[1]) {
                (icon(Tone::from(run.verdict)))
                (run.violation(whole).unwrap_or_else(|| run.verdict.to_string()))
            }
            td data-figure="oversold" data-label=(COLUMNS[2]) {
                @if let Some(oversold) = run.oversold_units { (whole(oversold)) } @else { "unknown" }
            }
            td data-figure="lost" data-label=(COLUMNS[3]) {
                @if let Some(lost) = lost { (whole(lost)) } @else { "–" }
            }
            td data-figure="stale" data-label=(COLUMNS[4]) { (whole(run.lock.stale_writes_rejected)) }
            td data-figure="rate" data-label=(COLUMNS[5]) {
                (rate(run.accepted_per_second))
                (compared(run.accepted_per_second, |run| run.accepted_per_second))
            }
            td data-figure="p50" data-label=(COLUMNS[6]) {
                (ms(run.latency_ms.p50)) (compared(run.latency_ms.p50, |run| run.latency_ms.p50))
            }
            td data-figure="p99" data-label=(COLUMNS[7]) {
                (ms(run.latency_ms.p99)) (compared(run.latency_ms.p99, |run| run.latency_ms.p99))
            }
            td data-figure="wait" data-label=(COLUMNS[8]) { (lock(run.lock.wait_ms.p99)) }
            td data-figure="hold" data-label=(COLUMNS[9]) { (lock(run.lock.hold_ms.p50)) }
            td data-figure="batch" data-label=(COLUMNS[10]) { (format!("{:.1}", run.lock.batch_mean)) }
            td data-figure="gap" data-label=(COLUMNS[11]) { (ms(run.availability.longest_gap.ms)) }
        }
    }
}
