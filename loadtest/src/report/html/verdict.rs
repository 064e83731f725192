//! The verdict in a banner, and the four figures that matter most.

use maud::{Markup, html};

use super::figures::{ms, rate, whole};
use crate::report::{Report, RunReport};
use crate::series::Counterexample;
use crate::verdict::Verdict;

/// What a banner is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something is wrong.
    Violated,
    /// Everything is right.
    Correct,
    /// Something could not be seen.
    Inconclusive,
    /// It goes on.
    Running,
    /// Nothing has happened yet, or it was stopped.
    Idle,
}

impl Tone {
    /// The class by which the style sheet knows it.
    pub fn class(self) -> &'static str {
        match self {
            Self::Violated => "violated",
            Self::Correct => "correct",
            Self::Inconclusive => "inconclusive",
            Self::Running => "running",
            Self::Idle => "idle",
        }
    }
}

impl From<Verdict> for Tone {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Violated => Self::Violated,
            Verdict::Correct => Self::Correct,
            Verdict::Inconclusive => Self::Inconclusive,
        }
    }
}

/// A banner.
#[derive(Debug, Clone, PartialEq)]
pub struct Banner {
    /// Its icon and colour.
    pub tone: Tone,
    /// The verdict in a word or two.
    pub word: String,
    /// What belongs to it: under which lock, at what cost.
    pub facts: Vec<String>,
    /// A sentence of what that means.
    pub meaning: String,
}

impl Banner {
    /// The banner of several runs that are over.
    pub fn of_all(report: &Report) -> Self {
        let any = |verdict| report.asked_for().any(|run| run.verdict == verdict);
        let tone = match (any(Verdict::Violated), any(Verdict::Inconclusive)) {
            (true, _) => Tone::Violated,
            (_, true) => Tone::Inconclusive,
            _ => Tone::Correct,
        };
        Self { tone, word: report.summary(), facts: Vec::new(), meaning: String::new() }
    }

    /// The banner of a run that is over.
    pub fn of(run: &RunReport) -> Self {
        let sold = run.sold_in_words(whole);
        let strategy = run.strategy.to_string();
        let reason = run.reason();
        let why = reason.map(|check| check.name.to_string());
        let detail = reason.map_or_else(String::new, |check| format!("{}: {}", check.name, check.detail));
        let lost = match run.lost_updates() {
            0 => None,
            lost => Some(format!("{} updates lost", whole(lost))),
        };
        let first = run.series.as_ref().and_then(|series| series.counterexample.as_ref());
        let (word, facts, meaning) = match run.verdict {
            Verdict::Violated if run.oversold() > 0 => (
                format!("OVERSOLD by {}", whole(run.oversold())),
                [strategy, sold].into_iter().chain(lost).collect(),
                with_first("The orders in the database add up to more than there ever was.", first),
            ),
            Verdict::Violated if run.lost_updates() > 0 => (
                format!("VIOLATED: {}", run.violation(whole).unwrap_or_default()),
                vec![strategy, sold],
                with_first("Orders overwrote each other: the stock is not what the orders leave.", first),
            ),
            Verdict::Violated => {
                ("VIOLATED".into(), [strategy].into_iter().chain(why).chain([sold]).collect(), detail)
            }
            Verdict::Correct => (
                "CORRECT".into(),
                vec![
                    strategy,
                    format!("{} orders/s", rate(run.accepted_per_second)),
                    format!("p99 {} ms", ms(run.latency_ms.p99)),
                ],
                format!("{sold}. Every check that applies has passed, on what the database says."),
            ),
            Verdict::Inconclusive => {
                ("INCONCLUSIVE".into(), [strategy].into_iter().chain(why).chain([sold]).collect(), detail)
            }
        };
        let meaning = match run.disappointment() {
            Some(why) => format!("{why}."),
            None => meaning,
        };
        let meaning = match run.stopped {
            true => format!("Stopped before its end: the verdict is on what was done. {meaning}"),
            false => meaning,
        };
        Self { tone: run.verdict.into(), word, facts, meaning }
    }
}

/// What something means, and the first two orders that show it.
pub fn with_first(meaning: &str, first: Option<&Counterexample>) -> String {
    let first = first.map(|Counterexample { read, readers: [a, b], .. }| {
        format!(" The first: {} and {} both read {}.", a.buyer, b.buyer, whole(*read))
    });
    format!("{meaning}{}", first.unwrap_or_default())
}

/// A run in one line, as the banner says it.
pub fn headline(run: &RunReport) -> String {
    let banner = Banner::of(run);
    std::iter::once(banner.word).chain(banner.facts).collect::<Vec<_>>().join(" · ")
}

/// A banner in one short line, for a bar that is seen when the banner is not.
pub fn short(banner: &Banner) -> Markup {
    html! {
        p class={ "short " (banner.tone.class()) } aria-hidden="true" {
            (icon(banner.tone)) strong { (banner.word) }
            @if let Some(fact) = banner.facts.first() { span.dot { " · " } span { (fact) } }
        }
    }
}

