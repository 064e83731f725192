//! The lock timeline: a lane for each replica; waiting is hollow, holding solid, two at once hatched.

use maud::{Markup, html};
use order_service::config::StrategyName;
use serde_json::json;

use super::charts::{axis, framed, unfolded};
use super::cursor::tenths;
use super::figures::{ms, seconds, whole};
use crate::faults::FaultMark;
use crate::report::{RunReport, Strategy};
use crate::series::{Encounter, Heard, HoldSpan, LiveLocks, Locks, ReplicaLane, Series};
use crate::verdict::CheckName;

/// Where a lane's parts are from top to bottom, in pixels.
const HEIGHT: u32 = 22;

/// After how long without an answer it is said that a replica's lock is not known, in milliseconds.
const SILENT_MS: f64 = 500.0;

/// The lock timeline of a run, with what came of holds that overlapped.
pub fn section(run: &RunReport, series: &Series, prefix: &str) -> Markup {
    let check = run.checks.iter().find(|check| check.name == CheckName::NoOverlappingHolds);
    let outcome = check.map_or("", |check| &check.detail);
    timeline(&run.strategy, series, &run.faults, outcome, prefix)
}

/// The same of a strategy; `outcome` is what came of holds that overlapped.
pub(super) fn timeline(
    strategy: &Strategy,
    series: &Series,
    marks: &[FaultMark],
    outcome: &str,
    prefix: &str,
) -> Markup {
    let Some(locks) = &series.locks else {
        return without(prefix, "Who had the lock when is not known: the replicas run on another host.");
    };
    if locks.lanes.iter().all(|lane| lane.total == 0) {
        return without(prefix, &no_holds(strategy));
    }
    let overlaps = match locks.overlapping {
        0 => "No two replicas had the lock at the same time.".into(),
        count => format!(
            "{} holds overlapped another. What came of that: {}.",
            whole(count as u64),
            outcome.trim_end_matches('.')
        ),
    };
    let forgotten = match locks.forgotten {
        0 => String::new(),
        count => format!(" {} older holds are no longer remembered.", whole(count)),
    };
    let [from, to] = locks.close_up_ms;
    let caption = format!("{overlaps}{forgotten}");
    let until = [0.0, axis(series) * 1e3];
    let body = html! {
        (legend(false))
        (lanes(&locks.lanes, until, &Beside { marks, ..Beside::default() }, &overlaps))
        h3 { "Close up: " (ms(from)) " to " (ms(to)) " ms" }
        (lanes(&locks.close_up, [from, to], &Beside::default(), CLOSE_UP))
        (unfolded(&format!("{prefix}locks-numbers"), "The holds of the close-up", &numbers(locks)))
    };
    framed(prefix, "locks", "Who had the lock when", &caption, &body)
}

/// The same while the run goes on: `live` is what the replicas have said so far, of which nothing is known
/// before they have answered.
pub fn live(
    strategy: StrategyName,
    live: Option<&LiveLocks>,
    elapsed_ms: f64,
    marks: &[FaultMark],
) -> Markup {
    if !strategy.has_lock() {
        return without("", &no_holds(&strategy.into()));
    }
    let Some(live) = live.filter(|live| live.heard().iter().any(|heard| heard.at_ms.is_some())) else {
        return without("", "Not known yet: the replicas have not said so far who has the lock.");
    };
    let (locks, heard) = (live.locks(), live.heard());
    let silent = |heard: &&Heard| elapsed_ms - heard.at_ms.unwrap_or_default() > SILENT_MS;
    let unknown: Vec<_> =
        heard.iter().map(|one| silent(&one).then(|| one.at_ms.unwrap_or_default())).collect();
    let last_heard: Vec<_> = heard.iter().map(|one| one.at_ms.unwrap_or_default()).collect();
    let until = [0.0, elapsed_ms.max(100.0)];
    let [from, to] = locks.close_up_ms;
    let overlaps = match live.encounter() {
        None => "So far no two replicas were seen to have the lock at the same time.".into(),
        Some(encounter) => {
            format!("{} holds overlapped another so far. {}", whole(locks.overlapping as u64), met(encounter))
        }
    };
    let body = html! {
        p.now { (now(&heard, &unknown)) }
        (legend(true))
        (lanes(&locks.lanes, until, &Beside { marks, unknown: &unknown, heard: &last_heard }, &overlaps))
        h3 { "The latest holds: " (ms(from)) " to " (ms(to)) " ms" }
        (lanes(&locks.close_up, [from, to], &Beside { heard: &last_heard, ..Beside::default() }, CLOSE_UP))
    };
    framed("", "locks", "Who has the lock", &overlaps, &body)
}

