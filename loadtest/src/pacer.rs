//! When each attempt is due.

use std::time::Duration;

/// A plan of when attempts are due, from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pacer {
    /// Closed loop: an attempt is due when its buyer is free.
    Closed,
    /// Open loop: attempt `i` is due at `i / rate`, whichever buyer is free. Its latency is measured from
    /// then, so that a service that stalls is charged with all orders that it keeps waiting, also those that
    /// could not even be sent ("coordinated omission", Tene).
    Open {
        /// Attempts per second.
        rate: f64,
    },
}

impl Pacer {
    /// The pacer of a rate, if there is one.
    pub fn new(rate: Option<f64>) -> Self {
        rate.map_or(Self::Closed, |rate| Self::Open { rate })
    }

    /// When attempt `index` is due, from the start of the run; `None`: when its buyer is free.
    pub fn due(&self, index: u64) -> Option<Duration> {
        match *self {
            Self::Closed => None,
            Self::Open { rate } => Some(Duration::from_secs_f64(index as f64 / rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_is_due_by_the_clock_alone() {
        let pacer = Pacer::new(Some(200.0));
        assert_eq!(pacer.due(0), Some(Duration::ZERO));
        assert_eq!(pacer.due(300), Some(Duration::from_millis(1500)));
        assert_eq!(Pacer::new(None).due(300), None);
    }
}
