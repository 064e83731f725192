//! Where everything of a drawing is.

use std::ops::Range;

use textwrap::wrap;

use super::holds::{Overlap, Stretch, overlaps, stretches};
use super::{BAR, LINE, time};
use crate::experiments::event::{Event, Party};

/// The distance between two lines, of few and of many.
const COLUMNS: [f64; 2] = [150.0, 112.0];

/// More lines than that are many.
const FEW: usize = 6;

/// The room for the times.
pub(super) const MARGIN: f64 = 74.0;

/// The height of the row of names, above and below.
pub(super) const HEAD: f64 = 42.0;

/// The least distance between two events.
const ROW: f64 = 30.0;

/// The most that a wait adds to it.
const WAIT: f64 = 60.0;

/// The width of a letter, on average.
const LETTER: f64 = 7.0;

/// A drawing's places.
pub(super) struct Layout<'a> {
    pub(super) parties: Vec<Party>,
    pub(super) rows: Vec<Row<'a>>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) overlaps: Vec<Overlap>,
    /// The distance between two lines.
    pub(super) column: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// An event's place.
pub(super) struct Row<'a> {
    pub(super) event: &'a Event,
    pub(super) y: f64,
    /// When, as people read it.
    pub(super) time: String,
    /// The label, in lines.
    pub(super) label: Vec<String>,
}

impl<'a> Layout<'a> {
    /// A part of a trial's events, with what lasts from before it.
    pub(super) fn of(trial: &'a [Event], part: &Range<usize>) -> Self {
        let (from, events) = (trial[0].at_ms, &trial[part.clone()]);
        let stretches = stretches(trial);
        let overlaps = overlaps(&stretches, trial.len());
        let stretches: Vec<_> = stretches.into_iter().filter_map(|stretch| stretch.within(part)).collect();
        let mut parties: Vec<Party> = Vec::new();
        let lasting = stretches.iter().map(|stretch| &stretch.who);
        for party in events.iter().flat_map(|event| event.who.iter().chain(&event.to)).chain(lasting) {
            if !parties.contains(party) {
                parties.push(party.clone());
            }
        }
        // Within a role, in the order of their names, as people count: `waiter 2` before `waiter 10`.
        parties.sort_by_key(|party| {
            let name = party.name.trim_end_matches(|letter: char| letter.is_ascii_digit());
            (party.role, name.to_owned(), party.name.len(), party.name.clone())
        });
        let column = COLUMNS[usize::from(parties.len() > FEW)];
        let columns = parties.len().max(2) as f64;
        // The last line's marks have their words on its right.
        let width = MARGIN + columns * column + column / 2.0;
        let mut layout = Self {
            parties,
            rows: Vec::new(),
            stretches,
            overlaps: overlaps.into_iter().filter_map(|overlap| overlap.within(part)).collect(),
            column,
            width,
            height: 0.0,
        };
        let mut y = HEAD;
        let mut last = events.first().map_or(from, |event| event.at_ms);
        for event in events {
            let label = layout.label(event);
            let lines = label.len().max(1) as f64 - 1.0;
            let is_arrow = event.who.is_some() && event.to.is_some();
            y += ROW + wait(event.at_ms - last) + if is_arrow { lines * LINE } else { 0.0 };
            layout.rows.push(Row { event, y, time: time(event.at_ms - from), label });
            y += if is_arrow { 0.0 } else { lines * LINE };
            last = event.at_ms;
        }
        layout.height = y + ROW + HEAD;
        layout
    }

    /// The place of somebody's line.
    pub(super) fn x(&self, party: &Party) -> f64 {
        let place = self.parties.iter().position(|other| other == party).unwrap_or_default();
        MARGIN + (place as f64 + 0.5) * self.column
    }

    /// The middle of an arrow's label. A short one stands beside the sender, where no other line is crossed.
    pub(super) fn beside(&self, who: &Party, to: &Party, label: &[String]) -> f64 {
        let (from, until) = (self.x(who), self.x(to));
        let longest = label.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        match longest as f64 * LETTER < self.column - BAR {
            true => from + (until - from).signum() * self.column / 2.0,
            false => (from + until) / 2.0,
        }
    }

    /// The place of an event, by its number.
    pub(super) fn y(&self, number: usize) -> f64 {
        self.rows.get(number).map_or(self.height - HEAD, |row| row.y)
    }

    /// Where a stretch ends.
    pub(super) fn end(&self, until: Option<usize>) -> f64 {
        until.map_or(self.height - HEAD, |number| self.y(number))
    }

    fn label(&self, event: &Event) -> Vec<String> {
        let text = if event.label.is_empty() { &event.what } else { &event.label };
        let room = match (&event.who, &event.to) {
            (Some(who), Some(to)) if who != to => (self.x(who) - self.x(to)).abs() - 24.0,
            (Some(_), _) => self.column - 20.0,
            (None, _) => self.width - MARGIN - 16.0,
        };
        wrap(text, (room / LETTER) as usize).into_iter().map(String::from).collect()
    }
}

/// What a wait of so many milliseconds adds: longer ones more, but by far not in proportion.
fn wait(ms: f64) -> f64 {
    (12.0 * (1.0 + ms.max(0.0) / 20.0).ln()).min(WAIT)
}