/// Who has the lock now, as far as is known.
fn now(heard: &[Heard], unknown: &[Option<f64>]) -> Markup {
    let replica =
        |number: usize| heard[number].replica.clone().unwrap_or_else(|| format!("replica-{}", number + 1));
    let is_known = |number: &usize| unknown[*number].is_none();
    let holding: Vec<_> = (0..heard.len())
        .filter(is_known)
        .filter_map(|number| Some((number, heard[number].holding.as_ref()?)))
        .collect();
    // The replicas are asked one after the other. An older hold is known to have lasted until its replica was
    // heard, and no longer: most often it has ended, which is not known yet.
    let newest = holding.iter().map(|(_, hold)| hold.acquired_ms).fold(f64::NEG_INFINITY, f64::max);
    let still = |&(number, hold): &(usize, &HoldSpan)| {
        hold.acquired_ms >= newest || heard[number].at_ms.is_some_and(|heard_ms| newest < heard_ms)
    };
    let holding: Vec<_> = holding
        .into_iter()
        .filter(still)
        .map(|(number, hold)| format!("{}{}", replica(number), token(hold)))
        .collect();
    let silent: Vec<_> = (0..heard.len()).filter(|number| !is_known(number)).collect();
    html! {
        b { "Now: " }
        @match &holding[..] {
            [] if silent.is_empty() => "nobody had the lock when the replicas were asked last.",
            [] => "no replica that answers has the lock.",
            [one] => { (one) " has the lock." }
            several => { strong.alarm { (several.join(" and ")) " have the lock at once." } }
        }
        @for number in silent {
            " " span.unknown-words {
                (replica(number)) ": not known since " (seconds(unknown[number].unwrap_or_default())) " s, "
                (heard[number].trouble.as_deref().unwrap_or("it has not answered")) "."
            }
        }
    }
}

fn met(Encounter { at_ms, holders: [(a, first), (b, second)] }: &Encounter) -> String {
    format!(
        "The first: {a}{} still had it at {} s, when {b}{} got it.",
        token(first),
        seconds(*at_ms),
        token(second)
    )
}

fn token(hold: &HoldSpan) -> String {
    hold.token.map_or_else(String::new, |token| format!(" (fencing token {token})"))
}

fn no_holds(strategy: &Strategy) -> String {
    match strategy {
        Strategy::Known(StrategyName::None) => {
            "There are no holds and no waiting: under none there is no lock, so nobody has it.".into()
        }
        Strategy::Known(StrategyName::Row) => {
            "Under row the database locks the product's row itself; there is no other lock.".into()
        }
        Strategy::Known(StrategyName::Optimistic) => {
            "Under optimistic there is no holder: a stale write is refused.".into()
        }
        _ => format!("The replicas have recorded no hold of the lock {strategy}."),
    }
}

fn legend(live: bool) -> Markup {
    html! {
        ul.legend aria-hidden="true" {
            li { (swatch("waiting")) "waiting" }
            li { (swatch("holding")) "holding" }
            li { (swatch("overlap")) "two at once" }
            @if live { li { (swatch("unknown")) "not known" } }
        }
    }
}

fn without(prefix: &str, why: &str) -> Markup {
    framed(prefix, "locks", "Who had the lock when", why, &html! {})
}

fn swatch(class: &str) -> Markup {
    html! { svg.swatch viewBox="0 0 32 12" { (rectangle(class, 1.0, 98.0, 1, 10)) } }
}

