//! The page for shops that are not ours.

use maud::{Markup, html};

use super::part::Part;
use crate::dashboard::archive::Archive;
use crate::dashboard::shop::ShopForm;
use crate::dashboard::state::{Inner, ShopJob, Stage};
use crate::report::html::figures::whole;
use crate::report::html::layout;
use crate::report::html::verdict::{Banner, Tone, banner};
use crate::shop::ShopReport;
use crate::shop::page as shown;

/// The fields that are typed in: name, label, hint, and what keyboard suits them.
const TYPED: [(&str, &str, &str, &str); 9] = [
    ("file", "Description", "the file shop.toml, on this machine", "text"),
    ("stock", "Stock", "units, put there before each run", "numeric"),
    ("orders", "Purchases", "in each run; empty: four times the stock", "numeric"),
    ("rungs", "Buyers at once", "one run for each", "text"),
    ("repeat", "Repeat", "runs of each", "numeric"),
    ("rate", "Arrival", "purchases/s, instead of buyers at once", "decimal"),
    ("quantity", "Quantity", "units per purchase", "numeric"),
    ("timeout", "Timeout", "how long an answer is waited for", "text"),
    ("hosts", "Hosts", "not this machine, but yours", "text"),
];

/// The page.
pub(in crate::dashboard) fn page(inner: &Inner, form: &ShopForm, mistake: Option<&str>) -> Markup {
    let mut parts = parts(inner).into_iter();
    let mut part = |id: &str| {
        let part = parts.next().filter(|part| part.id == id);
        part.expect("the page shows every part, in their order").in_place()
    };
    let body = html! {
        div.part aria-live="polite" aria-atomic="true" { (part("verdict")) }
        p.message #connection hidden { "The dashboard does not answer. This is the last that is known." }
        form.card.controls #controls method="post" action="/shop" aria-label="Controls"
            data-command="/shop/command" {
            p.note {
                "A file says how to buy in the shop, how its answers are read, and where it says what was \
                 sold. \
                Purchases are really made: use a test shop."
            }
            @if let Some(mistake) = mistake { p.message role="alert" { (mistake) } }
            div.fields {
                @for (name, label, hint, keyboard) in TYPED {
                    div class=(if name == "file" { "field wide" } else { "field" }) {
                        label for={ "field-" (name) } { (label) }
                        input id={ "field-" (name) } name=(name) value=(form.value(name)) inputmode=(keyboard)
                            autocomplete="off" aria-describedby={ (name) "-hint" };
                        span.hint id={ (name) "-hint" } { (hint) }
                    }
                }
            }
            label.choice {
                input type="checkbox" name="rendezvous" value="on"
                    checked[!form.value("rendezvous").is_empty()];
                "Let all buyers wait for each other before the last step"
            }
            (part("buttons"))
            div {
                p.note #command-label { "The same on a terminal" }
                pre.command #command tabindex="0" role="region" aria-labelledby="command-label" {
                    (form.command())
                }
            }
        }
        div.live data-events="/events?page=shop" hidden {}
        (part("ladder-part"))
        (part("proof"))
        (part("rehearsal"))
        (part("past"))
    };
    layout::served("Your shop", "/shop", &body)
}

/// The parts of the page that change, in their order.
pub(in crate::dashboard) fn parts(inner: &Inner) -> Vec<Part> {
    let job = inner.shop.as_ref();
    let runs = job.map(|job| job.progress.runs()).unwrap_or_default();
    let running = job.filter(|job| job.stage == Stage::Running).and_then(|job| job.progress.now());
    let ladder = match (runs.is_empty(), &running) {
        (true, None) => html! {},
        _ => shown::ladder(&runs, running.as_ref().map(|now| now.arrival)),
    };
    let report = job.and_then(|job| job.report.as_ref());
    let proof = report.and_then(shown::telling).map_or_else(|| html! {}, shown::proofs);
    vec![
        Part::new("verdict", job.map_or_else(nothing, |job| verdict(job, inner.is_stopping()))),
        Part::new("buttons", buttons(inner)),
        Part::new("ladder-part", ladder),
        Part::new("proof", proof),
        Part::new("rehearsal", job.map_or_else(|| html! {}, rehearsal)),
        Part::new("past", past(&inner.archive)),
    ]
}

