//! From the events of a trial to bars: who had the lock from when to when, and where two had it at once.

use std::ops::Range;

use crate::experiments::event::{Event, EventKind, Party};

/// A stretch of somebody's line, between two events by their numbers; `until` is absent where it does not
/// end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) who: Party,
    pub(super) kind: StretchKind,
    pub(super) from: usize,
    pub(super) until: Option<usize>,
}

/// What a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StretchKind {
    /// Has the lock.
    Holds,
    /// Has it with other readers.
    Shares,
    /// Is dead, and the lock does not know.
    Left,
    /// Is stopped.
    Stopped,
}

/// All stretches of a trial.
pub(super) fn stretches(events: &[Event]) -> Vec<Stretch> {
    use EventKind::{Crashed, Granted, GrantedShared, Lapsed, Paused, Released, Resumed};
    let mut all = Vec::<Stretch>::new();
    for (number, event) in events.iter().enumerate() {
        match (event.kind, &event.who, &event.to) {
            (Granted | GrantedShared, _, Some(to)) => {
                // What a dead holder has left is over when another has the lock.
                end(&mut all, number, |stretch| stretch.kind == StretchKind::Left || stretch.has(to));
                let is_shared = event.kind == GrantedShared;
                let kind = if is_shared { StretchKind::Shares } else { StretchKind::Holds };
                all.push(Stretch { who: to.clone(), kind, from: number, until: None });
            }
            (Released, Some(who), _) | (Lapsed, _, Some(who)) => {
                end(&mut all, number, |stretch| {
                    stretch.has(who) || stretch.kind == StretchKind::Left && stretch.who == *who
                });
            }
            (Crashed, Some(who), _) => {
                let had = all.iter().any(|stretch| stretch.until.is_none() && stretch.has(who));
                end(&mut all, number, |stretch| stretch.who == *who);
                if had {
                    let kind = StretchKind::Left;
                    all.push(Stretch { who: who.clone(), kind, from: number, until: None });
                }
            }
            (Paused, Some(who), _) => {
                let kind = StretchKind::Stopped;
                all.push(Stretch { who: who.clone(), kind, from: number, until: None });
            }
            (Resumed, Some(who), _) => {
                end(&mut all, number, |stretch| stretch.kind == StretchKind::Stopped && stretch.who == *who);
            }
            _ => {}
        }
    }
    all
}

impl Stretch {
    /// What of it is within a part of the trial, by the numbers of that part.
    pub(super) fn within(self, part: &Range<usize>) -> Option<Self> {
        let is_there = self.from < part.end && self.until.is_none_or(|until| until > part.start);
        is_there.then(|| Self {
            from: self.from.saturating_sub(part.start),
            until: self.until.filter(|until| *until < part.end).map(|until| until - part.start),
            ..self
        })
    }

    /// Whether this one has the lock here.
    fn has(&self, who: &Party) -> bool {
        self.who == *who && matches!(self.kind, StretchKind::Holds | StretchKind::Shares)
    }
}

fn end(all: &mut [Stretch], number: usize, which: impl Fn(&Stretch) -> bool) {
    for stretch in all.iter_mut().filter(|stretch| stretch.until.is_none() && which(stretch)) {
        stretch.until = Some(number);
    }
}

/// Two that had the lock at once, which no two may but readers, from one event to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overlap {
    pub(super) whose: [Party; 2],
    pub(super) from: usize,
    /// The number after the last event where it does not end.
    pub(super) until: usize,
}

impl Overlap {
    /// What of it is within a part of the trial, by the numbers of that part.
    pub(super) fn within(self, part: &Range<usize>) -> Option<Self> {
        let is_there = self.from < part.end && self.until > part.start;
        is_there.then(|| Self {
            from: self.from.saturating_sub(part.start),
            until: self.until.min(part.end) - part.start,
            ..self
        })
    }
}

