//! The verdict on a shop that is not ours: pure functions from what its answers and its truth say.

use std::time::Instant;

use super::buyer::Outcome;
use super::truth::Stock;
use crate::verdict::{Check, CheckName, Status};

/// What a run has left.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Units in each purchase.
    pub quantity: i64,
    /// How many buyers there were at the same time.
    pub buyers: usize,
    /// What came of each purchase, from when to when.
    pub purchases: Vec<(Outcome, Instant, Instant)>,
    /// What the shop said before.
    pub before: Stock,
    /// What it says afterwards; `Err` says why that cannot be seen.
    pub after: Result<Stock, String>,
}

/// What the purchases came to, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// In purchases that the shop has confirmed.
    pub bought: i64,
    /// In those that it has refused for want of stock.
    pub refused: i64,
    /// In those whose answers say neither.
    pub unknown: i64,
}

impl Traces {
    /// What the purchases came to.
    pub fn counts(&self) -> Counts {
        let count = |is: fn(&Outcome) -> bool| {
            self.purchases.iter().filter(|(outcome, ..)| is(outcome)).count() as i64 * self.quantity
        };
        Counts {
            bought: count(|outcome| *outcome == Outcome::Bought),
            refused: count(|outcome| *outcome == Outcome::Refused),
            unknown: count(|outcome| matches!(outcome, Outcome::Unknown { .. })),
        }
    }

    /// Units that the shop's own record says were sold.
    pub fn sold(&self) -> Option<i64> {
        self.after.as_ref().ok().map(|after| after.sold - self.before.sold)
    }

    /// How many units more were sold than there were, where that is certain.
    pub fn oversold(&self) -> i64 {
        let counts = self.counts();
        // What has no answer may yet be undone; what was confirmed may not.
        let certain = if counts.unknown == 0 { self.sold().unwrap_or(counts.bought) } else { counts.bought };
        (certain.max(counts.bought) - self.stock).max(0)
    }

    /// Whether two purchases were ever under way at the same time.
    fn overlapped(&self) -> bool {
        let mut spans: Vec<_> = self.purchases.iter().map(|(_, begun, ended)| (*begun, *ended)).collect();
        spans.sort_unstable();
        spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
    }
}

/// A check that needs what the shop says afterwards.
type TruthCheck = fn(&Traces, Counts, Stock) -> (Status, String);

/// All checks for which there can be evidence.
pub fn checks(traces: &Traces) -> Vec<Check> {
    let counts = traces.counts();
    let why_unknown = traces.purchases.iter().find_map(|(outcome, ..)| match outcome {
        Outcome::Unknown { why } => Some(why.as_str()),
        _ => None,
    });
    let mut checks = vec![exercised(traces, counts), not_oversold(traces, counts)];
    let needs_truth: [(CheckName, TruthCheck); 4] = [
        (CheckName::Balanced, balanced),
        (CheckName::NothingLost, nothing_lost),
        (CheckName::NothingInvented, nothing_invented),
        (CheckName::NoFalseSoldOut, no_false_sold_out),
    ];
    for (name, check) in needs_truth {
        let (status, detail) = match &traces.after {
            Ok(after) => check(traces, counts, *after),
            Err(why) => (Status::Unknown, why.clone()),
        };
        checks.push(Check { name, status, detail });
    }
    let (status, detail) = match why_unknown {
        None => (Status::Pass, format!("{} purchases were answered", traces.purchases.len())),
        Some(why) => (
            Status::Unknown,
            format!("{} units are in purchases without a clear answer, such as {why}", counts.unknown),
        ),
    };
    checks.push(Check { name: CheckName::AllAnswered, status, detail });
    checks
}

fn exercised(traces: &Traces, counts: Counts) -> Check {
    let wanted = traces.purchases.len() as i64 * traces.quantity;
    let (status, detail) = if counts.bought == 0 {
        (Status::Unknown, "nothing was bought".into())
    } else if wanted <= traces.stock {
        (
            Status::Unknown,
            format!("{wanted} units were wanted of {}: nothing could be oversold", traces.stock),
        )
    } else if traces.buyers > 1 && !traces.overlapped() {
        (Status::Unknown, "no two purchases were under way at the same time".into())
    } else {
        (Status::Pass, format!("{wanted} units were wanted of {}", traces.stock))
    };
    Check { name: CheckName::Exercised, status, detail }
}

fn not_oversold(traces: &Traces, counts: Counts) -> Check {
    let Traces { stock, .. } = traces;
    let oversold = traces.oversold();
    let (status, detail) = match traces.sold() {
        _ if oversold > 0 => {
            let sold = oversold + stock;
            (Status::Fail, format!("oversold by {oversold}: {sold} sold of {stock}"))
        }
        Some(sold) if sold > *stock => (
            Status::Unknown,
            format!(
                "the shop's record has {sold} sold of {stock}, of which {} were confirmed; {} are without a \
                 clear answer, and may yet be undone",
                counts.bought, counts.unknown
            ),
        ),
        Some(sold) => (Status::Pass, format!("{sold} sold of {stock}")),
        None => {
            (Status::Unknown, format!("{} confirmed of {stock}; what was sold cannot be read", counts.bought))
        }
    };
    Check { name: CheckName::NotOversold, status, detail }
}

