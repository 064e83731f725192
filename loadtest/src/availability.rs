//! Availability: when orders were sold, and when they were not although there was stock; and how long it took
//! to recover from each fault.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Broken, Evidence, FaultEvidence};

/// The availability of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Availability {
    /// From the first attempt to the last answer, or to the last sale where everything was sold.
    pub selling_ms: f64,
    /// The longest time without a sale in it.
    pub longest_gap: Gap,
    /// What came after each fault, in the order in which they were injected.
    pub recoveries: Vec<Recovery>,
}

/// A time without a sale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// When it began, in milliseconds after the first attempt.
    pub from_ms: f64,
    /// How long it lasted, in milliseconds.
    pub ms: f64,
}

/// How orders were sold after a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// The fault's number, from 0, in the order in which they were noted.
    pub fault: usize,
    /// What was broken, for people.
    pub what: String,
    /// When it was injected, in milliseconds after the first attempt.
    pub at_ms: f64,
    /// The longest time without a sale that began after it, and before the next fault or the end.
    pub without_sale_ms: f64,
    /// Whether nothing was sold any more after it, although there was something to sell.
    pub is_final: bool,
}

/// When orders were confirmed, and for how long there was something to sell, in nanoseconds from the start of
/// the run.
pub(crate) struct Sales {
    times: Vec<u64>,
    /// The same, and when orders were refused for want of stock.
    served: Vec<u64>,
    pub(crate) end: u64,
    /// Whether everything was sold.
    is_sold_out: bool,
}

impl Sales {
    pub(crate) fn of(evidence: &Evidence) -> Self {
        let firsts = || Attempt::firsts(&evidence.attempts);
        let mut times: Vec<_> =
            firsts().filter(|attempt| attempt.sale().is_some()).map(|attempt| attempt.received).collect();
        times.sort_unstable();
        let last = times.last().copied().unwrap_or_default();
        // Refused for want of stock after the last sale.
        let is_sold_out = firsts()
            .any(|attempt| matches!(attempt.outcome, Outcome::SoldOut { .. }) && attempt.received >= last);
        let answered = firsts().map(|attempt| attempt.received).max().unwrap_or_default();
        let is_served = |a: &&Attempt| matches!(a.outcome, Outcome::Sold(_) | Outcome::SoldOut { .. });
        let mut served: Vec<_> = firsts().filter(is_served).map(|attempt| attempt.received).collect();
        served.sort_unstable();
        Self { times, served, end: if is_sold_out { last } else { answered }, is_sold_out }
    }

    /// How many there were in this time.
    fn between(&self, from: u64, until: u64) -> usize {
        let before = |moment| self.times.partition_point(|time| *time < moment);
        before(until) - before(from)
    }

    /// The longest time without a sale from one moment to another: when it began, and how long it was.
    fn longest_gap(&self, from: u64, until: u64) -> (u64, u64) {
        Self::gap(&self.times, from, until)
    }

    /// The same without an answer that says what there is.
    fn longest_silence(&self, from: u64, until: u64) -> (u64, u64) {
        Self::gap(&self.served, from, until)
    }

    /// When there was a sale at this moment or after it, or else the end.
    fn next_sale(&self, from: u64) -> u64 {
        self.times.get(self.times.partition_point(|time| *time < from)).map_or(self.end, |time| *time)
    }

    fn gap(times: &[u64], from: u64, until: u64) -> (u64, u64) {
        let within = times.iter().copied().filter(|time| (from..until).contains(time));
        let (mut longest, mut last) = ((from, 0), from);
        for time in within.chain([until]) {
            if time - last > longest.1 {
                longest = (last, time - last);
            }
            last = time;
        }
        longest
    }
}

impl Recovery {
    /// How long it took until something was sold again, in words.
    pub fn in_words(&self) -> String {
        if self.is_final {
            return "nothing was sold any more after it".into();
        }
        format!("no sale for {:.0} ms after it", self.without_sale_ms)
    }
}

impl Availability {
    /// What came after the fault of this number.
    pub fn after(&self, fault: usize) -> Option<&Recovery> {
        self.recoveries.iter().find(|recovery| recovery.fault == fault)
    }

    /// The figures of a run.
    pub fn of(evidence: &Evidence) -> Self {
        let sales = Sales::of(evidence);
        let (from, length) = sales.longest_gap(0, sales.end);
        let mut broken: Vec<(usize, &Broken)> = match &evidence.faults {
            FaultEvidence::Known { broken, .. } => broken.iter().enumerate().collect(),
            FaultEvidence::None | FaultEvidence::Unknown => Vec::new(),
        };
        broken.sort_by_key(|(_, broken)| broken.from);
        let recovery = |(place, (number, fault)): (usize, &(usize, &Broken))| {
            // One that had begun before the next fault goes on until the next sale.
            let next = broken.get(place + 1).map_or(sales.end, |(_, next)| sales.next_sale(next.from));
            let next = next.min(sales.end);
            let gap = if fault.from < next { sales.longest_gap(fault.from, next).1 } else { 0 };
            let is_final = fault.from < sales.end && sales.between(fault.from, u64::MAX) == 0;
            Recovery {
                fault: *number,
                what: fault.what.clone(),
                at_ms: ms(fault.from),
                without_sale_ms: ms(gap),
                is_final: is_final && !sales.is_sold_out,
            }
        };
        Self {
            selling_ms: ms(sales.end),
            longest_gap: Gap { from_ms: ms(from), ms: ms(length) },
            recoveries: broken.iter().enumerate().map(recovery).collect(),
        }
    }
}

