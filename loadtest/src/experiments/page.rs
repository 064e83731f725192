//! The reports as a page that stands on its own, and what it shares with the dashboard's.

use maud::{Markup, html};

use super::{Event, ExperimentReport, Finding, diagrams, legend};
use crate::report::html::layout;
use crate::report::html::verdict::{Tone, icon};

/// A page with all reports. It loads nothing from elsewhere, and shows every text as it is.
pub fn page(reports: &[ExperimentReport]) -> String {
    let findings: Vec<_> =
        reports.iter().map(|report| (report.name.as_str(), title(report), Some(report.finding))).collect();
    let body = html! {
        h1 { "The claims of the course, tried" }
        (summary(&findings))
        @for report in reports {
            section.card.experiment id=(report.name) aria-labelledby={ (report.name) "-title" } {
                header {
                    h2 id={ (report.name) "-title" } { (title(report)) }
                    (finding(report.finding))
                }
                div.sides {
                    div {
                        h3 { "The course says" }
                        p { (report.claim) }
                        p.note { "Set-up: " (report.setup) }
                    }
                    (observed(report))
                }
                (meaning(report))
                (details(report, &drawn(&report.name, &report.events), true))
            }
        }
    };
    layout::frozen("Experiments", &body).into_string()
}

/// What it is about; a report of an earlier version has a name only.
fn title(report: &ExperimentReport) -> &str {
    if report.title.is_empty() { &report.name } else { &report.title }
}

/// How many claims came out how, and a link to each: names, titles and findings.
pub fn summary(findings: &[(&str, &str, Option<Finding>)]) -> Markup {
    let count = |wanted: Option<Finding>| findings.iter().filter(|(.., finding)| *finding == wanted).count();
    html! {
        ul.chips aria-label="How the claims came out" {
            @for finding in Finding::ALL {
                @if count(Some(finding)) > 0 {
                    li { span class={ "chip " (tone(finding).class()) } {
                        (icon(tone(finding))) (count(Some(finding))) " " (finding)
                    } }
                }
            }
            @if count(None) > 0 {
                li { span.chip.idle { (icon(Tone::Idle)) (count(None)) " not tried yet" } }
            }
        }
        ul.claims aria-label="All claims" {
            @for (name, title, finding) in findings {
                @let tone = finding.map_or(Tone::Idle, tone);
                li { a href={ "#" (name) } {
                    span class=(tone.class()) { (icon(tone)) }
                    span { (title) " " span.note {
                        @match finding { Some(finding) => (finding), None => "not tried yet" }
                    } }
                } }
            }
        }
    }
}

/// The icon and colour of a finding. A refuted claim is no error: it only is not so.
fn tone(finding: Finding) -> Tone {
    match finding {
        Finding::Reproduced => Tone::Correct,
        Finding::Refuted => Tone::Violated,
        Finding::Inconclusive => Tone::Inconclusive,
        Finding::NotRun => Tone::Idle,
    }
}

/// A finding, in a word.
pub fn finding(finding: Finding) -> Markup {
    let tone = tone(finding);
    html! { span class={ "finding " (tone.class()) } { (icon(tone)) (finding) } }
}

/// What was observed, and why it is so.
pub fn observed(report: &ExperimentReport) -> Markup {
    html! {
        div {
            h3 { "Observed" }
            p { (report.observed) }
            @if let Some(explanation) = &report.explanation { p.note { (explanation) } }
        }
    }
}

/// What it means for whoever builds a shop.
pub fn meaning(report: &ExperimentReport) -> Markup {
    html! {
        @if !report.advice.is_empty() {
            div.advice { h3 { "What this means for you" } p { (report.advice) } }
        }
    }
}

/// Figures, tables and what happened when; `drawn` is the drawing of its events.
pub fn details(report: &ExperimentReport, drawn: &Markup, is_open: bool) -> Markup {
    html! {
        @if !report.figures.is_empty() {
            dl.facts { @for (name, figure) in &report.figures { div { dt { (name) } dd { (figure) } } } }
        }
        @if let [head, rows @ ..] = &report.table[..] {
            div.scroll tabindex="0" role="region" aria-label={ "Table of " (report.name) } {
                table {
                    thead { tr { @for cell in head { th scope="col" { (cell) } } } }
                    tbody { @for row in rows { tr { @for (i, cell) in row.iter().enumerate() {
                        @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                    } } } }
                }
            }
        }
        @if !report.events.is_empty() {
            (unfolded(&format!("{}-timeline", report.name), drawn, is_open))
        } @else if !report.timeline.is_empty() {
            details id={ (report.name) "-timeline" } open[is_open] {
                summary { "What happened when" }
                ol.timeline { @for line in &report.timeline { li { (line) } } }
            }
        }
    }
}

/// Who did what when, drawn and in words.
pub fn drawn(name: &str, events: &[Event]) -> Markup {
    html! {
        div.trials {
            (legend())
            p.note { "Time goes downwards. The times are those of the record; long waits are drawn shorter." }
            (diagrams(name, events))
        }
    }
}

/// The same, to be unfolded.
pub fn unfolded(id: &str, drawn: &Markup, is_open: bool) -> Markup {
    html! { details.drawn id=(id) open[is_open] { summary { "Who did what when" } (drawn) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_and_not_obeyed() {
        let report = ExperimentReport {
            name: "herd".into(),
            title: String::new(),
            claim: "<script>alert(1)</script> & more".into(),
            setup: String::new(),
            timeline: vec!["1 ms  <b>".into()],
            events: Vec::new(),
            figures: vec![("a".into(), "\"1\"".into())],
            observed: String::new(),
            explanation: None,
            table: Vec::new(),
            finding: Finding::NotRun,
            advice: String::new(),
        };
        let page = page(&[report]);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"), "{page}");
        assert!(page.contains("<dd>&quot;1&quot;</dd>") && page.contains("1 not run"), "{page}");
        assert!(page.contains("1 ms  &lt;b&gt;") && !page.contains("alert(1)</script"), "{page}");
    }

    #[test]
    fn a_report_of_an_earlier_version_is_still_read() {
        let old = r#"{"name": "oversell", "claim": "c", "setup": "s", "timeline": ["   3 ms  A orders"],
            "figures": [], "observed": "o", "finding": "reproduced"}"#;
        let report: ExperimentReport = serde_json::from_str(old).unwrap();
        assert!(report.events.is_empty() && report.advice.is_empty() && report.title.is_empty());
        let page = page(&[report]);
        assert!(
            page.contains("A orders") && page.contains("<h2 id=\"oversell-title\">oversell</h2>"),
            "{page}"
        );
    }
}