fn balanced(traces: &Traces, _: Counts, after: Stock) -> (Status, String) {
    let Some(left) = after.left else {
        return (Status::NotApplicable, "the description has no truth.left to compare with".into());
    };
    let sold = after.sold - traces.before.sold;
    let expected = traces.stock - sold;
    match left == expected {
        true => (Status::Pass, format!("{left} left of {}, {sold} sold", traces.stock)),
        false => (
            Status::Fail,
            format!("{left} left of {} although {sold} were sold: {expected} expected", traces.stock),
        ),
    }
}

fn nothing_lost(traces: &Traces, counts: Counts, after: Stock) -> (Status, String) {
    let sold = after.sold - traces.before.sold;
    match counts.bought - sold {
        ..=0 => {
            (Status::Pass, format!("{} units were confirmed, and are in the shop's record", counts.bought))
        }
        lost => (Status::Fail, format!("{lost} units were confirmed and are not in the shop's record")),
    }
}

fn nothing_invented(traces: &Traces, counts: Counts, after: Stock) -> (Status, String) {
    let sold = after.sold - traces.before.sold;
    match sold - counts.bought - counts.unknown {
        ..=0 => (Status::Pass, "every sale was asked for, and not refused".into()),
        invented => (
            Status::Fail,
            format!(
                "{invented} units more were sold than were confirmed or left without an answer: refusals \
                    that sold?"
            ),
        ),
    }
}

fn no_false_sold_out(traces: &Traces, counts: Counts, after: Stock) -> (Status, String) {
    let sold = after.sold - traces.before.sold;
    let unsold = traces.stock - sold;
    if counts.refused == 0 {
        return (Status::NotApplicable, "nothing was refused for want of stock".into());
    }
    match (unsold, counts.unknown) {
        // Too few for one purchase more.
        (unsold, _) if unsold < traces.quantity => {
            (Status::Pass, format!("{} units were refused, and {} were left", counts.refused, unsold.max(0)))
        }
        // Stock does not come back in a run: what is left was there all the time.
        (unsold, 0) => (
            Status::Fail,
            format!("{} units were refused for want of stock, and {unsold} are left", counts.refused),
        ),
        (unsold, unknown) => (
            Status::Unknown,
            format!("{unsold} units are left, and {unknown} are in purchases without a clear answer"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::verdict::{Verdict, verdict};

    /// So many purchases of each outcome, two at a time, of a stock of ten.
    fn traces(bought: usize, refused: usize, unknown: usize, sold: i64, left: Option<i64>) -> Traces {
        let outcomes = std::iter::repeat_n(Outcome::Bought, bought)
            .chain(std::iter::repeat_n(Outcome::Refused, refused))
            .chain(std::iter::repeat_n(Outcome::Unknown { why: "pay: no answer".into() }, unknown));
        let begun = Instant::now();
        let at = |number: usize| begun + Duration::from_millis(5 * number as u64);
        let purchases = outcomes.enumerate().map(|(number, outcome)| (outcome, at(number), at(number + 2)));
        let before = Stock { sold: 100, left: left.map(|_| 10) };
        Traces {
            stock: 10,
            quantity: 1,
            buyers: 2,
            purchases: purchases.collect(),
            before,
            after: Ok(Stock { sold: 100 + sold, left }),
        }
    }

    fn failing(traces: &Traces) -> Vec<CheckName> {
        let checks = checks(traces);
        checks.into_iter().filter(|check| check.status == Status::Fail).map(|check| check.name).collect()
    }

    #[test]
    fn an_honest_shop_is_correct() {
        let honest = traces(10, 30, 0, 10, Some(0));
        assert_eq!(verdict(&checks(&honest)), Verdict::Correct, "{:#?}", checks(&honest));
        assert_eq!(verdict(&checks(&traces(10, 30, 0, 10, None))), Verdict::Correct);
    }

    #[test]
    fn each_lie_is_noticed_by_its_check() {
        for (lie, caught) in [
            (traces(18, 22, 0, 18, None), CheckName::NotOversold),
            (traces(10, 30, 0, 10, Some(3)), CheckName::Balanced),
            (traces(10, 30, 0, 8, None), CheckName::NothingLost),
            (traces(8, 32, 0, 10, None), CheckName::NothingInvented),
            (traces(7, 33, 0, 7, None), CheckName::NoFalseSoldOut),
        ] {
            let failing = failing(&lie);
            assert!(failing.contains(&caught), "{caught}: {failing:?}");
        }
        assert_eq!(traces(18, 22, 0, 18, None).oversold(), 8);
        // Two are left, and three were wanted.
        let threes = Traces { quantity: 3, stock: 11, ..traces(3, 10, 0, 9, Some(2)) };
        assert_eq!(failing(&threes), []);
        // Its own record knows nothing of it, but the buyers have their confirmations.
        assert_eq!(traces(18, 22, 0, 10, None).oversold(), 8);
    }

    #[test]
    fn what_has_no_answer_is_never_oversold_and_never_correct() {
        let hung = traces(8, 0, 32, 38, None);
        assert_eq!(hung.oversold(), 0);
        assert_eq!(verdict(&checks(&hung)), Verdict::Inconclusive, "{:#?}", checks(&hung));
        let unread =
            Traces { after: Err("the truth does not come to rest".into()), ..traces(10, 30, 0, 10, None) };
        assert_eq!(verdict(&checks(&unread)), Verdict::Inconclusive);
        // Too few wanted anything.
        assert_eq!(verdict(&checks(&traces(9, 0, 0, 9, None))), Verdict::Inconclusive);
    }
}
