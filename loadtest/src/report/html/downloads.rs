//! The report as files, and where it was made.

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::figures::whole;
use crate::environment::BuildProfile;
use crate::report::Report;

/// What a link with a file in it may hold as it is.
const KEPT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b',')
    .remove(b'-')
    .remove(b'_')
    .remove(b':')
    .remove(b'{')
    .remove(b'}')
    .remove(b'[')
    .remove(b']');

/// The files of a page without a server: they are in its links.
pub fn embedded(report: &Report) -> Markup {
    html! {
        section.card id="downloads" {
            h2 { "Downloads" }
            p.downloads {
                (json("stocklock.json", report))
                " " a download="stocklock.csv" href=(link("text/csv;charset=utf-8", &csv(report))) { "CSV" }
            }
            @if let Some(command) = &report.command {
                p.note { "Made by" }
                pre.command tabindex="0" { (command) }
            }
        }
    }
}

/// The same of a report that is only to be had as JSON.
pub fn embedded_json(name: &str, report: &impl Serialize) -> Markup {
    html! {
        section.card id="downloads" { h2 { "Downloads" } p.downloads { (json(name, report)) } }
    }
}

fn json(name: &str, report: &impl Serialize) -> Markup {
    let json = serde_json::to_string(report).expect("a report can be written as JSON");
    html! { a download=(name) href=(link("application/json", &json)) { "JSON" } }
}

fn link(kind: &str, text: &str) -> String {
    format!("data:{kind},{}", utf8_percent_encode(text, &KEPT))
}

/// The figures of the runs, a line for each.
pub fn csv(report: &Report) -> String {
    let mut csv = String::from(
        "strategy,store,replicas,buyers,stock,attempts,accepted,sold_out,failed,unknown,units_sold,\
         oversold_units,lost_updates,verdict,accepted_per_second,seconds,longest_gap_ms,p50_ms,p90_ms,\
         p99_ms,max_ms,lock_wait_p99_ms,lock_hold_p50_ms,batch_mean,stale_writes_rejected,seed\n",
    );
    let known = |units: Option<i64>| units.map_or_else(String::new, |units| units.to_string());
    let text = |value: f64| value.to_string();
    for run in &report.runs {
        let lost = run.series.as_ref().map_or_else(String::new, |series| series.lost_updates.to_string());
        let counts =
            [run.attempts, run.accepted, run.sold_out, run.failed, run.unknown].map(|n| n.to_string());
        let latency = [run.latency_ms.p50, run.latency_ms.p90, run.latency_ms.p99, run.latency_ms.max];
        let cost = [run.lock.wait_ms.p99, run.lock.hold_ms.p50, run.lock.batch_mean];
        let mut cells = vec![cell(&run.strategy.to_string()), cell(&run.store)];
        cells.extend([run.replicas.to_string(), run.buyers.to_string(), run.stock.to_string()]);
        cells.extend(counts);
        cells.extend([known(run.units_sold), known(run.oversold_units), lost, run.verdict.to_string()]);
        cells.extend([run.accepted_per_second, run.seconds, run.availability.longest_gap.ms].map(text));
        cells.extend(latency.map(text));
        cells.extend(cost.map(text));
        cells.extend([run.lock.stale_writes_rejected.to_string(), run.seed.to_string()]);
        csv += &cells.join(",");
        csv.push('\n');
    }
    csv
}

/// A text as a cell: quoted where it must be, and never a formula of a spreadsheet.
fn cell(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.into() };
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// The machine and the program.
pub fn environment(report: &Report) -> Markup {
    let commit = report.runs.iter().find_map(|run| run.commit.clone());
    html! {
        section.card id="environment" {
            h2 { "Environment" }
            @match &report.environment {
                None => p.note { "Not recorded." },
                Some(here) => {
                    dl.facts {
                        (fact("when", &here.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()))
                        (fact("program", &format!("loadtest {} ({} build)", here.version, here.build)))
                        @if let Some(commit) = commit { (fact("commit", &commit)) }
                        (fact("system", &here.system))
                        (fact("processor", &format!("{} × {}", here.processors, here.processor)))
                        (fact("memory", &format!("{} MiB", whole(here.memory_mib))))
                        @if let Some(run) = report.runs.first() {
                            (fact("store", &run.store))
                            (fact("seed", &run.seed.to_string()))
                        }
                    }
                    @if here.build == BuildProfile::Debug {
                        p.note { "A debug build: its verdicts stand, its figures of cost say little." }
                    }
                }
            }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(["row", "a,b", "a\"b", "=1+1"].map(cell), ["row", "\"a,b\"", "\"a\"\"b\"", "'=1+1"]);
    }
}
