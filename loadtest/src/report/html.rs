//! The report as a page: one file that needs nothing else, with the parts that the dashboard shows too.
//!
//! | module | what it draws |
//! |---|---|
//! | [`layout`] | a document |
//! | [`verdict`] | the banner and the tiles |
//! | [`bar`] | what stays in sight: the verdict in short, and links to the parts |
//! | [`charts`] | stock, throughput and latency along the time of the run, drawn by [`plot`] |
//! | [`courses`] | the courses of several runs in one chart |
//! | [`lanes`] | who had the lock when |
//! | [`histogram`] | how many orders took how long |
//! | [`cursor`] | one moment of all these at once |
//! | [`comparison`] | the runs side by side |
//! | [`overlay`] | the runs in one chart |
//! | [`proof`] | the counterexample and the checks |
//! | [`downloads`] | the report as JSON and CSV; the environment |
//! | [`figures`] | numbers for people |

pub mod bar;
pub mod charts;
pub mod comparison;
pub mod courses;
pub mod cursor;
pub mod downloads;
pub mod figures;
pub mod histogram;
pub mod lanes;
pub mod layout;
pub mod overlay;
mod plot;
pub mod proof;
pub mod verdict;

use maud::{Markup, html};

use super::{Report, RunReport};

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
        _ => report.summary(),
    }
}

/// Everything that a report says of its runs.
pub fn content(report: &Report) -> Markup {
    match &report.runs[..] {
        [] => comparison::section(&[], &report.not_run, None),
        [run] => html! {
            (bar::of(&verdict::Banner::of(run), &bar::of_run(run, report.asked_for().count() > 1)))
            (one(run, 0, "", 1))
            (comparison::section(&report.runs, &report.not_run, None))
            (proof::sections(run, ""))
        },
        runs => html! {
            (bar::of(&verdict::Banner::of_all(report), &bar::of_all(runs)))
            (summary(report))
            (comparison::section(runs, &report.not_run, None))
            (overlay::section(runs, ""))
            @let telling = report.telling();
            @for (number, run) in runs.iter().enumerate() {
                (several(run, number, telling.is_some_and(|telling| std::ptr::eq(telling, run))))
            }
        },
    }
}

/// The verdict on a run and its evidence.
fn one(run: &RunReport, number: usize, prefix: &str, level: u8) -> Markup {
    html! {
        section.run id={ "run-" (number) } aria-label={ "Run " (number + 1) ", " (run.strategy) } {
            (verdict::banner(&verdict::Banner::of(run), level))
            (verdict::tiles(&verdict::Tile::of(run, prefix)))
            (verdict::brevity(run))
            (evidence(run, prefix))
        }
    }
}

/// The same of one among several: its evidence is folded, except where it is the most telling.
fn several(run: &RunReport, number: usize, open: bool) -> Markup {
    let prefix = format!("run-{number}-");
    html! {
        section.run id={ "run-" (number) } aria-label={ "Run " (number + 1) ", " (run.strategy) } {
            (verdict::banner(&verdict::Banner::of(run), 2))
            (verdict::tiles(&verdict::Tile::of(run, &prefix)))
            details.of-run id={ (prefix) "details" } open[open] {
                summary { "Charts, lock and checks of " (run.strategy) }
                div.run { (evidence(run, &prefix)) (proof::sections(run, &prefix)) }
            }
        }
    }
}

/// The charts and the lock timeline of a run.
pub fn evidence(run: &RunReport, prefix: &str) -> Markup {
    let [drawn, lanes, more] = evidence_parts(run, prefix);
    html! {
        div.evidence id={ (prefix) "evidence" } { (cursor::readout()) (drawn) (lanes) (more) }
    }
}

/// The parts of the evidence: the charts, the lock timeline, and what else there is.
pub fn evidence_parts(run: &RunReport, prefix: &str) -> [Markup; 3] {
    let Some(series) = &run.series else {
        return [html! { p.note { "This run was recorded without its course." } }, html! {}, html! {}];
    };
    [
        charts::all(series, &run.faults, &run.availability, prefix),
        lanes::section(run, series, prefix),
        html! {
            (histogram::section(run, prefix))
            @if !run.faults.is_empty() { (charts::faults(&run.faults, &run.availability, prefix)) }
            @if let Some(payments) = &run.payments {
                section.card { h2 { "Payments" } p.note { (payments.in_words()) "." } }
            }
        },
    ]
}

/// All runs in one line each.
fn summary(report: &Report) -> Markup {
    html! {
        section.summary aria-labelledby="summary" {
            h1 #summary {
                (report.summary())
                @if report.stopped { ", stopped before the end" }
            }
            ul.chips {
                @for (number, run) in report.runs.iter().enumerate() {
                    li { (verdict::chip(run, &format!("#run-{number}"), false)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use order_service::api::{Clock, HoldRecord, LockHold};
    use order_service::config::StrategyName;

    use super::*;
    use crate::series::{Interval, IntervalLatency, Locks, MAX_INTERVALS, Series};

    /// The record of a replica after the longest run of which it keeps all holds.
    fn record(replica: &str, offset: u64) -> HoldRecord {
        let hold = |number: u64| LockHold {
            sku: "hair-dryer".into(),
            fencing_token: Some(1_000_000 + number as i64),
            asked_ns: number * 3_000_000 + offset,
            acquired_ns: number * 3_000_000 + offset + 900_000,
            released_ns: Some(number * 3_000_000 + offset + 1_900_000),
            written: Vec::new(),
            stale: 1,
            lost: false,
        };
        let holds = (0..10_000).map(hold).collect();
        HoldRecord {
            replica: replica.into(),
            clock: Clock::Host,
            since_ns: 0,
            dropped: 0,
            now_ns: u64::MAX,
            holds,
        }
    }

    #[test]
    fn the_page_of_the_longest_run_is_small() {
        let interval = |number: usize| Interval {
            until_ms: number as f64 * 100.0,
            accepted: 123_456,
            sold_out: 123_456,
            failed: number as u64 % 7,
            unknown: number as u64 % 5,
            latency_ms: Some(IntervalLatency { p50: 1234.5, p95: 2345.6, p99: 3456.7 }),
            stock: 1_000_000 - number as i64,
            expected: -1_000_000 + number as i64,
        };
        let records: Vec<_> =
            (0..8).map(|replica| record(&format!("replica-{replica}"), replica * 1_000_000)).collect();
        let series = Series {
            interval_ms: 100.0,
            intervals: (1..=MAX_INTERVALS).map(interval).collect(),
            locks: Some(Locks::of(&records, 0)),
            ..Series::default()
        };
        let page = charts::all(&series, &[], &Default::default(), "").into_string()
            + &lanes::timeline(&StrategyName::Redis.into(), &series, &[], "", "").into_string();
        // Of this page, and its JSON in a link, three megabytes hold several.
        let json = serde_json::to_string(&series).expect("a series can be written");
        assert!(page.len() + json.len() < 1_200_000, "{} and {} bytes", page.len(), json.len());
        assert!(page.contains("showing 150 of 10,000"));
    }
}