/// What a close-up is.
const CLOSE_UP: &str = "The same, of one moment, with every hold of it.";

/// What is drawn beside the holds.
#[derive(Default)]
struct Beside<'a> {
    marks: &'a [FaultMark],
    /// From when on each lane is not known, where it is not.
    unknown: &'a [Option<f64>],
    /// When each lane's replica was last heard, while the run goes on: until then a hold is known to last.
    heard: &'a [f64],
}

fn lanes(lanes: &[ReplicaLane], [from, to]: [f64; 2], beside: &Beside<'_>, description: &str) -> Markup {
    let at = |ms: f64| ((ms - from) / (to - from)).clamp(0.0, 1.0) * 100.0;
    let unknown = |number: usize| beside.unknown.get(number).copied().flatten();
    let heard = |number: usize| beside.heard.get(number).copied();
    let known: Vec<_> = lanes
        .iter()
        .enumerate()
        .map(|(number, lane)| of_cursor(lane, heard(number), unknown(number).is_some()))
        .collect();
    html! {
        div.lanes role="img" aria-label={ "Lock timeline. " (description) } data-from=(tenths(from))
            data-to=(tenths(to)) data-holds=(json!(known)) {
            @for (number, lane) in lanes.iter().enumerate() {
                p.lane-name {
                    b { (lane.replica) } " "
                    span.note {
                        "showing " (whole(lane.holds.len() as u64)) " of " (whole(lane.total as u64))
                    }
                }
                svg.lane width="100%" height=(HEIGHT + 2) {
                    @for mark in beside.marks.iter().filter(|mark| mark.affects(&lane.replica)) {
                        @let (start, end) = (at(mark.at_ms), at(mark.until_ms.unwrap_or(mark.at_ms)));
                        (rectangle("fault", start, (end - start).max(0.1), 0, HEIGHT + 2))
                    }
                    line.base x1="0" x2="100%" y1=(HEIGHT) y2=(HEIGHT) {}
                    @for hold in &lane.holds {
                        @let end = |lane: usize| heard(lane).unwrap_or(to);
                        (block(hold, &meetings(hold, number, lanes, end), at, end(number)))
                    }
                    @if let Some(since) = unknown(number) {
                        (rectangle("unknown", at(since), 100.0 - at(since), 0, HEIGHT + 1))
                    }
                }
            }
            p.ends.note { span { (ms(from)) " ms" } span { (ms(to)) " ms" } }
        }
    }
}

/// The holds of a lane for the cursor: when each was acquired and released, and its token; until when they
/// are known, while the run goes on; and whether the replica has been silent for long since.
fn of_cursor(lane: &ReplicaLane, until: Option<f64>, silent: bool) -> serde_json::Value {
    let hundredths = |ms: f64| (ms * 100.0).round() / 100.0;
    let span =
        |hold: &HoldSpan| json!([hundredths(hold.acquired_ms), hold.released_ms.map(hundredths), hold.token]);
    let holds: Vec<_> = lane.holds.iter().map(span).collect();
    let whole = lane.total == holds.len();
    let until = until.map(hundredths);
    json!({ "replica": lane.replica, "whole": whole, "until": until, "silent": silent, "holds": holds })
}

/// When a hold of a lane that overlaps another did so, as far as the others are shown; all of it where none
/// is.
/// A hold that lasts ends at its lane's `end`.
fn meetings(
    hold: &HoldSpan,
    number: usize,
    lanes: &[ReplicaLane],
    end: impl Fn(usize) -> f64,
) -> Vec<[f64; 2]> {
    if !hold.overlaps {
        return Vec::new();
    }
    let own = [hold.acquired_ms, hold.released_ms.unwrap_or(end(number))];
    let mut met = Vec::new();
    for (other, lane) in lanes.iter().enumerate().filter(|(other, _)| *other != number) {
        // Within a lane, holds come one after the other.
        let begun = lane.holds.partition_point(|hold| hold.acquired_ms < own[1]);
        let spans = lane.holds[..begun].iter().rev();
        let spans = spans.map(|hold| [hold.acquired_ms, hold.released_ms.unwrap_or(end(other))]);
        let common = |[from, until]: [f64; 2]| [from.max(own[0]), until.min(own[1])];
        met.extend(spans.take_while(|[_, until]| *until > own[0]).map(common));
    }
    if met.is_empty() { vec![own] } else { met }
}

