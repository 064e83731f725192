//! How fast a queue moves, as far as its last batches show.

use std::time::Duration;

/// How much of the pace is the latest measurement: more where it goes faster, since whoever is shed for no
/// reason is lost, and whoever is let in for no reason is refused when its time is over.
const FASTER: f64 = 0.5;
const SLOWER: f64 = 0.2;

/// The time from one batch to the next while orders wait. Nothing, as long as that is not known.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seconds: f64,
    measured: Option<f64>,
}

impl Pace {
    /// Notes how long a batch took.
    pub(super) fn note(&mut self, took: Duration) {
        let measured = took.as_secs_f64();
        // The less of two: a single one that is slow, as the first is, since it makes connections, sheds
        // none.
        let Some(before) = self.measured.replace(measured) else { return };
        let latest = measured.min(before);
        let weight = if latest < self.seconds { FASTER } else { SLOWER };
        self.seconds =
            if self.seconds == 0.0 { latest } else { self.seconds + (latest - self.seconds) * weight };
    }

    /// The time that so many batches are likely to take.
    pub(super) fn of(&self, batches: usize) -> Duration {
        Duration::from_secs_f64(batches as f64 * self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_batch_says_nothing_and_two_do() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        pace.note(ms(900));
        assert_eq!(pace.of(10), Duration::ZERO, "it may have made connections");
        pace.note(ms(1));
        pace.note(ms(900));
        assert_eq!(pace.of(10), ms(10));
        pace.note(ms(900));
        assert!(pace.of(10) > ms(1_000));
    }
}
