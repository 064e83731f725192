//! The first page: a run, while it goes on and afterwards.

use maud::{Markup, html};

use super::controls;
use super::part::Part;
use super::stories;
use crate::dashboard::form::{Form, Mistakes};
use crate::dashboard::state::{Inner, Live, Stage, Suite};
use crate::report::html::figures::{ms, whole};
use crate::report::html::verdict::{Banner, Tile, Tone, banner, chip, tiles};
use crate::report::html::{charts, comparison, downloads, evidence, layout, proof};
use crate::report::{Report, RunReport};
use crate::verdict::Verdict;

/// The number of the run that a query asks for.
pub(in crate::dashboard) fn shown(query: &str) -> Option<usize> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "show").and_then(|(_, number)| number.parse().ok())
}

/// The page.
pub(in crate::dashboard) fn page(
    inner: &Inner,
    form: &Form,
    show: Option<usize>,
    mistakes: Option<Mistakes>,
) -> Markup {
    let mut parts = parts(inner, show).into_iter();
    let mut part = |id: &str| {
        let part = parts.next().filter(|part| part.id == id);
        part.expect("the page shows every part, in their order").in_place()
    };
    let events = show.map_or_else(|| "/events".into(), |show| format!("/events?show={show}"));
    let body = html! {
        div.part aria-live="polite" aria-atomic="true" { (part("verdict")) }
        p.message #connection hidden { "The dashboard does not answer. This is the last that is known." }
        (part("story"))
        (part("tiles"))
        form.card.controls #controls method="post" action="/run" aria-label="Controls"
            data-command="/command" {
            (controls::fields(form, mistakes.as_ref()))
            (part("buttons"))
            (controls::command_line(form))
        }
        div.live data-events=(events) hidden {}
        (part("evidence"))
        (part("strategies"))
        (part("proof"))
        (part("files"))
    };
    layout::served("Load test", "/run", &body)
}

/// The parts of the page that change, in their order.
pub(in crate::dashboard) fn parts(inner: &Inner, show: Option<usize>) -> Vec<Part> {
    let nothing = Report::new(Vec::new(), Vec::new());
    let suite = inner.suite.as_ref();
    let report = suite.map_or(&nothing, |suite| &suite.report);
    let live = suite.and_then(|suite| suite.live.as_ref());
    let asked_for = show.and_then(|number| report.runs.get(number));
    let run = asked_for.or_else(|| if live.is_some() { None } else { telling(report) });
    let several = asked_for.is_none() && live.is_none() && report.asked_for().count() > 1;
    let (headline, four, middle, end) = match (run, live) {
        (Some(run), _) if several => of_several(report, run),
        (Some(run), _) => of_run(run),
        (None, Some(live)) => of_live(live),
        (None, None) => of_nothing(suite),
    };
    let tabs = suite.map_or_else(|| html! {}, |suite| tabs(suite, run));
    let stage = suite.map_or_else(|| html! {}, |suite| stage(&suite.stage, inner.is_stopping()));
    let running = live.map(|live| live.strategy.as_str());
    let table = comparison::section(&report.runs, &report.not_run, running);
    vec![
        Part::new("verdict", html! { (headline) (stage) (tabs) }),
        Part::new("story", stories::beside(inner)),
        Part::new("tiles", four),
        Part::new("buttons", controls::buttons(inner)),
        Part::new("evidence", middle),
        Part::new("strategies", table),
        Part::new("proof", end),
        Part::new("files", html! { (files(suite)) (downloads::environment(report)) }),
    ]
}

type Shown = (Markup, Markup, Markup, Markup);

fn of_run(run: &RunReport) -> Shown {
    (banner(&Banner::of(run), 1), tiles(&Tile::of(run, "")), evidence(run, ""), proof::sections(run, ""))
}

/// The run that is shown of several where none was asked for: the first that went wrong, or else the last.
fn telling(report: &Report) -> Option<&RunReport> {
    let first = |verdict| report.asked_for().find(|run| run.verdict == verdict);
    let wrong = first(Verdict::Violated).or_else(|| first(Verdict::Inconclusive));
    wrong.or_else(|| report.asked_for().last())
}

