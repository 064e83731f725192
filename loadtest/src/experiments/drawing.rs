//! Sequence diagrams of what was recorded: lines for those who take part, time downwards, arrows for what
//! goes between them, bars for who has the lock.
//!
//! The style sheet gives the colours, so a drawing is right on light and on dark paper.

mod holds;
mod layout;
mod telling;

use std::time::Duration;

use maud::{Markup, html};

use self::holds::StretchKind;
use self::layout::{HEAD, Layout, MARGIN, Row};
use super::event::{Event, EventKind, Party, Role};

/// The width of a bar.
const BAR: f64 = 14.0;

/// The height of a line of text.
const LINE: f64 = 15.0;

/// The drawings of all trials, each with its events in words beside it. `id` is of the page's names.
pub fn diagrams(id: &str, events: &[Event]) -> Markup {
    html! {
        @for (number, trial) in events.chunk_by(|one, other| one.scene == other.scene).enumerate() {
            @let scene = trial[0].scene.as_deref();
            div.trial {
                @if let Some(scene) = scene { h4 { (scene) } }
                div.sequence {
                    @if trial.iter().any(|event| event.who.is_some()) {
                        (drawn(&format!("{id}-{number}"), scene, trial))
                    }
                    (in_words(&format!("{id}-{number}"), trial))
                }
            }
        }
    }
}

/// What the signs of a drawing mean.
pub fn legend() -> Markup {
    let sign = |class: &str| {
        html! { svg.swatch viewBox="0 0 32 12" { rect class=(class) x="1" y="1" width="30" height="10" {} } }
    };
    let line = |class: &str| {
        html! {
            svg.swatch viewBox="0 0 32 12" {
                path class={ "seq-arrow " (class) } d="M1 6H26" {}
                path class={ "seq-head " (class) } d="M31 6l-8 -4v8z" {}
            }
        }
    };
    html! {
        ul.legend aria-hidden="true" {
            li { (sign("seq-holds")) "has the lock" }
            li { (sign("seq-overlap")) "two have it at once" }
            li { (sign("seq-left")) "dead, and its lock still there" }
            li { (sign("seq-stopped")) "stopped" }
            li { (line("")) "message" }
            li { (line("seq-good")) "granted, written" }
            li { (line("seq-bad")) "refused" }
        }
    }
}

fn drawn(id: &str, scene: Option<&str>, trial: &[Event]) -> Markup {
    let part = telling::part(trial);
    let layout = Layout::of(trial, &part);
    let left_out = trial.len() - part.len();
    let name =
        scene.map_or_else(|| "Who did what when".to_owned(), |scene| format!("Who did what when: {scene}"));
    let names: Vec<_> = layout.parties.iter().map(|party| party.name.as_str()).collect();
    html! {
        div {
            div.scroll.diagram tabindex="0" role="region" aria-label={ (name) ", drawn" } {
                svg.seq role="img" aria-labelledby={ (id) "-title " (id) "-desc" }
                    viewBox=(format!("0 0 {} {}", layout.width, layout.height))
                    width={ (em(layout.width)) } height={ (em(layout.height)) } {
                    title id={ (id) "-title" } { (name) }
                    desc id={ (id) "-desc" } {
                        "Lines for " (names.join(", ")) "; " (part.len()) " events from top to bottom. "
                        (overlaps_in_words(trial)) " The list beside it has all of them in words."
                    }
                    (lifelines(&layout))
                    (bars(&layout))
                    @for row in &layout.rows { (event(&layout, row)) }
                }
            }
            @if left_out > 0 {
                p.note {
                    "Drawn are " (part.len()) " of " (trial.len()) " events: "
                    @if part.start == 0 { "the first ones." } @else { "those around the moment it is about." }
                }
            }
        }
    }
}

fn em(units: f64) -> String {
    format!("{:.2}em", units / 16.0)
}

