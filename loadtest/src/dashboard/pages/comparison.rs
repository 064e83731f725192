//! Past runs beside each other: their curves in one chart, and how far their figures are apart.

use maud::{Markup, html};

use crate::dashboard::archive::Archive;
use crate::dashboard::change::{Change, Figure, Noise, change, is_broken, middle, spread};
use crate::dashboard::compared::{Compared, Group, baseline, differences, groups, strategies};
use crate::report::RunReport;
use crate::report::html::courses::{self, Curve};
use crate::report::html::figures::{difference, ms, rate, whole};
use crate::report::html::verdict::{Tone, icon};
use crate::verdict::Verdict;

/// What a figure of cost is called, where it is, and how it is written.
type Row = (&'static str, Figure, fn(f64) -> String);

/// The figures of cost.
const FIGURES: [Row; 4] = [
    ("orders/s", |run| run.accepted_per_second, rate),
    ("p50 ms", |run| run.latency_ms.p50, ms),
    ("p99 ms", |run| run.latency_ms.p99, ms),
    ("longest gap ms", |run| run.availability.longest_gap.ms, ms),
];

/// The comparison of these suites; `only` of one strategy, where one is given.
pub(super) fn section(archive: &Archive, suites: &[Compared<'_>], only: Option<&str>) -> Markup {
    let groups = groups(suites, only);
    let curves = curves(archive, suites, &groups);
    html! {
        section.card #compared aria-labelledby="compared-title" {
            h1 #compared-title { (suites.len()) " compared" }
            ol.suites { @for suite in suites {
                li { b.letter { (suite.letter) } " " a href={ "/runs/" (suite.id) } { (suite.title) } " "
                    span.note { (suite.entry.at.strftime("%Y-%m-%d %H:%M:%S")) } }
            } }
            (unequal(suites))
            (filter(suites, only))
            (table(&groups))
            p.note { (noise_words(&groups)) }
        }
        div.evidence { (courses::charts(&curves)) }
        @if curves.len() > courses::MOST {
            p.note { "The charts have the first " (courses::MOST) " of " (curves.len()) " curves: choose a \
                strategy above to see the others." }
        }
    }
}

/// What was not the same, so that figures may differ for that alone.
fn unequal(suites: &[Compared<'_>]) -> Markup {
    let differences = differences(suites);
    let commits: Vec<_> = suites
        .iter()
        .map(|suite| {
            suite.entry.runs.first().and_then(|run| run.commit.clone()).unwrap_or_else(|| "–".into())
        })
        .collect();
    let is_same_program = commits.iter().all(|commit| *commit == commits[0]);
    html! {
        @if !differences.is_empty() {
            div.unequal role="note" {
                p { (icon(Tone::Inconclusive)) b { " Unequal loads." } " Figures may differ for that alone." }
                ul { @for (name, said) in &differences {
                    li { (name) ": " @for (suite, value) in suites.iter().zip(said) {
                        span.value { (suite.letter) " " code { (value) } } " "
                    } }
                } }
            }
        }
        @if !is_same_program { p.note { "Different versions of the program: " (commits.join(", ")) "." } }
    }
}

/// The address of the comparison, of all strategies or of one.
fn address(suites: &[Compared<'_>], only: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    suites.iter().for_each(|suite| {
        query.append_pair("run", suite.id);
    });
    only.iter().for_each(|only| {
        query.append_pair("only", only);
    });
    format!("/runs?{}", query.finish())
}

fn filter(suites: &[Compared<'_>], only: Option<&str>) -> Markup {
    let names: Vec<_> = strategies(suites).iter().map(ToString::to_string).collect();
    if names.len() < 2 {
        return html! {};
    }
    html! {
        ul.chips aria-label="Strategies" {
            @let all = only.is_none().then_some("true");
            li { a.chip.idle href=(address(suites, None)) aria-current=[all] { "all" } }
            @for name in &names {
                @let current = (only == Some(name.as_str())).then_some("true");
                li { a.chip.idle href=(address(suites, Some(name))) aria-current=[current] { (name) } }
            }
        }
    }
}

fn table(groups: &[Group<'_>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Figures compared" {
            table.cards {
                thead { tr {
                    th scope="col" { "run" } th.left scope="col" { "verdict" }
                    th scope="col" { "oversold" } th scope="col" { "lost updates" }
                    @for (name, ..) in FIGURES { th scope="col" { (name) } }
                } }
                tbody { @for group in groups { (row(group, baseline(groups, group))) } }
            }
        }
    }
}

fn row(group: &Group<'_>, baseline: Option<&Group<'_>>) -> Markup {
    let runs = &group.runs;
    html! {
        tr {
            th scope="row" { b.letter { (group.letter) } " " (group.strategy)
                @if runs.len() > 1 { " " span.note { "× " (runs.len()) } } }
            td.verdict data-label="verdict" { (verdicts(runs)) }
            td data-label="oversold" { (counts(runs, |run| run.oversold_units)) }
            td data-label="lost updates" {
                (counts(runs, |run| run.series.as_ref().map(|series| series.lost_updates as i64)))
            }
            @for (name, of, words) in FIGURES {
                td data-label=(name) {
                    @if let Some(spread) = spread(runs, of) {
                        span { (words(spread.median)) @if runs.len() > 1 {
                            " " span.spread { "(" (words(spread.least)) "–" (words(spread.most)) ")" }
                        } }
                    }
                    @if let Some(baseline) = baseline { (changed(baseline, runs, of)) }
                }
            }
        }
    }
}

/// The verdict of all repetitions: the worst, and how many of them have it.
fn verdicts(runs: &[&RunReport]) -> Markup {
    let any = |verdict| runs.iter().filter(|run| run.verdict == verdict).count();
    let worst =
        [Verdict::Violated, Verdict::Inconclusive, Verdict::Correct].into_iter().find(|v| any(*v) > 0);
    let Some(worst) = worst else { return html! {} };
    let oversold = worst == Verdict::Violated && runs.iter().any(|run| run.oversold() > 0);
    html! {
        span class=(Tone::from(worst).class()) {
            (icon(Tone::from(worst)))
            @if oversold { "OVERSOLD" } @else if worst == Verdict::Violated { "VIOLATED" } @else { (worst) }
            @if any(worst) < runs.len() { " in " (any(worst)) " of " (runs.len()) }
        }
    }
}

/// A count, from the least to the most of the repetitions.
fn counts(runs: &[&RunReport], of: fn(&RunReport) -> Option<i64>) -> String {
    let counts: Vec<_> = runs.iter().filter_map(|run| of(run)).collect();
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least == most => whole(*least),
        (Some(least), Some(most)) => format!("{}–{}", whole(*least), whole(*most)),
        _ => "–".into(),
    }
}

