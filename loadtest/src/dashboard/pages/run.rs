//! The first page: a run, while it goes on and afterwards.

use maud::{Markup, html};
use order_service::config::StrategyName;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::controls;
use super::live;
use super::part::Part;
use super::shown::Shown;
use super::stories;
use crate::dashboard::form::{Form, Mistakes};
use crate::dashboard::state::{Inner, Stage, Suite};
use crate::report::html::bar;
use crate::report::html::figures::whole;
use crate::report::html::verdict::{Banner, Tile, Tone, banner, brevity, chip, short, tiles};
use crate::report::html::{comparison, cursor, downloads, evidence_parts, layout, overlay, proof};
use crate::report::{Report, RunReport};

/// What the run that a query asks for is called in addresses.
pub(in crate::dashboard) fn shown(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "show").map(|(_, name)| name.into_owned())
}

/// What a run is called in addresses, whatever comes to stand before it. Repetitions have seeds of their own.
fn address_name(run: &RunReport) -> String {
    let control = if run.is_control { "-control" } else { "" };
    format!("{}{control}-{}", run.strategy, run.seed)
}

/// The page.
pub(in crate::dashboard) fn page(
    inner: &Inner,
    form: &Form,
    show: Option<&str>,
    mistakes: Option<Mistakes>,
) -> Markup {
    let mut parts = parts(inner, show).into_iter();
    let mut part = |id: &str| {
        let part = parts.next().filter(|part| part.id == id);
        part.expect("the page shows every part, in their order").in_place()
    };
    let events = show.map_or_else(
        || "/events".into(),
        |show| format!("/events?show={}", utf8_percent_encode(show, NON_ALPHANUMERIC)),
    );
    let body = html! {
        // What is pressed stays where it is, whatever a run brings to the page.
        div.bar { (part("jumps")) (part("short")) (part("buttons")) }
        div.part aria-live="polite" aria-atomic="true" { (part("verdict")) }
        p.message #connection hidden {
            "The dashboard does not answer: its program has ended, or is stopped. What is shown here is the \
             last that is known. The page comes back by itself when the program does."
        }
        p.note #restarted hidden {
            "The dashboard was started again. What was running then is gone; runs that had ended are among \
             the past runs."
        }
        @if let Some(mistakes) = &mistakes { (refused(mistakes)) }
        (part("story"))
        (part("tiles"))
        form.card.controls #controls method="post" action="/run" aria-label="Controls"
            data-command="/command" {
            details #choices open[is_unfolded(inner, form, mistakes.as_ref())] {
                summary { "What is run" span.in-words { ": " (in_words(form)) } }
                div.controls {
                    (controls::fields(form, mistakes.as_ref()))
                    (controls::command_line(form))
                }
            }
        }
        div.live data-events=(events) hidden {}
        div.evidence #evidence { (cursor::readout()) (part("charts")) (part("lanes")) (part("more")) }
        (part("proof"))
        (part("strategies"))
        (part("files"))
    };
    layout::served("Load test", "/run", &body)
}

/// Why a run cannot start. The fields say the same.
fn refused(mistakes: &Mistakes) -> Markup {
    html! {
        div.message role="alert" {
            "This cannot be run: "
            @for (number, (name, mistake)) in mistakes.iter().enumerate() {
                @if number > 0 { "; " }
                (name) ": " (mistake)
            }
        }
    }
}

/// Whether the form is shown at once: not beside a run that was made by it.
fn is_unfolded(inner: &Inner, form: &Form, mistakes: Option<&Mistakes>) -> bool {
    let is_of_run = inner.suite.as_ref().is_some_and(|suite| suite.form.query() == form.query());
    mistakes.is_some() || !(is_of_run || inner.is_busy())
}

/// A form in a line.
fn in_words(form: &Form) -> String {
    let strategies: Vec<_> = form.strategies.iter().map(|strategy| strategy.as_str()).collect();
    let mut words = vec![if strategies.is_empty() { "no strategy".into() } else { strategies.join(", ") }];
    for (name, unit) in
        [("stock", "in stock"), ("orders", "orders"), ("buyers", "buyers"), ("replicas", "replicas")]
    {
        if !form.value(name).is_empty() {
            words.push(format!("{} {unit}", form.value(name)));
        }
    }
    for (name, before) in [("duration", "for "), ("rate", "orders/s: "), ("faults", "faults: ")] {
        if !form.value(name).is_empty() {
            words.push(format!("{before}{}", form.value(name)));
        }
    }
    words.join(" · ")
}

/// The parts of the page that change, in their order.
pub(in crate::dashboard) fn parts(inner: &Inner, show: Option<&str>) -> Vec<Part> {
    let nothing = Report::new(Vec::new(), Vec::new());
    let suite = inner.suite.as_ref();
    let report = suite.map_or(&nothing, |suite| &suite.report);
    let live = suite.and_then(|suite| suite.live.as_ref());
    let asked_for = show.and_then(|name| report.runs.iter().find(|run| address_name(run) == name));
    let run = asked_for.or_else(|| if live.is_some() { None } else { report.telling() });
    let several = asked_for.is_none() && live.is_none() && report.asked_for().count() > 1;
    let shown = match (run, live) {
        (Some(run), _) if several => of_several(report, run),
        (Some(run), _) => of_run(run, report.runs.len() > 1),
        (None, Some(live)) => live::shown(live),
        (None, None) => of_nothing(suite),
    };
    let tabs = suite.map_or_else(|| html! {}, |suite| tabs(suite, run));
    let is_between = live.is_none() && !report.runs.is_empty();
    let stage = suite.map_or_else(|| html! {}, |suite| stage(&suite.stage, inner.is_stopping(), is_between));
    let running = live.map(|live| live.strategy.as_str());
    let table = comparison::section(&report.runs, &report.not_run, running);
    let [charts, lanes, more] = shown.evidence;
    vec![
        Part::new("jumps", bar::links(&shown.jumps)),
        Part::new("short", short(&shown.banner)),
        Part::new("buttons", controls::buttons(inner)),
        Part::new("verdict", html! { (banner(&shown.banner, 1)) (shown.under) (stage) (tabs) }),
        Part::new("story", stories::beside(inner)),
        Part::new("tiles", shown.tiles),
        Part::new("charts", charts),
        Part::new("lanes", lanes),
        Part::new("more", more),
        Part::new("proof", shown.proof),
        Part::new("strategies", html! { (table) (overlay::section(&report.runs, "")) }),
        Part::new("files", html! { (files(suite)) (downloads::environment(report)) }),
    ]
}