/// Draws a banner: an icon, words and a colour, each of which says it alone. Its words are a heading of
/// `level`.
pub fn banner(banner: &Banner, level: u8) -> Markup {
    html! {
        div class={ "banner " (banner.tone.class()) } {
            (icon(banner.tone))
            div {
                p.headline role="heading" aria-level=(level) {
                    strong { (banner.word) }
                    @for fact in &banner.facts { span.dot aria-hidden="true" { " · " } span { (fact) } }
                }
                @if !banner.meaning.is_empty() { p.meaning { (banner.meaning) } }
            }
        }
    }
}

/// A run in a few letters that lead to it.
pub fn chip(run: &RunReport, href: &str, current: bool) -> Markup {
    let tone = Tone::from(run.verdict);
    let word = run.violation(whole).unwrap_or_else(|| run.verdict.to_string());
    html! {
        a class={ "chip " (tone.class()) } href=(href) aria-current=[current.then_some("true")] {
            (icon(tone)) b { (run.strategy) } " " (word) @if run.is_control { " (control)" }
        }
    }
}

/// A shape for each tone, so that none needs its colour.
pub fn icon(tone: Tone) -> Markup {
    html! {
        svg class={ "icon " (tone.class()) } viewBox="0 0 24 24" aria-hidden="true" focusable="false" {
            @match tone {
                Tone::Violated => {
                    path.solid d="M8 1.5h8L22.5 8v8L16 22.5H8L1.5 16V8z" {}
                    path.mark d="M8 8l8 8M16 8l-8 8" {}
                }
                Tone::Correct => {
                    circle.solid cx="12" cy="12" r="10.5" {}
                    path.mark d="M7 12.5l3.5 3.5L17 9" {}
                }
                Tone::Inconclusive => {
                    path.solid d="M12 1.5L23 21.5H1z" {}
                    path.mark d="M12 9v6M12 18v.2" {}
                }
                Tone::Running => {
                    circle.ring cx="12" cy="12" r="9" {}
                    path.turning d="M12 3a9 9 0 0 1 9 9" {}
                }
                Tone::Idle => { circle.ring cx="12" cy="12" r="9" {} path.dash d="M8 12h8" {} }
            }
        }
    }
}

/// One figure, which leads to its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    /// What it counts.
    pub label: &'static str,
    /// The figure.
    pub value: String,
    /// What goes with it.
    pub note: String,
    /// Where its evidence is.
    pub href: String,
    /// Whether it is bad.
    pub alarming: bool,
}

impl Tile {
    /// The tiles of a run that is over; `prefix` is that of its evidence's names.
    pub fn of(run: &RunReport, prefix: &str) -> [Self; 4] {
        let lost = run.lost_updates();
        let sold = (run.units_sold, run.supply.unwrap_or(run.stock), run.oversold_units, lost);
        let late = if run.generator_kept_up { "" } else { "; the generator was late" };
        Self::four(
            prefix,
            sold,
            (
                run.accepted_per_second,
                format!(
                    "over {:.1} s; at most {} ms without a sale",
                    run.availability.selling_ms / 1e3,
                    ms(run.availability.longest_gap.ms)
                ),
            ),
            (Some(run.latency_ms.p99), format!("median {} ms{late}", ms(run.latency_ms.p50))),
        )
    }

    /// The four tiles from (units sold, stock, oversold units, lost updates), orders per second, and p99.
    pub fn four(
        prefix: &str,
        (sold, stock, oversold, lost): (Option<i64>, i64, Option<i64>, u64),
        (per_second, over): (f64, String),
        (p99, median): (Option<f64>, String),
    ) -> [Self; 4] {
        let tile = |label, value, note, part: &str, alarming| Self {
            label,
            value,
            note,
            href: format!("#{prefix}{part}"),
            alarming,
        };
        let known = |units: Option<i64>| units.map_or_else(|| "unknown".into(), whole);
        let of_stock = format!("of {} in stock", whole(stock));
        let lost_tile = |alarming| match (oversold, lost) {
            // What is wrong is what is said large.
            (Some(0), 1..) => {
                tile("Lost updates", whole(lost), "no unit oversold".into(), "counterexample", true)
            }
            _ => {
                let note = format!("{} updates lost", whole(lost));
                tile("Oversold units", known(oversold), note, "counterexample", alarming)
            }
        };
        let p99 = p99.map_or_else(|| "–".into(), |p99| format!("{} ms", ms(p99)));
        [
            tile("Sold", known(sold), of_stock, "stock", sold > Some(stock)),
            lost_tile(oversold > Some(0)),
            tile("Accepted orders/s", rate(per_second), over, "throughput", false),
            tile("p99", p99, median, "latency", false),
        ]
    }
}

/// A warning where a run was too short for its speed to say much.
pub fn brevity(run: &RunReport) -> Markup {
    html! {
        @if run.is_short() {
            p.brief.inconclusive {
                (icon(Tone::Inconclusive)) " There was something to sell for "
                (format!("{:.2}", run.availability.selling_ms / 1e3))
                " s only: too short to compare speeds. The verdict stands. More stock, or a duration, \
                 makes it longer."
            }
        }
    }
}

/// Draws the tiles.
pub fn tiles(tiles: &[Tile]) -> Markup {
    html! {
        ul.tiles {
            @for tile in tiles {
                li { a.tile.alarming[tile.alarming] href=(tile.href) {
                    span.label { (tile.label) }
                    " " span.value { (tile.value) }
                    " " span.note { (tile.note) }
                } }
            }
        }
    }
}
