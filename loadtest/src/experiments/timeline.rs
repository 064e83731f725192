//! Records what happens in an experiment. Whoever holds the recording sees it grow.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Event, EventKind, Party};

/// What has been recorded so far. Clones are of the same recording.
#[derive(Debug, Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Event>>>);

impl Recording {
    /// All events in the order of time, those of a trial together.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        in_order(&mut events);
        events
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// The events in the order of time, those of a trial together, in the order in which the trials began.
fn in_order(events: &mut [Event]) {
    events.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    let mut scenes: Vec<Option<String>> = Vec::new();
    for event in events.iter() {
        if !scenes.contains(&event.scene) {
            scenes.push(event.scene.clone());
        }
    }
    events.sort_by_key(|event| scenes.iter().position(|scene| *scene == event.scene));
}

/// The pen of one trial.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    start: Instant,
    scene: Option<String>,
    recording: Recording,
}

impl Timeline {
    /// Begins now.
    pub(super) fn begin(recording: Recording) -> Self {
        Self { start: Instant::now(), scene: None, recording }
    }

    /// One for a trial of an experiment that has several; of a trial that has its parts, too.
    pub(super) fn scene(&self, name: impl Into<String>) -> Self {
        let name = name.into();
        let name = match &self.scene {
            Some(outer) => format!("{outer}, {name}"),
            None => name,
        };
        Self { scene: Some(name), ..self.clone() }
    }

    /// A remark.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.record(Instant::now(), EventKind::Note, None, None, "", what);
    }

    /// Something that `who` did alone, or that befell it.
    pub(super) fn mark(&self, kind: EventKind, who: &Party, label: &str, what: impl Into<String>) {
        self.record(Instant::now(), kind, Some(who), None, label, what);
    }

    /// The same, at an earlier moment.
    pub(super) fn mark_at(
        &self,
        at: Instant,
        kind: EventKind,
        who: &Party,
        label: &str,
        what: impl Into<String>,
    ) {
        self.record(at, kind, Some(who), None, label, what);
    }

    /// Something that went from one to the other.
    pub(super) fn arrow(
        &self,
        kind: EventKind,
        [who, to]: [&Party; 2],
        label: impl Into<String>,
        what: impl Into<String>,
    ) {
        self.record(Instant::now(), kind, Some(who), Some(to), label, what);
    }

    /// The same, at an earlier moment.
    pub(super) fn arrow_at(
        &self,
        at: Instant,
        kind: EventKind,
        [who, to]: [&Party; 2],
        label: impl Into<String>,
        what: impl Into<String>,
    ) {
        self.record(at, kind, Some(who), Some(to), label, what);
    }

    /// A customer orders.
    pub(super) fn orders(&self, buyer: &str, quantity: i64, replica: &str) {
        let parties = [&Party::buyer(buyer), &Party::holder(replica)];
        let what = format!("{buyer} orders {quantity} from {replica}");
        self.arrow(EventKind::Sent, parties, format!("orders {quantity}"), what);
    }

    /// A process is ended with `kill -9`.
    pub(super) fn crashed(&self, holder: &str, what: impl Into<String>) {
        self.mark(EventKind::Crashed, &Party::holder(holder), "kill -9", what);
    }

    /// Whom a customer of this trial ordered from the last time.
    pub(super) fn asked_by(&self, buyer: &Party) -> Option<Party> {
        let is_by = |event: &Event| event.kind == EventKind::Sent && event.who.as_ref() == Some(buyer);
        self.latest(is_by)?.to
    }

    /// Whether this one had the lock in this trial.
    pub(super) fn was_granted(&self, holder: &Party) -> bool {
        let had = |event: &Event| event.kind == EventKind::Granted && event.to.as_ref() == Some(holder);
        self.latest(had).is_some()
    }

    /// The event of this trial that was recorded last of those that are wanted.
    fn latest(&self, is_wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let events = self.recording.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = events.iter().rfind(|event| event.scene == self.scene && is_wanted(event));
        found.cloned()
    }

    fn record(
        &self,
        at: Instant,
        kind: EventKind,
        who: Option<&Party>,
        to: Option<&Party>,
        label: impl Into<String>,
        what: impl Into<String>,
    ) {
        let since = at.checked_duration_since(self.start).unwrap_or(Duration::ZERO);
        self.recording.push(Event {
            at_ms: (since.as_secs_f64() * 1e4).round() / 10.0,
            scene: self.scene.clone(),
            kind,
            who: who.cloned(),
            to: to.cloned(),
            label: label.into(),
            what: what.into(),
        });
    }
}

/// The events as lines of text: each trial under its name, with the times since it began.
pub fn lines(events: &[Event]) -> Vec<String> {
    let mut lines = Vec::new();
    for trial in events.chunk_by(|one, other| one.scene == other.scene) {
        lines.extend(trial[0].scene.iter().map(|scene| format!("— {scene}")));
        for event in trial {
            lines.push(format!("{:>6.0} ms  {}", event.at_ms - trial[0].at_ms, event.what));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_stay_together_and_each_begins_at_zero() {
        let recording = Recording::default();
        let timeline = Timeline::begin(recording.clone());
        let (off, on) = (timeline.scene("guard off"), timeline.scene("guard on"));
        let at = |ms| timeline.start + Duration::from_millis(ms);
        let parties = [&Party::buyer("A"), &Party::holder("replica-1")];
        for (pen, ms, what) in [(&on, 30, "c"), (&off, 50, "b"), (&off, 20, "a"), (&on, 31, "d")] {
            pen.arrow_at(at(ms), EventKind::Sent, parties, "", what);
        }
        let expected =
            ["— guard off", "     0 ms  a", "    30 ms  b", "— guard on", "     0 ms  c", "     1 ms  d"];
        assert_eq!(lines(&recording.events()), expected);
        assert_eq!((off.scene("twice").scene, recording.len()), (Some("guard off, twice".into()), 4));
    }
}