/// How long after a fault and the leases that it cost nothing may be sold, at the most, before the service
/// counts as one that does not recover.
const RECOVERY: Duration = Duration::from_secs(10);

/// How long after a fault and the leases that it cost the service is given to recover before it is measured.
const SETTLING: Duration = Duration::from_secs(3);

/// The shortest time that is measured.
const MEASURED: u64 = 1_000_000_000;

/// The least share of the best measured rate that any other has to have.
const FLOOR: f64 = 0.02;

/// What a run with faults says of the time between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Between {
    /// Nothing was sold for too long, although nothing was broken any more.
    Down(String),
    /// So little was sold in between that the faults met nothing.
    Idle(String),
    /// It sold.
    Up(String),
}

/// Judges the times in which nothing was broken: orders have to be sold in them.
pub(crate) fn between_faults(evidence: &Evidence, broken: &[Broken]) -> Between {
    let sales = Sales::of(evidence);
    let lease = evidence.lease.unwrap_or_default();
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let free = free_times(broken, sales.end, ns(lease + SETTLING));
    for (from, until) in &free {
        let (at, length) = sales.longest_silence(*from, *until);
        if length > ns(RECOVERY - SETTLING) {
            let (at, length) = (at as f64 / 1e9, length as f64 / 1e9);
            return Between::Down(format!(
                "nothing was sold, nor refused for want of stock, for {length:.1} s from {at:.1} s on, \
                 although nothing was broken"
            ));
        }
    }
    let measured: Vec<_> = free.iter().filter(|(from, until)| until - from >= MEASURED).collect();
    let rate =
        |(from, until): &(u64, u64)| sales.between(*from, *until) as f64 / ((until - from) as f64 / 1e9);
    let best = measured.iter().map(|time| rate(time)).fold(0.0, f64::max);
    let idle = measured.iter().find(|time| rate(time) < (best * FLOOR).max(1.0));
    if let Some(time @ (from, _)) = idle {
        return Between::Idle(format!(
            "{:.1} orders/s from {:.1} s on, where nothing was broken: too few for the faults to meet any",
            rate(time),
            *from as f64 / 1e9
        ));
    }
    let (at, length) = sales.longest_gap(0, sales.end);
    Between::Up(format!(
        "the longest time without a sale was {:.2} s, from {:.1} s on",
        length as f64 / 1e9,
        at as f64 / 1e9
    ))
}

/// The times until `end` in which nothing is broken, nor was until `after` before.
fn free_times(broken: &[Broken], end: u64, after: u64) -> Vec<(u64, u64)> {
    let mut taken: Vec<_> = broken
        .iter()
        .filter(|broken| broken.costs_leases)
        .map(|broken| (broken.from, broken.until.map_or(u64::MAX, |until| until.saturating_add(after))))
        .collect();
    taken.sort_unstable();
    let (mut free, mut from) = (Vec::new(), 0);
    for (begin, until) in taken {
        if begin.min(end) > from {
            free.push((from, begin.min(end)));
        }
        from = from.max(until);
    }
    if from < end {
        free.push((from, end));
    }
    free
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sales(times: &[u64], end: u64) -> Sales {
        Sales { times: times.to_vec(), served: times.to_vec(), end, is_sold_out: false }
    }

    #[test]
    fn a_gap_may_be_before_the_first_sale_between_two_and_after_the_last() {
        assert_eq!(sales(&[50, 60, 70], 80).longest_gap(0, 80), (0, 50));
        assert_eq!(sales(&[10, 60, 70], 80).longest_gap(0, 80), (10, 50));
        assert_eq!(sales(&[10, 20], 80).longest_gap(0, 80), (20, 60));
        assert_eq!(sales(&[], 80).longest_gap(10, 80), (10, 70));
        assert_eq!(sales(&[10, 60, 70], 80).longest_gap(15, 65), (15, 45));
    }

    #[test]
    fn what_is_between_two_faults_and_goes_on_is_told_of_both() {
        let times: Vec<_> = (1..=10).chain([32, 33, 40]).map(|second| second * 1_000_000_000).collect();
        let sales = sales(&times, 41_000_000_000);
        assert_eq!(sales.next_sale(20_000_000_000), 32_000_000_000);
        assert_eq!(sales.longest_gap(10_000_000_000, sales.next_sale(20_000_000_000)).1, 22_000_000_000);
        assert_eq!(sales.next_sale(40_500_000_000), 41_000_000_000);
    }

    #[test]
    fn what_is_not_broken_is_free_after_a_while() {
        let broken = |from, until, costs_leases| Broken { what: String::new(), from, until, costs_leases };
        let faults = [broken(10, Some(20), true), broken(15, Some(18), true), broken(50, None, false)];
        assert_eq!(free_times(&faults, 100, 5), [(0, 10), (25, 100)]);
        assert_eq!(free_times(&[broken(10, None, true)], 100, 5), [(0, 10)]);
        assert_eq!(free_times(&[broken(10, Some(20), true)], 22, 5), [(0, 10)]);
        assert_eq!(free_times(&[], 100, 5), [(0, 100)]);
    }
}
