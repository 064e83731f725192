//! The third page: past runs, and two of them compared.

use maud::{Markup, html};

use crate::dashboard::archive::{Archive, Entry, Kept};
use crate::report::html::figures::{difference, ms, rate, whole};
use crate::report::html::verdict::chip;
use crate::report::html::{content, downloads, layout};
use crate::report::{RunReport, Strategy};

/// The list, and a comparison where the query asks for one.
pub(in crate::dashboard) fn page(archive: &Archive, query: &str) -> Markup {
    let asked = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == wanted).map(|(_, id)| id.into_owned())
    };
    let ids: Vec<_> = archive.all().map(|(id, _)| id.clone()).collect();
    // At first, the last two.
    let a = asked("a").or_else(|| ids.get(1).cloned());
    let b = asked("b").or_else(|| ids.first().cloned());
    let both = asked("a")
        .and(asked("b"))
        .and_then(|_| Some((archive.entry(a.as_deref()?)?, archive.entry(b.as_deref()?)?)));
    let body = html! {
        h1 { "Past runs" }
        @if ids.is_empty() {
            p.note { "There are none yet. " a href="/" { "Start one" } "." }
        } @else {
            @if let Some((a, b)) = both { (compared(a, b)) }
            form.card method="get" action="/runs" {
                div.scroll tabindex="0" role="region" aria-label="Past runs" {
                    table.past {
                        thead { tr {
                            th scope="col" { "when" } th scope="col" { "A" } th scope="col" { "B" }
                            th scope="col" { "runs" } th scope="col" { "load" } th scope="col" { "again" }
                        } }
                        tbody {
                            @for (id, entry) in archive.all() { (row(id, entry, a.as_deref(), b.as_deref())) }
                        }
                    }
                }
                div.buttons { button.primary type="submit" { "Compare A with B" } }
            }
        }
    };
    layout::served("Past runs", "/runs", &body)
}

fn row(id: &str, entry: &Entry, a: Option<&str>, b: Option<&str>) -> Markup {
    let when = entry.at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let first = entry.runs.first();
    html! {
        tr {
            th scope="row" { a href={ "/runs/" (id) } { (when) } }
            td { input type="radio" name="a" value=(id) checked[a == Some(id)] aria-label={ "A: " (when) }; }
            td { input type="radio" name="b" value=(id) checked[b == Some(id)] aria-label={ "B: " (when) }; }
            td { ul.chips { @for (number, run) in entry.runs.iter().enumerate() {
                li { (chip(run, &format!("/runs/{id}{}", anchor(entry, number)), false)) }
            } } }
            td { @if let Some(run) = first { (load(run)) } }
            td { a href={ "/?" (entry.form) } aria-label={ "The same choices as at " (when) } { "same \
                choices" } }
        }
    }
}

fn anchor(entry: &Entry, number: usize) -> String {
    if entry.runs.len() > 1 { format!("#run-{number}") } else { String::new() }
}

fn load(run: &RunReport) -> String {
    format!("{} orders, {} buyers, {} × {}", whole(run.attempts), run.buyers, run.replicas, run.store)
}

/// Two suites side by side, strategy by strategy.
fn compared(a: &Entry, b: &Entry) -> Markup {
    let when = |entry: &Entry| entry.at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut strategies: Vec<&Strategy> = Vec::new();
    for run in a.runs.iter().chain(&b.runs) {
        if !strategies.contains(&&run.strategy) {
            strategies.push(&run.strategy);
        }
    }
    html! {
        section.card aria-labelledby="compared" {
            h2 #compared { "A, " (when(a)) ", and B, " (when(b)) }
            div.scroll tabindex="0" role="region" aria-label="A and B compared" {
                table {
                    thead { tr {
                        th scope="col" { "strategy" } th.left scope="col" { "figure" }
                        @for column in ["A", "B", "B to A"] { th scope="col" { (column) } }
                    } }
                    tbody {
                        @for strategy in strategies {
                            @let of = |entry: &Entry| {
                                entry.runs.iter().find(|run| run.strategy == *strategy).cloned()
                            };
                            (both(strategy, of(a).as_ref(), of(b).as_ref()))
                        }
                    }
                }
            }
        }
    }
}

fn both(strategy: &Strategy, a: Option<&RunReport>, b: Option<&RunReport>) -> Markup {
    type Figure = (&'static str, fn(&RunReport) -> f64, fn(f64) -> String);
    let figures: [Figure; 5] = [
        ("oversold units", |run| run.oversold() as f64, |value| whole(value as i64)),
        ("orders/s", |run| run.accepted_per_second, rate),
        ("p50 ms", |run| run.latency_ms.p50, ms),
        ("p99 ms", |run| run.latency_ms.p99, ms),
        ("stale writes refused", |run| run.lock.stale_writes_rejected as f64, |value| whole(value as i64)),
    ];
    let verdict = |run: Option<&RunReport>| run.map_or_else(|| "–".into(), |run| run.verdict.to_string());
    html! {
        tr {
            th scope="rowgroup" rowspan=(figures.len() + 1) { (strategy) }
            th scope="row" { "verdict" } td { (verdict(a)) } td { (verdict(b)) } td {}
        }
        @for (name, of, words) in figures {
            tr {
                th scope="row" { (name) }
                @for run in [a, b] { td { (run.map_or_else(|| "–".into(), |run| words(of(run)))) } }
                td { @if let (Some(a), Some(b)) = (a, b) { (difference(of(b), of(a))) } }
            }
        }
    }
}

/// One past suite.
pub(in crate::dashboard) fn one(id: &str, kept: &Kept) -> Markup {
    let when = kept.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let body = html! {
        p.note { "Run of " (when) ". " a href={ "/?" (kept.form) } { "The same choices again" } }
        (content(&kept.report))
        (files(id))
        (downloads::environment(&kept.report))
    };
    layout::served(&crate::report::html::title(&kept.report), "/runs", &body)
}

/// A suite as files.
pub(in crate::dashboard) fn files(id: &str) -> Markup {
    html! {
        section.card id="downloads" {
            h2 { "Downloads" }
            p.downloads {
                @for (kind, name) in [("json", "JSON"), ("csv", "CSV"), ("html", "HTML report")] {
                    a href={ "/runs/" (id) "." (kind) } download { (name) } " "
                }
            }
        }
    }
}
