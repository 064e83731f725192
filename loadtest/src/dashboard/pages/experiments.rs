//! The second page: the claims of the course, tried by a button; claim beside observation.

use maud::{Markup, html};

use super::part::Part;
use crate::dashboard::state::Inner;
use crate::experiments::{self, Experiment, ExperimentReport, Finding};
use crate::report::html::layout;
use crate::report::html::verdict::{Tone, icon};

/// The page.
pub(in crate::dashboard) fn page(inner: &Inner) -> Markup {
    let body = html! {
        h1 { "The claims of the course" }
        p.note { "None is scripted to its answer: what is observed comes from the database, the lock service \
            or the clock." }
        p.message #connection hidden { "The dashboard does not answer. This is the last that is known." }
        div.live data-events="/events?page=experiments" hidden {}
        @for part in parts(inner) { (part.in_place()) }
    };
    layout::served("Experiments", "/experiments", &body)
}

/// The experiments, each a part of its own.
pub(in crate::dashboard) fn parts(inner: &Inner) -> Vec<Part> {
    let all = experiments::all().into_iter();
    all.map(|experiment| Part::new(experiment.name, section(inner, &experiment))).collect()
}

fn section(inner: &Inner, experiment: &Experiment) -> Markup {
    let name = experiment.name;
    let running = inner.experiment == Some(name);
    let report = inner.archive.experiment(name);
    let broken = inner.broken_experiment.as_ref().filter(|(broken, _)| *broken == name);
    html! {
        section.card.experiment aria-labelledby={ (name) "-title" } {
            header {
                h2 id={ (name) "-title" } { (name) }
                div aria-live="polite" { (finding(report.as_ref(), running)) }
            }
            div.sides {
                div { h3 { "The course says" } p { (experiment.claim) } p.note { "Set-up: \
                    " (experiment.setup) } }
                div {
                    h3 { "Observed" }
                    @match &report {
                        Some(report) => {
                            p { (report.observed) }
                            @if let Some(explanation) = &report.explanation { p.note { (explanation) } }
                        }
                        None => p.note { "Not tried yet." },
                    }
                    @if let Some((_, why)) = broken { p.message { (why) } }
                }
            }
            @if let Some(report) = &report { (details(report)) }
            form.buttons method="post" action={ "/experiments/" (name) } {
                button type="submit" disabled[inner.is_busy()] aria-label={ "Try " (name) } { "Try it" }
                @if running {
                    button type="submit" formaction="/stop" name="experiments" value="1" aria-label={ "Stop \
                        " (name) } { "Stop" }
                }
            }
        }
    }
}

fn finding(report: Option<&ExperimentReport>, running: bool) -> Markup {
    let (tone, class, word) = match report.map(|report| report.finding) {
        _ if running => (Tone::Running, "running", "running"),
        None => return html! {},
        Some(Finding::Reproduced) => (Tone::Correct, "correct", "reproduced"),
        Some(Finding::Refuted) => (Tone::Violated, "violated", "refuted"),
        Some(Finding::Inconclusive) => (Tone::Inconclusive, "inconclusive", "inconclusive"),
        Some(Finding::NotRun) => (Tone::Idle, "idle", "not run"),
    };
    html! { span class={ "finding " (class) } { (icon(tone)) (word) } }
}

fn details(report: &ExperimentReport) -> Markup {
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
        @if !report.timeline.is_empty() {
            details id={ (report.name) "-timeline" } {
                summary { "What happened when" }
                ol.timeline { @for line in &report.timeline { li { (line) } } }
            }
        }
    }
}
