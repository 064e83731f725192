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
            p.note { (baseline_words(runs)) }
            div.scroll tabindex="0" role="region" aria-label="Strategies side by side" {
                table.comparison {
                    thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                    tbody {
                        @for run in runs { (row(run, runs.first())) }
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

fn baseline_words(runs: &[RunReport]) -> String {
    match runs {
        [] => "No run is over yet.".into(),
        [_] => "One run so far. Choose several strategies to compare them.".into(),
        [first, ..] => format!("Differences are to {}.", first.strategy),
    }
}

fn row(run: &RunReport, baseline: Option<&RunReport>) -> Markup {
    let baseline = baseline.filter(|baseline| !std::ptr::eq(*baseline, run));
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
            td class={ "verdict " (tone_class(run.verdict)) } { (icon(Tone::from(run.verdict))) (word(run)) }
            td data-figure="oversold" {
                @if let Some(oversold) = run.oversold_units { (whole(oversold)) } @else { "unknown" }
            }
            td data-figure="lost" { @if let Some(lost) = lost { (whole(lost)) } @else { "–" } }
            td data-figure="stale" { (whole(run.lock.stale_writes_rejected)) }
            td data-figure="rate" {
                (rate(run.accepted_per_second))
                (compared(run.accepted_per_second, |run| run.accepted_per_second))
            }
            td data-figure="p50" {
                (ms(run.latency_ms.p50)) (compared(run.latency_ms.p50, |run| run.latency_ms.p50))
            }
            td data-figure="p99" {
                (ms(run.latency_ms.p99)) (compared(run.latency_ms.p99, |run| run.latency_ms.p99))
            }
            td data-figure="wait" { (lock(run.lock.wait_ms.p99)) }
            td data-figure="hold" { (lock(run.lock.hold_ms.p50)) }
            td data-figure="batch" { (format!("{:.1}", run.lock.batch_mean)) }
            td data-figure="gap" { (ms(run.availability.longest_gap.ms)) }
        }
    }
}

fn word(run: &RunReport) -> &'static str {
    match run.verdict {
        Verdict::Violated if run.oversold() > 0 => "OVERSOLD",
        Verdict::Violated => "VIOLATED",
        Verdict::Correct => "correct",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn tone_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Violated => "violated",
        Verdict::Correct => "correct",
        Verdict::Inconclusive => "inconclusive",
    }
}