/// The banner is of all runs, and the rest of one of them.
fn of_several(report: &Report, run: &RunReport) -> Shown {
    let any = |verdict| report.asked_for().any(|run| run.verdict == verdict);
    let tone = match (any(Verdict::Violated), any(Verdict::Inconclusive)) {
        (true, _) => Tone::Violated,
        (_, true) => Tone::Inconclusive,
        _ => Tone::Correct,
    };
    let summary = Banner {
        tone,
        word: report.summary(),
        facts: Vec::new(),
        meaning: format!("Below is the run under {}; the others are a click away.", run.strategy),
    };
    let (_, four, middle, end) = of_run(run);
    (banner(&summary, 1), four, middle, end)
}

fn of_live(live: &Live) -> Shown {
    let last = live.series.intervals.last().cloned().unwrap_or_default();
    let (sold, stock) = (live.sold(), live.supply);
    let oversold = (sold - stock).max(0);
    let lost = live.series.lost_updates;
    // No figures in these words: they are read out whenever they change.
    let (tone, word, meaning) = if oversold > 0 {
        (Tone::Violated, "OVERSOLD so far", "More is confirmed already than there ever was.")
    } else if lost > 0 {
        (Tone::Violated, "VIOLATED so far", "Updates of the stock were lost already.")
    } else if live.begun.is_none() {
        (Tone::Running, "Starting", "The replicas and what they need are being started.")
    } else {
        (Tone::Running, "Running", "The verdict comes from the database, at the end.")
    };
    let facts = match tone {
        Tone::Running if live.begun.is_some() => vec![live.strategy.clone(), "so far no violation".into()],
        _ => vec![live.strategy.clone()],
    };
    let shown = Banner { tone, word: word.into(), facts, meaning: meaning.into() };
    let seconds = live.series.span_ms() / 1e3;
    let per_second = if seconds > 0.0 { live.total.accepted as f64 / seconds } else { 0.0 };
    let done = live.progress.done();
    let of = live.scenario.orders().map_or_else(String::new, |orders| format!(" of {}", whole(orders)));
    let answered = format!("{}{of} answered in {seconds:.1} s", whole(done));
    let latest = live.series.intervals.iter().rev().find_map(|interval| interval.latency_ms);
    let median =
        latest.map_or_else(String::new, |latency| format!("just now; median {} ms", ms(latency.p50)));
    let p99 = latest.map(|latency| latency.p99);
    let four =
        Tile::four("", (Some(sold), stock, Some(oversold), lost), (per_second, answered), (p99, median));
    let middle = html! {
        div.evidence {
            @if last.until_ms > 0.0 { (charts::all(&live.series, &[], &Default::default(), "")) }
            figure.card id="locks" { h2 { "Who had the lock when" } p.note { "The replicas are asked when \
                the run is over." } }
        }
    };
    let end = html! {
        section.card id="counterexample" tabindex="-1" {
            h2 { "Counterexample" }
            p.note { "So far " (whole(lost)) " updates of the stock were lost. The first is shown when the \
                run is over." }
        }
        section.card id="checks" { h2 { "Checks" } p.note { "The checks are made when the run is over." } }
    };
    (banner(&shown, 1), tiles(&four), middle, end)
}

fn of_nothing(suite: Option<&Suite>) -> Shown {
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
    let shown = Banner { tone, word: word.into(), facts, meaning: meaning.into() };
    (banner(&shown, 1), html! {}, html! {}, html! {})
}

fn stage(stage: &Stage, is_stopping: bool) -> Markup {
    match stage {
        Stage::Running if is_stopping => html! {
            p.note { "Stopping: what is under way is waited for, and what was done is judged." }
        },
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
            @for (number, run) in runs.iter().enumerate() {
                @let current = shown.is_some_and(|shown| std::ptr::eq(shown, run));
                li { (chip(run, &format!("/run?show={number}"), current)) }
            }
            @if let Some(live) = &suite.live {
                li {
                    a.chip.running href="/run" aria-current=[shown.is_none().then_some("true")] {
                        b { (live.strategy) } " running"
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
