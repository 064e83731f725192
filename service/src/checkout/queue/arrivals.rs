//! Whether the next change is likely to come soon, as far as the last one shows.

use std::time::Duration;

use tokio::time::Instant;

/// How soon the last change came after there was nothing left to do.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// When the worker found nothing more to do under its hold, until the next change comes.
    ran_dry: Option<Instant>,
    /// How long that was the last time; `None` as long as it is not known.
    gap: Option<Duration>,
}

impl Arrivals {
    /// Notes that a change came at this moment.
    pub(super) fn came(&mut self, at: Instant) {
        if let Some(ran_dry) = self.ran_dry.take() {
            self.gap = Some(at - ran_dry);
        }
    }

    /// Notes that there is nothing more to do.
    pub(super) fn ran_dry(&mut self) {
        self.ran_dry = Some(Instant::now());
    }

    /// Whether the last change came within `limit`, as the next one may then.
    pub(super) fn are_expected_within(&self, limit: Duration) -> bool {
        self.gap.is_some_and(|gap| gap <= limit)
    }
}
