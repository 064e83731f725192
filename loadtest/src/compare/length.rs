//! How long a load goes on, and for how long there is something to sell: a fault that meets an empty shop
//! proves nothing.

use std::time::Duration;

use crate::faults::Schedule;
use crate::scenario::Amount;

/// How many orders there are where no length is given.
pub const ORDERS: u64 = 4_000;

/// How long a run goes on after its last fault.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How long a run is in which faults are drawn until its end.
const DRAWN: Duration = Duration::from_secs(10);

/// The last part of a run of a given length in which no more is put in stock: so that it sells out, where it
/// can.
const LAST: u32 = 5;

/// What was given of the length of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Length {
    /// After so many orders.
    pub orders: Option<u64>,
    /// After so long.
    pub duration: Option<Duration>,
    /// How long to put more in stock; zero: not at all.
    pub top_up: Option<Duration>,
    /// Whether the units in stock were chosen, too.
    pub stock_is_given: bool,
}

impl Length {
    /// When the run ends, and for how long its stock is topped up, with `faults` under leases of `lease`.
    pub fn with(self, faults: &Schedule, lease: Duration) -> (Amount, Option<Duration>) {
        let over = faults.end(lease).map(|end| end + lease);
        let amount = match (self.orders, self.duration) {
            (Some(orders), _) => Amount::Orders(orders),
            (None, Some(time)) => Amount::For(time),
            (None, None) if faults.is_empty() => Amount::Orders(ORDERS),
            (None, None) => {
                let drawn = if faults.random { DRAWN } else { Duration::ZERO };
                Amount::For(drawn.max(over.unwrap_or_default() + AFTERMATH))
            }
        };
        let topped_up = match (self.top_up, amount) {
            (Some(time), _) => Some(time),
            // Until the end, whenever that is.
            (None, Amount::Orders(_)) if faults.random => Some(Duration::MAX),
            (None, Amount::For(time)) if faults.random => Some(time),
            (None, _) if !faults.is_empty() => over,
            (None, Amount::For(time)) if !self.stock_is_given => Some(time - time / LAST),
            (None, _) => None,
        };
        (amount, topped_up.filter(|time| !time.is_zero()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn with(length: Length, faults: &str) -> (Amount, Option<Duration>) {
        let texts: Vec<_> = faults.split(' ').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        length.with(&Schedule::parse(&texts).unwrap(), LEASE)
    }

    #[test]
    fn a_run_outlasts_its_faults_and_its_stock_does_too() {
        let unsaid = Length::default();
        assert_eq!(with(unsaid, ""), (Amount::Orders(ORDERS), None));
        assert_eq!(with(unsaid, "kill@30s"), (Amount::For(secs(38)), Some(secs(33))));
        assert_eq!(with(unsaid, "pause:2xlease@2s,kill@1s"), (Amount::For(secs(13)), Some(secs(8))));
        assert_eq!(with(unsaid, "random"), (Amount::For(DRAWN), Some(DRAWN)));
        let orders = Length { orders: Some(9), ..unsaid };
        assert_eq!(with(orders, "kill@30s"), (Amount::Orders(9), Some(secs(33))));
        assert_eq!(with(orders, "random"), (Amount::Orders(9), Some(Duration::MAX)));
    }

    #[test]
    fn a_given_time_is_sold_through_unless_the_stock_is_given_too() {
        let timed = Length { duration: Some(secs(10)), ..Length::default() };
        assert_eq!(with(timed, ""), (Amount::For(secs(10)), Some(secs(8))));
        assert_eq!(with(Length { stock_is_given: true, ..timed }, ""), (Amount::For(secs(10)), None));
        assert_eq!(with(Length { top_up: Some(Duration::ZERO), ..timed }, "kill@1s").1, None);
    }
}
