//! What the first page shows of a run that goes on.

use maud::{Markup, html};

use super::shown::Shown;
use crate::dashboard::state::Live;
use crate::report::html::bar::Jump;
use crate::report::html::figures::{ms, seconds, whole};
use crate::report::html::verdict::{Banner, Tile, Tone, tiles, with_first};
use crate::report::html::{charts, lanes, proof};
use crate::series::LiveLocks;

/// The charts that there will be.
const CHARTS: [(&str, &str); 3] =
    [("stock", "Stock"), ("throughput", "Answers per second"), ("latency", "Latency in ms")];

/// How much longer a run is when its charts are drawn again, in milliseconds. Much shorter ones are not seen.
const DRAWN_EVERY_MS: f64 = 190.0;

/// A run that goes on: what is known of it, and what is not known yet.
pub(super) fn shown(live: &Live) -> Shown {
    Shown {
        banner: banner_of(live),
        under: html! {},
        tiles: tiles(&tiles_of(live)),
        evidence: [charts_of(live), lanes_of(live), faults_of(live)],
        proof: proof_of(live),
        jumps: jumps_of(live),
    }
}

/// No figures that change are in these words: they are read out whenever they do.
fn banner_of(live: &Live) -> Banner {
    let lost = live.series.lost_updates;
    let first = live.series.counterexample.as_ref();
    let strategy = live.strategy.to_string();
    let (tone, word, facts, meaning) = if live.oversold > 0 {
        let meaning = with_first("More is confirmed already than there ever was.", first);
        (Tone::Violated, "OVERSOLD so far", vec![strategy], meaning)
    } else if lost > 0 {
        let meaning =
            with_first("Orders overwrite each other: updates of the stock are lost already.", first);
        (Tone::Violated, "VIOLATED so far", vec![strategy, "updates lost".into()], meaning)
    } else if live.elapsed_ms().is_none() {
        let meaning = "The replicas and what they need are being started.".into();
        (Tone::Running, "Starting", vec![strategy], meaning)
    } else {
        let meaning = "The verdict comes from the database, at the end.".into();
        (Tone::Running, "Running", vec![strategy, "so far no violation".into()], meaning)
    };
    Banner { tone, word: word.into(), facts, meaning }
}

fn tiles_of(live: &Live) -> [Tile; 4] {
    let span = live.series.span_ms() / 1e3;
    let per_second = if span > 0.0 { live.total.accepted as f64 / span } else { 0.0 };
    let of = live.scenario.orders().map_or_else(String::new, |orders| format!(" of {}", whole(orders)));
    let answered = format!("{}{of} answered in {span:.1} s", whole(live.progress.done()));
    let latest = live.series.intervals.iter().rev().find_map(|interval| interval.latency_ms);
    let median =
        latest.map_or_else(String::new, |latency| format!("just now; median {} ms", ms(latency.p50)));
    let sold = (Some(live.sold()), live.supply, Some(live.oversold), live.series.lost_updates);
    Tile::four("", sold, (per_second, answered), (latest.map(|latency| latency.p99), median))
}

/// The charts, which take longer to draw than all the rest: not each time.
fn charts_of(live: &Live) -> Markup {
    let span_ms = live.series.span_ms();
    let mut drawn = live.drawn.borrow_mut();
    match &*drawn {
        Some((of, markup)) if span_ms - of < DRAWN_EVERY_MS => markup.clone(),
        _ => {
            let markup = draw_charts(live);
            *drawn = Some((span_ms, markup.clone()));
            markup
        }
    }
}

fn draw_charts(live: &Live) -> Markup {
    html! {
        @if live.series.span_ms() > 0.0 {
            (charts::all(&live.series, &live.faults.marks(), &Default::default(), ""))
        } @else {
            @for (name, title) in CHARTS {
                figure.card id=(name) tabindex="-1" {
                    h2 { (title) } p.note { "Not known yet: no order was sent." }
                }
            }
        }
    }
}

fn lanes_of(live: &Live) -> Markup {
    let locks = live.followed.as_ref().map(|followed| followed.locks());
    let locks = locks.as_ref().and_then(|locks| locks.as_ref());
    lanes::live(live.strategy, locks, live.elapsed_ms().unwrap_or_default(), &live.faults.marks())
}

/// The faults so far.
fn faults_of(live: &Live) -> Markup {
    let marks = live.faults.marks();
    html! {
        @if !marks.is_empty() {
            section.card #faults {
                h2 { "Faults so far" }
                ol.faults {
                    @for mark in &marks {
                        li {
                            (seconds(mark.at_ms)) " s"
                            @if let Some(until) = mark.until_ms { " to " (seconds(until)) " s" }
                            ": " (mark.what)
                        }
                    }
                }
            }
        }
    }
}

fn proof_of(live: &Live) -> Markup {
    let (oversold, lost) = (live.oversold, live.series.lost_updates);
    let locks = live.followed.as_ref().map(|followed| followed.locks());
    let locks = locks.as_ref().and_then(|locks| locks.as_ref());
    let overlapping = locks.map_or(0, LiveLocks::overlapping);
    let mut found = vec![
        match oversold {
            0 => (false, "not-oversold", "no more is confirmed than there is".to_owned()),
            units => {
                (true, "not-oversold", format!("{} units more are confirmed than there are", whole(units)))
            }
        },
        match lost {
            0 => (false, "no-duplicate-reads", "no two answers read the same".to_owned()),
            lost => (true, "no-duplicate-reads", format!("{} updates of the stock are lost", whole(lost))),
        },
    ];
    if live.strategy.has_lock() {
        let words = match (locks, overlapping) {
            (None, _) => "not known yet: the replicas have not been heard".into(),
            (Some(_), 0) => "no two replicas were seen to have the lock at once".into(),
            (Some(_), holds) => {
                format!("{} holds overlap another; what came of it is known at the end", whole(holds as u64))
            }
        };
        found.push((false, "no-overlapping-holds", words));
    }
    proof::so_far(lost, live.series.counterexample.as_ref(), &found)
}

fn jumps_of(live: &Live) -> Vec<Jump> {
    let mut jumps = vec![("stock", "Stock"), ("latency", "Latency"), ("locks", "Lock")];
    if !live.faults.marks().is_empty() {
        jumps.push(("faults", "Faults"));
    }
    jumps.extend([("counterexample", "Counterexample"), ("checks", "Checks")]);
    jumps.into_iter().map(|(anchor, name)| (anchor.into(), name.into())).collect()
}
