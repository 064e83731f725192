//! The report as a page: one file that needs nothing else, with the parts that the dashboard shows too.
//!
//! | module | what it draws |
//! |---|---|
//! | [`layout`] | a document |
//! | [`verdict`] | the banner and the tiles |
//! | [`charts`] | stock, throughput and latency along the time of the run, drawn by [`plot`] |
//! | [`lanes`] | who had the lock when |
//! | [`comparison`] | the runs side by side |
//! | [`proof`] | the counterexample and the checks |
//! | [`downloads`] | the report as JSON and CSV; the environment |
//! | [`figures`] | numbers for people |

pub mod charts;
pub mod comparison;
pub mod downloads;
pub mod figures;
pub mod lanes;
pub mod layout;
mod plot;
pub mod proof;
pub mod verdict;

use maud::{Markup, html};

use super::{Report, RunReport};
use crate::verdict::Verdict;

/// The report as a page that can be opened from a file: it asks nothing of any network.
pub fn page(report: &Report) -> String {
    let body = html! {
        (content(report))
        (downloads::embedded(report))
        (downloads::environment(report))
    };
    layout::frozen(&title(report), &body).into_string()
}

/// What a report is called.
pub fn title(report: &Report) -> String {
    match &report.runs[..] {
        [run] => verdict::headline(run),
        runs => format!("{} runs", runs.len()),
    }
}

/// Everything that a report says of its runs.
pub fn content(report: &Report) -> Markup {
    let several = report.runs.len() > 1;
    html! {
        @if several {
            (summary(report))
            (comparison::section(&report.runs, &report.not_run, None))
        }
        @for (number, run) in report.runs.iter().enumerate() {
            @let prefix = if several { format!("run-{number}-") } else { String::new() };
            section.run id={ "run-" (number) } aria-label={ "Run " (number + 1) ", " (run.strategy) } {
                (verdict::banner(&verdict::Banner::of(run), if several { 2 } else { 1 }))
                (verdict::tiles(&verdict::Tile::of(run, &prefix)))
                (evidence(run, &prefix))
                @if !several { (comparison::section(&report.runs, &report.not_run, None)) }
                (proof::sections(run, &prefix))
            }
        }
        @if report.runs.is_empty() { (comparison::section(&[], &report.not_run, None)) }
    }
}

/// The charts and the lock timeline of a run.
pub fn evidence(run: &RunReport, prefix: &str) -> Markup {
    let Some(series) = &run.series else {
        return html! { p.note { "This run was recorded without its course." } };
    };
    html! {
        div.evidence {
            (charts::all(series, &run.faults, prefix))
            (lanes::section(&run.strategy, series, &run.faults, prefix))
        }
    }
}

/// All runs in one line each.
fn summary(report: &Report) -> Markup {
    let count = |verdict| report.runs.iter().filter(|run| run.verdict == verdict).count();
    html! {
        section.summary aria-labelledby="summary" {
            h1 #summary {
                (report.runs.len()) " runs: " (count(Verdict::Violated)) " violated, "
                (count(Verdict::Correct)) " correct, " (count(Verdict::Inconclusive)) " inconclusive"
            }
            ul.chips {
                @for (number, run) in report.runs.iter().enumerate() {
                    li { (verdict::chip(run, &format!("#run-{number}"), false)) }
                }
            }
        }
    }
}
