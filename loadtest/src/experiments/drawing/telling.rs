//! Of a trial with very many events, the part that tells what the trial is about.

use std::ops::Range;

use super::holds::{overlaps, stretches};
use crate::experiments::event::{Event, EventKind};

/// The most events that a drawing can show and still be read.
const MOST: usize = 60;

/// How many of them come before the moment that it is about.
const BEFORE: usize = 15;

/// Which events are drawn: all, or those around the first moment in which two had the lock, a stale write was
/// refused or something broke, or the first ones.
pub(super) fn part(events: &[Event]) -> Range<usize> {
    if events.len() <= MOST {
        return 0..events.len();
    }
    let overlap = overlaps(&stretches(events), events.len()).first().map(|overlap| overlap.from);
    let first = |wanted: fn(&Event) -> bool| events.iter().position(wanted);
    let moment = overlap
        .or_else(|| first(|event| event.kind == EventKind::StaleRefused))
        .or_else(|| first(|event| event.kind.is_fault()))
        .unwrap_or(0);
    let from = moment.saturating_sub(BEFORE).min(events.len() - MOST);
    from..from + MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_thousands_of_events_those_around_the_fault_are_drawn() {
        let event = |kind| Event {
            at_ms: 0.0,
            scene: None,
            kind,
            who: None,
            to: None,
            label: String::new(),
            what: String::new(),
        };
        let mut events = vec![event(EventKind::Note); 1000];
        assert_eq!(part(&events), 0..MOST);
        events[500].kind = EventKind::Broken;
        assert_eq!(part(&events), 500 - BEFORE..500 - BEFORE + MOST);
        events[500].kind = EventKind::Note;
        events[999].kind = EventKind::Broken;
        assert_eq!(part(&events), 1000 - MOST..1000);
        assert_eq!(part(&events[..10]), 0..10);
    }
}