fn block(hold: &HoldSpan, meetings: &[[f64; 2]], at: impl Fn(f64) -> f64, end: f64) -> Markup {
    let (asked, acquired) = (at(hold.asked_ms), at(hold.acquired_ms));
    let released = at(hold.released_ms.unwrap_or(end));
    html! {
        g {
            title { (words(hold)) }
            @if acquired - asked > 0.02 { (rectangle("waiting", asked, acquired - asked, 8, HEIGHT - 8)) }
            (rectangle("holding", acquired, released - acquired, 1, HEIGHT - 1))
            @for [from, until] in meetings {
                (rectangle("overlap", at(*from), at(*until) - at(*from), 1, HEIGHT - 1))
            }
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
    fn of_two_holds_that_overlap_the_common_time_is_hatched() {
        let hold = |acquired_ms: f64, released_ms: f64, overlaps: bool| HoldSpan {
            asked_ms: acquired_ms,
            acquired_ms,
            released_ms: Some(released_ms),
            token: None,
            overlaps,
            stale: 0,
        };
        let lane = |holds: &[HoldSpan]| ReplicaLane { holds: holds.to_vec(), ..ReplicaLane::default() };
        let paused = hold(10.0, 50.0, true);
        let lanes = [
            lane(std::slice::from_ref(&paused)),
            lane(&[hold(0.0, 9.0, false), hold(30.0, 40.0, true), hold(45.0, 60.0, true)]),
            lane(&[]),
        ];
        let met = |hold: &HoldSpan, number| meetings(hold, number, &lanes, |_| 100.0);
        assert_eq!(met(&paused, 0), [[45.0, 50.0], [30.0, 40.0]]);
        assert_eq!(met(&lanes[1].holds[0], 1), [[0.0; 2]; 0]);
        assert_eq!(met(&lanes[1].holds[2], 1), [[45.0, 50.0]]);
        // With one that is not shown.
        assert_eq!(met(&hold(70.0, 80.0, true), 0), [[70.0, 80.0]]);
    }

    #[test]
    fn a_hold_that_has_ended_unheard_is_not_had_at_once_with_a_later_one() {
        let heard = |number: usize, at_ms: f64, acquired_ms: Option<f64>| Heard {
            replica: Some(format!("replica-{number}")),
            at_ms: Some(at_ms),
            holding: acquired_ms.map(|acquired_ms| HoldSpan {
                asked_ms: acquired_ms,
                acquired_ms,
                released_ms: None,
                token: None,
                overlaps: false,
                stale: 0,
            }),
            trouble: None,
        };
        let said = |of: [Heard; 2]| now(&of, &[None, None]).into_string();
        let turns = said([heard(1, 15.0, Some(10.0)), heard(2, 48.0, Some(20.0))]);
        assert!(turns.contains("replica-2 has the lock.") && !turns.contains("replica-1"), "{turns}");
        let both = said([heard(1, 25.0, Some(10.0)), heard(2, 48.0, Some(20.0))]);
        assert!(both.contains("replica-1 and replica-2 have the lock at once."), "{both}");
        assert!(said([heard(1, 25.0, None), heard(2, 48.0, None)]).contains("nobody"));
    }

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
            let beside = Beside { marks: &[mark], ..Beside::default() };
            let drawn = lanes(&[lane(1), lane(2), lane(3)], [0.0, 100.0], &beside, "").into_string();
            let lanes: Vec<_> = drawn.split("lane-name").skip(1).collect();
            lanes.iter().map(|lane| lane.contains("class=\"fault\"")).collect::<Vec<_>>()
        };
        assert_eq!(shaded(mark(Some(1))), [false, true, false]);
        assert_eq!(shaded(mark(None)), [true, true, true]);
    }
}