fn nothing() -> Markup {
    let meaning = "Describe how to buy in it, and the same purchases are made one after the other and then \
     by \
                   more and more buyers at once.";
    let shown = Banner {
        tone: Tone::Idle,
        word: "Does your shop oversell?".into(),
        facts: Vec::new(),
        meaning: meaning.into(),
    };
    banner(&shown, 1)
}

fn verdict(job: &ShopJob, is_stopping: bool) -> Markup {
    if let Some(report) = &job.report {
        return shown::verdict(report);
    }
    let (tone, word, meaning) = match (&job.stage, job.fits) {
        (Stage::Broken(why), _) => (Tone::Inconclusive, "Broken off", why.clone()),
        (_, Some(false)) => (Tone::Inconclusive, "The description does not fit", job.faults.join(" ")),
        (Stage::Running, _) if is_stopping => (
            Tone::Running,
            "Stopping",
            "What is under way is waited for, and what was done is judged.".into(),
        ),
        (Stage::Running, None) => {
            (Tone::Running, "Rehearsing", "Two purchases are made alone: does the description fit?".into())
        }
        (Stage::Running, Some(true)) => (Tone::Running, "Running", "The verdict comes at the end.".into()),
        (_, Some(true)) => (Tone::Correct, "The description fits", "Press Run to fire.".into()),
        (_, None) => (Tone::Idle, "Stopped", "It was stopped before its end: no verdict.".into()),
    };
    let mut facts = Vec::new();
    if let Some(now) = job.progress.now().filter(|_| job.stage == Stage::Running) {
        facts.push(now.arrival.to_string());
        facts.push(format!("{} of {} purchases", whole(now.done() as i64), whole(now.purchases as i64)));
        facts.push(format!("{} bought", whole(now.bought as i64)));
    }
    banner(&Banner { tone, word: word.into(), facts, meaning }, 1)
}

fn buttons(inner: &Inner) -> Markup {
    let busy = inner.is_busy();
    html! {
        div.buttons {
            button.primary #start type="submit" disabled[busy] { "Run" }
            button #try type="submit" name="dry-run" value="1" disabled[busy] { "Try the description" }
            button #stop type="submit" formaction="/shop/stop" formnovalidate disabled[!busy] {
                @if inner.is_stopping() { "Stop at once" } @else { "Stop" }
            }
        }
    }
}

fn rehearsal(job: &ShopJob) -> Markup {
    let Some(text) = &job.rehearsal else { return html! {} };
    // What does not fit is what one wants to see.
    let open = job.report.is_none();
    html! {
        section.card id="rehearsal-card" {
            h2 { "The rehearsal, step by step" }
            details id="rehearsal-text" open[open] {
                summary { "One purchase, and one in an empty shop" }
                pre.command tabindex="0" role="region" aria-label="The rehearsal" { (text) }
            }
        }
    }
}

fn past(archive: &Archive) -> Markup {
    let mut all = archive.shops().peekable();
    if all.peek().is_none() {
        return html! {};
    }
    html! {
        section.card {
            h2 { "Past loads on shops" }
            ul { @for (id, headline) in all {
                li { a href={ "/shops/" (id) } { (headline) } " " span.note { (id) } }
            } }
        }
    }
}

/// One past load.
pub(in crate::dashboard) fn one(id: &str, report: &ShopReport) -> Markup {
    let body = html! {
        (shown::content(report))
        section.card id="downloads" {
            h2 { "Downloads" }
            p.downloads {
                a href={ "/shops/" (id) ".json" } download { "JSON" } " "
                a href={ "/shops/" (id) ".html" } download { "HTML report" }
            }
        }
    };
    layout::served(&report.headline, "/shop", &body)
}