/// All overlaps of a trial of so many events.
pub(super) fn overlaps(stretches: &[Stretch], events: usize) -> Vec<Overlap> {
    let holds = |stretch: &&Stretch| matches!(stretch.kind, StretchKind::Holds | StretchKind::Shares);
    let holds: Vec<_> = stretches.iter().filter(holds).collect();
    let mut overlaps = Vec::new();
    for (i, one) in holds.iter().enumerate() {
        for other in &holds[i + 1..] {
            let from = one.from.max(other.from);
            let until = one.until.unwrap_or(events).min(other.until.unwrap_or(events));
            let may = one.kind == StretchKind::Shares && other.kind == StretchKind::Shares;
            if from < until && one.who != other.who && !may {
                overlaps.push(Overlap { whose: [one.who.clone(), other.who.clone()], from, until });
            }
        }
    }
    overlaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, who: &str) -> Event {
        let (lock, holder) = (Party::lock("Redis"), Party::holder(who));
        let is_of_lock = matches!(kind, EventKind::Granted | EventKind::GrantedShared | EventKind::Lapsed);
        let (who, to) = if is_of_lock { (lock, Some(holder)) } else { (holder, None) };
        let what = String::new();
        Event { at_ms: 0.0, scene: None, kind, who: Some(who), to, label: String::new(), what }
    }

    fn overlapping(events: &[Event]) -> Vec<(usize, usize)> {
        let found = overlaps(&stretches(events), events.len());
        found.into_iter().map(|overlap| (overlap.from, overlap.until)).collect()
    }

    #[test]
    fn two_who_hold_at_once_overlap_and_two_who_take_turns_do_not() {
        use EventKind::{Granted, Released};
        let turns = [event(Granted, "1"), event(Released, "1"), event(Granted, "2"), event(Released, "2")];
        assert_eq!(overlapping(&turns), []);
        let both = [event(Granted, "1"), event(Granted, "2"), event(Released, "1"), event(Released, "2")];
        assert_eq!(overlapping(&both), [(1, 2)]);
        // The second one is still at it.
        assert_eq!(overlapping(&both[..2]), [(1, 2)]);
    }

    #[test]
    fn who_has_the_lock_from_before_a_part_has_it_in_the_part() {
        use EventKind::{Asked, Granted, Released};
        let events = [
            event(Granted, "1"),
            event(Asked, "2"),
            event(Granted, "2"),
            event(Released, "2"),
            event(Released, "1"),
        ];
        let all = stretches(&events);
        let part = 2..4;
        let found: Vec<_> =
            overlaps(&all, events.len()).into_iter().filter_map(|o| o.within(&part)).collect();
        assert_eq!(found.iter().map(|overlap| (overlap.from, overlap.until)).collect::<Vec<_>>(), [(0, 1)]);
        let of = |stretch: Stretch| stretch.within(&part).map(|stretch| (stretch.from, stretch.until));
        assert_eq!(all.into_iter().map(of).collect::<Vec<_>>(), [Some((0, None)), Some((0, Some(1)))]);
    }

    #[test]
    fn readers_share_and_a_writer_among_them_overlaps() {
        use EventKind::{Granted, GrantedShared};
        assert_eq!(overlapping(&[event(GrantedShared, "1"), event(GrantedShared, "2")]), []);
        assert_eq!(overlapping(&[event(GrantedShared, "1"), event(Granted, "2")]), [(1, 2)]);
    }

    #[test]
    fn a_dead_holder_overlaps_with_nobody_and_leaves_a_lock_until_the_next_one_has_it() {
        use EventKind::{Asked, Crashed, Granted, Lapsed};
        let events = [event(Granted, "1"), event(Crashed, "1"), event(Asked, "2"), event(Granted, "2")];
        assert_eq!(overlapping(&events), []);
        let left = |events: &[Event]| {
            let all = stretches(events).into_iter();
            all.filter(|stretch| stretch.kind == StretchKind::Left)
                .map(|stretch| (stretch.from, stretch.until))
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&events), [(1, Some(3))]);
        assert_eq!(left(&[event(Granted, "1"), event(Crashed, "1"), event(Lapsed, "1")]), [(1, Some(2))]);
        assert_eq!(left(&[event(Crashed, "1")]), []);
    }
}