fn changed(baseline: &Group<'_>, runs: &[&RunReport], of: Figure) -> Markup {
    match change(&baseline.runs, runs, of) {
        Change::Unknown => html! {},
        Change::Broken => html! { span.change { "not compared: broken" } },
        Change::Unfit(why) => html! { span.change { "not compared: " (why) } },
        Change::By(share, noise) => {
            html! {
                span.change.beyond[noise == Noise::Beyond] {
                    (difference(1.0 + share, 1.0)) " to " (baseline.letter) ", "
                    @match noise {
                        Noise::Unknown => "noise unknown",
                        Noise::Within => "within the noise",
                        Noise::Few => "apart, of few runs",
                        Noise::Beyond => "beyond the noise",
                    }
                }
            }
        }
    }
}

fn noise_words(groups: &[Group<'_>]) -> &'static str {
    let is_repeated = groups.iter().any(|group| group.runs.len() > 1);
    let is_broken = groups.iter().any(|group| is_broken(&group.runs));
    match (is_repeated, is_broken) {
        (true, false) => {
            "Medians, from the least to the greatest of the repetitions. A change is within the noise \
             where these overlap, and beyond it where four or more of each do not, which chance alone \
             does in one of 35 figures. The curve is that of the repetition in the middle."
        }
        (false, false) => {
            "Each was run once, so that nobody knows how far the figures vary by themselves: put \
                           a number into Repeat, and run them again."
        }
        (true, true) => {
            "Medians, from the least to the greatest of the repetitions. The speed of a run that is broken \
             is not compared."
        }
        (false, true) => {
            "Each was run once, so that nobody knows how far the figures vary by themselves. The speed of \
             a run that is broken is not compared."
        }
    }
}

/// The courses of the groups. They are not in the index.
fn curves(archive: &Archive, suites: &[Compared<'_>], groups: &[Group<'_>]) -> Vec<Curve> {
    let kept: Vec<_> = suites.iter().map(|suite| archive.load(suite.id)).collect();
    let curve = |group: &Group<'_>| {
        let middle = middle(&group.runs)?;
        let runs = &kept[group.suite].as_ref()?.report.runs;
        let same =
            |run: &&RunReport| run.strategy == middle.strategy && run.seed == middle.seed && !run.is_control;
        let series = runs.iter().find(same)?.series.clone()?;
        Some(Curve { name: format!("{} {}", group.letter, group.strategy), series })
    };
    groups.iter().filter_map(curve).collect()
}
