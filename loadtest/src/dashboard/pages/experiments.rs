//! The claims of the course, tried by a button; claim beside observation, with a drawing of who did what
//! when, which grows while an experiment goes on.

use lab::ServerKind;
use maud::{Markup, PreEscaped, html};

use super::part::Part;
use crate::dashboard::archive::Trial;
use crate::dashboard::state::Inner;
use crate::experiments::{self, Experiment, Finding};
use crate::report::html::layout;
use crate::report::html::verdict::{Tone, icon};

/// The page.
pub(in crate::dashboard) fn page(inner: &Inner) -> Markup {
    let body = html! {
        h1 { "The claims of the course, tried" }
        p.note { "Each button starts real servers on this machine and tries one claim of the lecture. \
            None is scripted to its answer: what is observed comes from the database, the lock service or \
            the clock." }
        p.message #connection hidden { "The dashboard does not answer. This is the last that is known." }
        div.live data-events="/events?page=experiments" hidden {}
        @for part in parts(inner) { (part.in_place()) }
    };
    layout::served("Experiments", "/experiments", &body)
}

/// The summary, and the experiments, each a part of its own.
pub(in crate::dashboard) fn parts(inner: &Inner) -> Vec<Part> {
    let missing: Vec<_> = ServerKind::ALL.into_iter().filter(|kind| !kind.is_installed()).collect();
    let all = experiments::all();
    let sections = all.iter().map(|experiment| {
        let missing: Vec<_> =
            experiment.needs.iter().copied().filter(|kind| missing.contains(kind)).collect();
        Part::new(experiment.name, section(inner, experiment, &missing))
    });
    [Part::new("claims", summary(inner, &all))].into_iter().chain(sections).collect()
}

fn summary(inner: &Inner, all: &[Experiment]) -> Markup {
    let finding = |name| inner.archive.experiment(name).map(|trial| trial.report.finding);
    let findings: Vec<_> =
        all.iter().map(|experiment| (experiment.name, experiment.title, finding(experiment.name))).collect();
    let trials = &inner.trials;
    html! {
        section.card.overview aria-label="Summary" {
            (experiments::summary(&findings))
            form.buttons method="post" action="/experiments" {
                button.primary type="submit" disabled[inner.is_busy()] { "Try all" }
                @if let Some(running) = trials.running {
                    (stop("Stop the experiments"))
                    span.note aria-live="polite" {
                        a href={ "#" (running) } { (title(all, running)) } " is running"
                        @if !trials.waiting.is_empty() { "; " (trials.waiting.len()) " more to come" }
                    }
                } @else {
                    span.note { "All " (all.len()) ", one after the other: about seven minutes." }
                }
            }
        }
    }
}

fn title(all: &[Experiment], name: &str) -> &'static str {
    let found = all.iter().find(|experiment| experiment.name == name);
    found.map_or("an experiment", |experiment| experiment.title)
}

fn stop(label: &str) -> Markup {
    html! {
        button type="submit" formaction="/stop" name="experiments" value="1" aria-label=(label) { "Stop" }
    }
}

fn section(inner: &Inner, experiment: &Experiment, missing: &[ServerKind]) -> Markup {
    let name = experiment.name;
    let is_running = inner.trials.running == Some(name);
    let is_waiting = inner.trials.waiting.contains(&name);
    let trial = inner.archive.experiment(name).filter(|_| !is_running);
    let finding = trial.map(|trial| trial.report.finding);
    let broken = inner.trials.broken.iter().filter(|(broken, _)| *broken == name);
    html! {
        section.card.experiment aria-labelledby={ (name) "-title" } {
            header {
                h2 id={ (name) "-title" } { (experiment.title) " " span.note { (name) } }
                div aria-live="polite" { (state(finding, is_running, is_waiting)) }
            }
            div.sides {
                div { h3 { "The course says" } p { (experiment.claim) } p.note { "Set-up: \
                    " (experiment.setup) } }
                @match trial {
                    Some(trial) => (experiments::observed(&trial.report)),
                    None => div {
                        h3 { "Observed" }
                        p.note { @if is_running { "It goes on." } @else { "Not tried yet." } }
                    },
                }
            }
            @for (_, why) in broken { p.message { (why) } }
            @if !missing.is_empty() { (install(missing)) }
            @if let Some(trial) = trial {
                (experiments::meaning(&trial.report))
                (details(trial, inner.trials.latest == Some(name)))
            }
            @if is_running && !inner.trials.recording.is_empty() {
                @let live = experiments::drawn(name, &inner.trials.recording.events());
                (experiments::unfolded(&format!("{name}-live"), &live, true))
            }
            form.buttons method="post" action={ "/experiments/" (name) } {
                button type="submit" disabled[inner.is_busy()] aria-label={ "Try " (name) } { "Try it" }
                @if is_running { (stop(&format!("Stop {name}"))) }
            }
        }
    }
}

fn details(trial: &Trial, is_open: bool) -> Markup {
    let report = &trial.report;
    let drawn = trial.drawn.get_or_init(|| experiments::drawn(&report.name, &report.events).into_string());
    experiments::details(report, &PreEscaped(drawn.clone()), is_open)
}

fn install(missing: &[ServerKind]) -> Markup {
    html! {
        div.install {
            @for kind in missing {
                p {
                    b { (kind.title()) " is not installed on this machine." }
                    " This installs it (as root, on Debian): " code { (kind.install()) }
                }
            }
        }
    }
}

fn state(finding: Option<Finding>, is_running: bool, is_waiting: bool) -> Markup {
    let word = |tone: Tone, word: &str| {
        html! { span class={ "finding " (tone.class()) } { (icon(tone)) (word) } }
    };
    match finding {
        _ if is_running => word(Tone::Running, "running"),
        _ if is_waiting => word(Tone::Idle, "to come"),
        Some(finding) => experiments::finding(finding),
        None => html! {},
    }
}
