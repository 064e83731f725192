//! The lock timeline: a lane for each replica; waiting is hollow, holding solid, two at once hatched.

use maud::{Markup, html};
use order_service::config::StrategyName;

use super::charts::{axis, framed, unfolded};
use super::figures::{ms, whole};
use crate::faults::FaultMark;
use crate::report::Strategy;
use crate::series::{HoldSpan, Locks, ReplicaLane, Series};

/// Where a lane's parts are from top to bottom, in pixels.
const HEIGHT: u32 = 22;

/// The lock timeline of a run.
pub fn section(strategy: &Strategy, series: &Series, marks: &[FaultMark], prefix: &str) -> Markup {
    let Some(locks) = &series.locks else {
        return without(prefix, "Who had the lock when is not known: the replicas run on another host.");
    };
    if locks.lanes.iter().all(|lane| lane.total == 0) {
        return without(
            prefix,
            &match strategy {
                Strategy::Known(StrategyName::None) => {
                    "There are no holds and no waiting: under none there is no lock.".into()
                }
                Strategy::Known(StrategyName::Row) => {
                    "Under row the database locks the product's row itself; there is no other lock.".into()
                }
                Strategy::Known(StrategyName::Optimistic) => {
                    "Under optimistic there is no holder: a stale write is refused.".into()
                }
                _ => format!("The replicas have recorded no hold of the lock {strategy}."),
            },
        );
    }
    let overlaps = match locks.overlapping {
        0 => "No two replicas had the lock at the same time.".into(),
        count => format!(
            "{} holds overlapped another; the check no-overlapping-holds says what came of that.",
            whole(count as u64)
        ),
    };
    let forgotten = match locks.forgotten {
        0 => String::new(),
        count => format!(" {} older holds are no longer remembered.", whole(count)),
    };
    let [from, to] = locks.close_up_ms;
    let caption = format!("{overlaps}{forgotten}");
    let body = html! {
        ul.legend aria-hidden="true" {
            li { (swatch("waiting")) "waiting" }
            li { (swatch("holding")) "holding" }
            li { (swatch("overlap")) "two at once" }
        }
        (lanes(&locks.lanes, [0.0, axis(series) * 1e3], marks, &overlaps))
        h3 { "Close up: " (ms(from)) " to " (ms(to)) " ms" }
        (lanes(&locks.close_up, [from, to], &[], "The same, of one moment, with every hold of it."))
        (unfolded(&format!("{prefix}locks-numbers"), "The holds of the close-up", &numbers(locks)))
    };
    framed(prefix, "locks", "Who had the lock when", &caption, &body)
}

fn without(prefix: &str, why: &str) -> Markup {
    framed(prefix, "locks", "Who had the lock when", why, &html! {})
}

fn swatch(class: &str) -> Markup {
    html! { svg.swatch viewBox="0 0 32 12" { (rectangle(class, 1.0, 98.0, 1, 10)) } }
}

fn lanes(lanes: &[ReplicaLane], [from, to]: [f64; 2], marks: &[FaultMark], description: &str) -> Markup {
    let at = |ms: f64| ((ms - from) / (to - from)).clamp(0.0, 1.0) * 100.0;
    html! {
        div.lanes role="img" aria-label={ "Lock timeline. " (description) } {
            @for lane in lanes {
                p.lane-name {
                    b { (lane.replica) } " "
                    span.note {
                        "showing " (whole(lane.holds.len() as u64)) " of " (whole(lane.total as u64))
                    }
                }
                svg.lane width="100%" height=(HEIGHT + 2) {
                    @for mark in marks.iter().filter(|mark| mark.affects(&lane.replica)) {
                        @let (start, end) = (at(mark.at_ms), at(mark.until_ms.unwrap_or(mark.at_ms)));
                        (rectangle("fault", start, (end - start).max(0.1), 0, HEIGHT + 2))
                    }
                    line.base x1="0" x2="100%" y1=(HEIGHT) y2=(HEIGHT) {}
                    @for hold in &lane.holds { (block(hold, at, to)) }
                }
            }
            p.ends.note { span { (ms(from)) " ms" } span { (ms(to)) " ms" } }
        }
    }
}

fn block(hold: &HoldSpan, at: impl Fn(f64) -> f64, end: f64) -> Markup {
    let (asked, acquired) = (at(hold.asked_ms), at(hold.acquired_ms));
    let released = at(hold.released_ms.unwrap_or(end));
    let class = if hold.overlaps { "overlap" } else { "holding" };
    html! {
        g {
            title { (words(hold)) }
            @if acquired - asked > 0.02 { (rectangle("waiting", asked, acquired - asked, 8, HEIGHT - 8)) }
            (rectangle(class, acquired, released - acquired, 1, HEIGHT - 1))
        }
    }
}

fn rectangle(class: &str, x: f64, width: f64, y: u32, height: u32) -> Markup {
    let percent = |value: f64| format!("{value:.2}%");
    html! { rect class=(class) x=(percent(x)) y=(y) width=(percent(width.max(0.02))) height=(height) {} }
}

fn words(hold: &HoldSpan) -> String {
    let token =
        hold.token.map_or_else(|| "no fencing token".into(), |token| format!("fencing token {token}"));
    let held = hold.released_ms.map_or_else(
        || "never released".into(),
        |released| format!("held {} ms", precise(released - hold.acquired_ms)),
    );
    let stale = match hold.stale {
        0 => String::new(),
        count => format!(", {count} stale writes refused"),
    };
    let waited = precise(hold.acquired_ms - hold.asked_ms);
    format!("{token}: waited {waited} ms, {held}{stale}")
}

fn numbers(locks: &Locks) -> Markup {
    html! {
        table.numbers {
            thead { tr {
                @for column in ["replica", "token", "asked ms", "acquired ms", "released ms", "overlaps"] {
                    th scope="col" { (column) }
                }
            } }
            tbody {
                @for lane in &locks.close_up {
                    @for hold in &lane.holds {
                        tr {
                            th scope="row" { (lane.replica) }
                            td { @if let Some(token) = hold.token { (token) } @else { "–" } }
                            td { (precise(hold.asked_ms)) }
                            td { (precise(hold.acquired_ms)) }
                            td {
                                @if let Some(released) = hold.released_ms { (precise(released)) }
                                @else { "–" }
                            }
                            td { @if hold.overlaps { "yes" } @else { "no" } }
                        }
                    }
                }
            }
        }
    }
}

fn precise(ms: f64) -> String {
    format!("{ms:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_one_replica_shades_its_lane_alone() {
        let lane =
            |number: u32| ReplicaLane { replica: format!("replica-{number}"), ..ReplicaLane::default() };
        let mark = |replica| FaultMark {
            at_ms: 10.0,
            until_ms: Some(20.0),
            what: "something".into(),
            replica,
            costs_leases: true,
        };
        let shaded = |mark: FaultMark| {
            let drawn = lanes(&[lane(1), lane(2), lane(3)], [0.0, 100.0], &[mark], "").into_string();
            let lanes: Vec<_> = drawn.split("lane-name").skip(1).collect();
            lanes.iter().map(|lane| lane.contains("class=\"fault\"")).collect::<Vec<_>>()
        };
        assert_eq!(shaded(mark(Some(1))), [false, true, false]);
        assert_eq!(shaded(mark(None)), [true, true, true]);
    }
}