fn overlaps_in_words(trial: &[Event]) -> String {
    let overlap = |overlap: &holds::Overlap| {
        let [one, other] = &overlap.whose;
        format!("{} and {} had the lock at the same time.", one.name, other.name)
    };
    match &holds::overlaps(&holds::stretches(trial), trial.len())[..] {
        [] => "No two had the lock at the same time.".into(),
        overlaps => overlaps.iter().map(overlap).collect::<Vec<_>>().join(" "),
    }
}

fn lifelines(layout: &Layout) -> Markup {
    html! {
        @for party in &layout.parties {
            @let x = layout.x(party);
            line.seq-life x1=(x) x2=(x) y1=(HEAD) y2=(layout.height - HEAD) {}
            @for y in [0.0, layout.height - HEAD] {
                rect class={ "seq-party " (role(party.role)) } x=(x - layout.column / 2.0 + 6.0) y=(y + 4.0)
                    width=(layout.column - 12.0) height=(HEAD - 12.0) rx="6" {}
                text.seq-name x=(x) y=(y + HEAD / 2.0 + 3.0) text-anchor="middle" { (party.name) }
            }
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Buyer => "seq-buyer",
        Role::Holder => "seq-holder",
        Role::Lock => "seq-lock",
        Role::Store => "seq-store",
    }
}

fn bars(layout: &Layout) -> Markup {
    let bar = |class: &str, who: &Party, from: usize, until: Option<usize>| {
        let (top, bottom) = (layout.y(from), layout.end(until));
        html! {
            rect class=(class) x=(layout.x(who) - BAR / 2.0) y=(top) width=(BAR)
                height=((bottom - top).max(3.0)) {}
        }
    };
    html! {
        @for overlap in &layout.overlaps {
            @let (top, bottom) = (layout.y(overlap.from), layout.end(Some(overlap.until)));
            @let [one, other] = overlap.whose.each_ref().map(|who| layout.x(who));
            rect.seq-both x=(one.min(other)) y=(top) width=((one - other).abs()) height=(bottom - top) {}
        }
        @for stretch in &layout.stretches {
            @let class = match stretch.kind {
                StretchKind::Holds => "seq-holds",
                StretchKind::Shares => "seq-shares",
                StretchKind::Left => "seq-left",
                StretchKind::Stopped => "seq-stopped",
            };
            (bar(class, &stretch.who, stretch.from, stretch.until))
        }
        @for overlap in &layout.overlaps {
            @for who in &overlap.whose { (bar("seq-overlap", who, overlap.from, Some(overlap.until))) }
        }
    }
}

fn event(layout: &Layout, row: &Row<'_>) -> Markup {
    let Event { kind, who, to, what, .. } = row.event;
    let tone = match kind {
        EventKind::Granted | EventKind::GrantedShared | EventKind::Answered | EventKind::Written => {
            "seq-good"
        }
        kind if kind.is_refusal() => "seq-bad",
        kind if kind.is_fault() => "seq-fault",
        _ => "seq-plain",
    };
    html! {
        g class={ "seq-event seq-kind-" (kind_name(*kind)) } {
            title { (what) }
            text.seq-time x=(MARGIN - 10.0) y=(row.y + 4.0) text-anchor="end" { (row.time) }
            @match (who, to) {
                (Some(who), Some(to)) if who != to => {
                    (arrow(layout.x(who), layout.x(to), row.y, tone))
                    (texts(&row.label, layout.beside(who, to, &row.label), row.y - 6.0, "middle", tone, true))
                }
                (Some(who), _) => {
                    (mark(*kind, layout.x(who), row.y, tone))
                    (texts(&row.label, layout.x(who) + 14.0, row.y + 4.0, "start", tone, false))
                }
                (None, _) => {
                    (texts(&row.label, MARGIN, row.y + 4.0, "start", tone, false))
                }
            }
        }
    }
}

/// Lines of text, that end at `y` or begin there.
fn texts(lines: &[String], x: f64, y: f64, anchor: &str, tone: &str, is_above: bool) -> Markup {
    let above = if is_above { lines.len().saturating_sub(1) as f64 * LINE } else { 0.0 };
    html! {
        @for (number, line) in lines.iter().enumerate() {
            text class={ "seq-label " (tone) } x=(x) y=(y - above + number as f64 * LINE)
                text-anchor=(anchor) { (line) }
        }
    }
}

fn arrow(from: f64, to: f64, y: f64, tone: &str) -> Markup {
    let direction = (to - from).signum();
    let (start, end) = (from + direction * BAR / 2.0, to - direction * BAR / 2.0);
    html! {
        path class={ "seq-arrow " (tone) } d=(format!("M{start:.1} {y:.1}H{:.1}", end - direction * 6.0)) {}
        path class={ "seq-head " (tone) }
            d=(format!("M{end:.1} {y:.1}l{:.1} -4.5v9z", -direction * 9.0)) {}
        @if tone == "seq-bad" {
            @let (left, top) = (start + direction * 8.0 - 4.0, y - 4.0);
            path.seq-arrow.seq-cross d=(format!("M{left:.1} {top:.1}l8 8m0 -8l-8 8")) {}
        }
    }
}

fn mark(kind: EventKind, x: f64, y: f64, tone: &str) -> Markup {
    let shape = match kind {
        EventKind::Crashed => format!("M{:.1} {:.1}l14 14m0 -14l-14 14", x - 7.0, y - 7.0),
        EventKind::Paused => format!("M{:.1} {:.1}v12m6 -12v12", x - 3.0, y - 6.0),
        EventKind::Resumed => format!("M{:.1} {:.1}l9 6l-9 6z", x - 4.0, y - 6.0),
        EventKind::Broken => format!("M{:.1} {:.1}l-5 7h9l-5 7", x + 1.0, y - 7.0),
        EventKind::Mended => format!("M{:.1} {:.1}l4 4l8 -9", x - 6.0, y),
        _ => format!("M{:.1} {y:.1}h8", x - 4.0),
    };
    html! { path class={ "seq-mark " (tone) } d=(shape) {} }
}

/// A kind as it is called in a file.
fn kind_name(kind: EventKind) -> String {
    let name = serde_json::to_value(kind).expect("it can be written as JSON");
    name.as_str().expect("it is a text").replace('_', "-")
}

fn in_words(id: &str, trial: &[Event]) -> Markup {
    let from = trial[0].at_ms;
    html! {
        div.scroll.in-words tabindex="0" role="region" aria-labelledby={ (id) "-title" } {
            table.numbers {
                thead { tr { th scope="col" { "Time" } th.left scope="col" { "What happened" } } }
                tbody {
                    @for event in trial {
                        tr class=[event.kind.is_refusal().then_some("refusal")] {
                            th scope="row" { (time(event.at_ms - from)) }
                            td.left { (event.what) }
                        }
                    }
                }
            }
        }
    }
}

/// A time as people read it.
fn time(ms: f64) -> String {
    match Duration::from_secs_f64(ms.max(0.0) / 1e3).as_millis() {
        whole if whole < 10_000 => format!("{whole} ms"),
        whole => format!("{:.1} s", whole as f64 / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use scraper::{Html, Selector};

    use super::*;

    fn event(at_ms: f64, kind: EventKind, who: Option<Party>, to: Option<Party>) -> Event {
        let (label, what) = (String::new(), format!("{kind:?} at {at_ms}"));
        Event { at_ms, scene: None, kind, who, to, label, what }
    }

    /// An event of each kind, between two, of one alone, and of nobody.
    fn of_every_kind() -> Vec<Event> {
        let (holder, lock) = (Party::holder("replica-1"), Party::lock("Redis"));
        let mut at_ms = 0.0;
        let mut events = Vec::new();
        for kind in EventKind::ALL {
            for (who, to) in [(Some(&holder), Some(&lock)), (Some(&lock), None), (None, None)] {
                at_ms += 10.0;
                events.push(event(at_ms, kind, who.cloned(), to.cloned()));
            }
        }
        events
    }

    fn numbers(page: &Html, selector: &str, attribute: &str) -> Vec<f64> {
        let selector = Selector::parse(selector).unwrap();
        let found = page.select(&selector).map(|element| element.attr(attribute));
        found.map(|number| number.unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn an_event_of_every_kind_is_drawn_and_said() {
        for kind in EventKind::ALL {
            let events: Vec<_> = of_every_kind().into_iter().filter(|event| event.kind == kind).collect();
            let page = Html::parse_fragment(&diagrams("x", &events).into_string());
            let signs = Selector::parse(&format!(".seq-kind-{} > path", kind_name(kind))).unwrap();
            assert!(page.select(&signs).count() >= 3, "{kind:?}: an arrow with its head, and a mark");
            let said = page.select(&Selector::parse(".in-words td").unwrap()).count();
            let titles = page.select(&Selector::parse(".seq-event > title").unwrap()).count();
            assert_eq!((said, titles), (3, 3), "{kind:?}");
        }
    }

    #[test]
    fn what_comes_later_stands_lower_and_a_long_wait_is_not_drawn_in_full() {
        let holder = || Some(Party::holder("replica-1"));
        let times = [0.0, 1.0, 50.0, 2_000.0, 60_000.0];
        let events: Vec<_> = times.map(|at| event(at, EventKind::Note, holder(), None)).into();
        let page = Html::parse_fragment(&diagrams("x", &events).into_string());
        let heights = numbers(&page, ".seq-time", "y");
        assert_eq!(heights.len(), times.len());
        let steps: Vec<_> = heights.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.is_sorted() && steps[0] > 0.0 && steps[3] < 200.0, "{steps:?}");
        let words: Vec<_> =
            page.select(&Selector::parse(".seq-time").unwrap()).map(|time| time.inner_html()).collect();
        assert_eq!(words, ["0 ms", "1 ms", "50 ms", "2000 ms", "60.0 s"]);
    }

    #[test]
    fn two_who_hold_at_once_are_hatched_between_the_second_grant_and_the_first_release() {
        let lock = || Some(Party::lock("Redis"));
        let holder = |number: u32| Some(Party::holder(format!("replica-{number}")));
        let granted = |at, number| event(at, EventKind::Granted, lock(), holder(number));
        let released = |at, number| event(at, EventKind::Released, holder(number), lock());
        let both = [granted(0.0, 1), granted(10.0, 2), released(20.0, 1), released(30.0, 2)];
        let page = Html::parse_fragment(&diagrams("x", &both).into_string());
        let times = numbers(&page, ".seq-time", "y");
        let tops = numbers(&page, ".seq-overlap", "y");
        let heights = numbers(&page, ".seq-overlap", "height");
        assert_eq!(tops.len(), 2, "one on each bar");
        assert!((tops[0] + 4.0 - times[1]).abs() < 1e-6 && (heights[0] - (times[2] - times[1])).abs() < 1e-6);
        let said = page.select(&Selector::parse("desc").unwrap()).next().unwrap().inner_html();
        assert!(said.contains("replica-1 and replica-2 had the lock at the same time."), "{said}");
        let turns = [granted(0.0, 1), released(10.0, 1), granted(20.0, 2), released(30.0, 2)];
        let page = diagrams("x", &turns).into_string();
        assert!(!page.contains("seq-overlap") && page.contains("No two had the lock at the same time."));
    }

    #[test]
    fn of_very_many_events_it_is_said_how_many_are_drawn() {
        let events: Vec<_> = (0..500)
            .map(|at| event(f64::from(at), EventKind::Note, Some(Party::lock("etcd")), None))
            .collect();
        let page = diagrams("x", &events).into_string();
        assert!(page.contains("Drawn are 60 of 500 events: the first ones."), "{page}");
    }
}