fn of_run(run: &RunReport, is_one_of_several: bool) -> Shown {
    Shown {
        tiles: html! { (tiles(&Tile::of(run, ""))) (brevity(run)) },
        evidence: evidence_parts(run, ""),
        proof: proof::sections(run, ""),
        jumps: bar::of_run(run, is_one_of_several),
        ..Shown::only(Banner::of(run))
    }
}

/// The banner is of all runs, and the rest of one of them.
fn of_several(report: &Report, run: &RunReport) -> Shown {
    let what = match run.violation(whole) {
        Some(violation) => format!("{violation}, {}", run.sold_in_words(whole)),
        None => run.sold_in_words(whole),
    };
    let none = if run.strategy == StrategyName::None { ", which is no lock at all" } else { "" };
    let meaning =
        format!("Below is the run under “{}”{none}: {what}. All others are a click away.", run.strategy);
    Shown { banner: Banner { meaning, ..Banner::of_all(report) }, ..of_run(run, true) }
}

fn of_nothing(suite: Option<&Suite>) -> Shown {
    if let Some(cannot) = suite.and_then(cannot_start) {
        return cannot;
    }
    let (tone, word, fact, meaning) = match suite.map(|suite| &suite.stage) {
        Some(Stage::Running) => (Tone::Running, "Starting", "", "The run begins."),
        Some(Stage::Stopped | Stage::Abandoned) => {
            (Tone::Idle, "Stopped", "no verdict", "The run was stopped before its end.")
        }
        Some(Stage::Broken(_)) => {
            (Tone::Inconclusive, "Broken off", "no verdict", "The run could not be made.")
        }
        _ => (
            Tone::Idle,
            "Is anything oversold?",
            "",
            "Choose how the stock is locked and press Run. The first choice, none, locks nothing: it \
                oversells.",
        ),
    };
    let facts = if fact.is_empty() { Vec::new() } else { vec![fact.to_owned()] };
    Shown::only(Banner { tone, word: word.into(), facts, meaning: meaning.into() })
}

/// What is shown of a suite in which nothing could be run: what is missing, and how to install it.
fn cannot_start(suite: &Suite) -> Option<Shown> {
    let first = suite.report.not_run.first().filter(|_| suite.stage == Stage::Finished)?;
    let strategies: Vec<_> =
        suite.report.not_run.iter().map(|not_run| not_run.strategy.to_string()).collect();
    let mut installs: Vec<_> =
        suite.report.not_run.iter().filter_map(|not_run| not_run.install.as_deref()).collect();
    installs.dedup();
    let banner = Banner {
        tone: Tone::Inconclusive,
        word: "Cannot start".into(),
        facts: vec![strategies.join(", "), first.reason.clone()],
        meaning: "Nothing was run, so nothing is known. This installs what is missing:".into(),
    };
    let under = html! {
        @for install in installs { pre.command tabindex="0" role="region" aria-label="Install" { (install) } }
    };
    Some(Shown { under, ..Shown::only(banner) })
}

fn stage(stage: &Stage, is_stopping: bool, is_between_runs: bool) -> Markup {
    match stage {
        Stage::Running if is_stopping => html! {
            p.note { "Stopping: what is under way is waited for, and what was done is judged." }
        },
        Stage::Running if is_between_runs => html! { p.note { "The next run is being started." } },
        Stage::Running | Stage::Finished => html! {},
        Stage::Abandoned => html! { p.note { "Stopped at once: what was running then has no verdict." } },
        Stage::Stopped => html! { p.note { "Stopped before the end: the verdict is on what was done." } },
        Stage::Broken(why) => html! { p.message { (why) } },
    }
}

/// The runs of a suite, to choose which is shown.
fn tabs(suite: &Suite, shown: Option<&RunReport>) -> Markup {
    let runs = &suite.report.runs;
    if runs.len() + usize::from(suite.live.is_some()) < 2 {
        return html! {};
    }
    html! {
        ul.chips {
            @for run in runs {
                @let current = shown.is_some_and(|shown| std::ptr::eq(shown, run));
                li { (chip(run, &format!("/run?show={}", address_name(run)), current)) }
            }
            @if let Some(live) = &suite.live {
                li {
                    a.chip.running href="/run" aria-current=[shown.is_none().then_some("true")] {
                        b { (live.strategy.as_str()) } " running"
                    }
                }
            }
        }
    }
}

fn files(suite: Option<&Suite>) -> Markup {
    let Some(suite) = suite.filter(|suite| !suite.report.runs.is_empty() && suite.stage != Stage::Running)
    else {
        return html! {};
    };
    super::past::files(&suite.id)
}
