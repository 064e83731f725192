//! The verdict on a shop that is not ours: pure functions from what its answers and its truth say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::buyer::{Outcome, Purchase, ReadAs, Resent};
use super::load::Arrival;
use super::truth::Stock;
use crate::verdict::{Check, CheckName, Status};

/// How many orders are named where there are more.
const NAMED: usize = 5;

/// A purchase that was tried, with its times from the begin of the run in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its number in the run, from 0: the buyer's.
    pub number: usize,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The answer that was taken for a refusal, with its step.
    pub refusal: Option<String>,
    /// The order that the shop has confirmed, where the description captures it.
    pub order: Option<String>,
    /// What came of its last step when that was sent again.
    pub resent: Option<Resent>,
    /// When it began; in an open loop, when it was due.
    pub begun_ms: f64,
    /// When the last step was sent.
    pub decided_ms: Option<f64>,
    /// When its last answer was there.
    pub ended_ms: f64,
}

impl Tried {
    /// A purchase of a run that began at `start`.
    pub fn of(number: usize, purchase: &Purchase, start: Instant) -> Self {
        let since = |at: Instant| at.saturating_duration_since(start).as_secs_f64() * 1e3;
        Self {
            number,
            outcome: purchase.outcome.clone(),
            refusal: purchase.refusal(),
            order: purchase.order.clone(),
            resent: purchase.resent.clone(),
            begun_ms: since(purchase.begun),
            decided_ms: purchase.decided.map(since),
            ended_ms: since(purchase.ended),
        }
    }

    /// Its name in texts: `purchase 7 (order 1001)`.
    fn name(&self) -> String {
        match &self.order {
            Some(order) => format!("purchase {} (order {order})", self.number),
            None => format!("purchase {}", self.number),
        }
    }

    /// Whether another purchase was under way together with this one.
    fn overlaps(&self, other: &Self) -> bool {
        self.number != other.number && self.begun_ms < other.ended_ms && self.ended_ms > other.begun_ms
    }

    /// From when to when its last step was under way.
    fn deciding(&self) -> (f64, f64) {
        (self.decided_ms.unwrap_or(self.ended_ms), self.ended_ms)
    }
}

/// What a run has left.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Units in stock at the beginning.
    pub stock: i64,
    /// Units in each purchase.
    pub quantity: i64,
    /// How buyers came.
    pub arrival: Arrival,
    /// Whether the description says that the last step may be sent again.
    pub is_idempotent: bool,
    /// What the last step is called.
    pub last_step: String,
    /// The purchases.
    pub tried: Vec<Tried>,
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
            self.tried.iter().filter(|tried| is(&tried.outcome)).count() as i64 * self.quantity
        };
        Counts {
            bought: count(|outcome| *outcome == Outcome::Bought),
            refused: count(|outcome| *outcome == Outcome::Refused),
            unknown: count(|outcome| matches!(outcome, Outcome::Unknown { .. })),
        }
    }

    /// The answers that were taken for refusals, with their steps.
    pub fn refusals(&self) -> impl Iterator<Item = &str> {
        self.tried.iter().filter_map(|tried| tried.refusal.as_deref())
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

    /// How many purchases were under way at the same time, at the most.
    pub fn most_at_once(&self) -> usize {
        let begins = self.tried.iter().map(|tried| (tried.begun_ms, 1_i64));
        let ends = self.tried.iter().map(|tried| (tried.ended_ms, -1));
        let mut changes: Vec<_> = begins.chain(ends).collect();
        changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut now = 0;
        changes.iter().fold(0, |most, (_, change)| {
            now += change;
            most.max(now)
        }) as usize
    }

    /// How many last steps were sent again.
    pub fn resent(&self) -> usize {
        self.tried.iter().filter(|tried| tried.resent.is_some()).count()
    }

    /// Confirmed purchases per second, from the first request to the last confirmation.
    pub fn per_second(&self) -> f64 {
        let confirmed: Vec<_> = self.confirmed().collect();
        let begun = self.tried.iter().map(|tried| tried.begun_ms).fold(f64::INFINITY, f64::min);
        let ended = confirmed.iter().map(|tried| tried.ended_ms).fold(0.0, f64::max);
        if ended > begun { confirmed.len() as f64 / (ended - begun) * 1e3 } else { 0.0 }
    }

    fn confirmed(&self) -> impl Iterator<Item = &Tried> {
        self.tried.iter().filter(|tried| tried.outcome == Outcome::Bought)
    }

    /// The orders that are in the record since the beginning, where it can be read.
    fn new_orders(&self) -> Option<BTreeSet<&str>> {
        let before: BTreeSet<_> = self.before.orders.as_ref()?.iter().map(String::as_str).collect();
        let after = self.after.as_ref().ok()?.orders.as_ref()?;
        Some(after.iter().map(String::as_str).filter(|order| !before.contains(order)).collect())
    }
}

/// Which purchase was one too many, and which others were under way with it; `None` when no confirmed one
/// was.
pub fn counterexample(traces: &Traces) -> Option<String> {
    let fit = usize::try_from(traces.stock / traces.quantity).ok()?;
    let mut confirmed: Vec<_> = traces.confirmed().collect();
    confirmed.sort_by(|a, b| a.ended_ms.total_cmp(&b.ended_ms));
    let one_too_many = *confirmed.get(fit)?;
    let seconds = |ms: f64| format!("{:.3} s", ms / 1e3);
    let (from, to) = one_too_many.deciding();
    let mut text = format!(
        "{} is one too many: it was confirmed at {}, when {} of {} units had been confirmed.",
        one_too_many.name(),
        seconds(to),
        fit as i64 * traces.quantity,
        traces.stock
    );
    let overlap = |other: &Tried| {
        let (other_from, other_to) = other.deciding();
        to.min(other_to) - from.max(other_from)
    };
    let mut beside: Vec<_> = confirmed
        .iter()
        .filter(|other| other.number != one_too_many.number && overlap(other) > 0.0)
        .collect();
    beside.sort_by(|a, b| overlap(b).total_cmp(&overlap(a)));
    match &beside[..] {
        [] => {
            text += &format!(
                " No other {:?} was under way while its own was, from {}",
                traces.last_step,
                seconds(from)
            );
            text += &match earlier_together(&confirmed[..=fit]) {
                Some((first, second)) => format!(
                    ". But {} and {} were in theirs together before, for {:.0} ms: of two that read the \
                     stock \
                     before either has written it, it remembers one.",
                    first.name(),
                    second.name(),
                    first.deciding().1.min(second.deciding().1) - first.deciding().0.max(second.deciding().0)
                ),
                None if confirmed[..=fit].iter().any(|other| other.overlaps(one_too_many)) => {
                    ", but other purchases were: it is an earlier step that looks at the stock, if any \
                     does."
                        .into()
                }
                None => "; nor was any other purchase: it is no race, but stock that is not looked \
                 at."
                .to_owned(),
            };
        }
        [other, rest @ ..] => {
            let (other_from, other_to) = other.deciding();
            text += &format!(
                " Its {:?} was under way from {}; that of {} was from {} to {}, so for {:.0} ms both were, \
                 and \
                 both were confirmed.",
                traces.last_step,
                seconds(from),
                other.name(),
                seconds(other_from),
                seconds(other_to),
                overlap(other)
            );
            match rest.len() {
                0 => {}
                1 => text += " So was that of another.",
                others => text += &format!(" So were those of {others} others."),
            }
        }
    }
    Some(text)
}

/// The first two confirmed purchases whose last steps were under way at the same time.
fn earlier_together<'a>(confirmed: &[&'a Tried]) -> Option<(&'a Tried, &'a Tried)> {
    let pairs = confirmed.windows(2).map(|pair| (pair[0], pair[1]));
    pairs.into_iter().find(|(first, second)| second.deciding().0 < first.deciding().1)
}

/// A check that needs what the shop says afterwards.
type TruthCheck = fn(&Traces, Counts, &Stock) -> (Status, String);

/// All checks for which there can be evidence.
pub fn checks(traces: &Traces) -> Vec<Check> {
    let counts = traces.counts();
    let mut checks = vec![exercised(traces, counts), not_oversold(traces, counts)];
    let needs_truth: [(CheckName, TruthCheck); 5] = [
        (CheckName::Balanced, balanced),
        (CheckName::NothingLost, nothing_lost),
        (CheckName::NothingInvented, nothing_invented),
        (CheckName::OncePerKey, once_per_key),
        (CheckName::NoFalseSoldOut, no_false_sold_out),
    ];
    for (name, check) in needs_truth {
        let (status, detail) = match &traces.after {
            Ok(after) => check(traces, counts, after),
            Err(why) => (Status::Unknown, why.clone()),
        };
        checks.push(Check { name, status, detail });
    }
    checks.push(all_answered(traces, counts));
    checks
}

fn exercised(traces: &Traces, counts: Counts) -> Check {
    let wanted = traces.tried.len() as i64 * traces.quantity;
    let at_once = traces.most_at_once();
    let (status, detail) = if counts.bought == 0 {
        (Status::Unknown, "nothing was bought".into())
    } else if wanted <= traces.stock {
        (
            Status::Unknown,
            format!("{wanted} units were wanted of {}: nothing could be oversold", traces.stock),
        )
    } else if traces.arrival != Arrival::ALONE && at_once < 2 {
        (Status::Unknown, "no two purchases were under way at the same time".into())
    } else {
        let stock = traces.stock;
        (Status::Pass, format!("{wanted} units were wanted of {stock}, in up to {at_once} purchases at once"))
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
                "the shop's record has {sold} sold of {stock}, of which {} were confirmed; {} without a \
                 clear answer, and may yet be undone",
                counts.bought,
                units(counts.unknown)
            ),
        ),
        Some(sold) => (Status::Pass, format!("{sold} sold of {stock}")),
        None => {
            (Status::Unknown, format!("{} confirmed of {stock}; what was sold cannot be read", counts.bought))
        }
    };
    Check { name: CheckName::NotOversold, status, detail }
}

fn balanced(traces: &Traces, counts: Counts, after: &Stock) -> (Status, String) {
    let sold = after.sold - traces.before.sold;
    let mut seen = Vec::new();
    let mut apart = None;
    if let Some(left) = after.left {
        let expected = traces.stock - sold;
        let stock = traces.stock;
        if left != expected {
            let what = format!("{left} left of {stock} although {sold} were sold: {expected} expected");
            apart = Some((left - expected, what));
        }
        seen.push(format!("{left} left of {stock}"));
    }
    if let (Some(reserved), Some(before)) = (after.reserved, traces.before.reserved) {
        let reserved = reserved - before;
        if reserved != sold {
            apart = apart.or(Some((
                reserved - sold,
                format!(
                    "{reserved} were reserved although {sold} were \
             sold"
                ),
            )));
        }
        seen.push(format!("{reserved} reserved"));
    }
    match apart {
        // What hangs in the middle has done one half, and may yet do or undo the other.
        Some((difference, what)) if difference.abs() <= counts.unknown => (
            Status::Unknown,
            format!("{what}; {} without a clear answer, and may yet come out even", units(counts.unknown)),
        ),
        Some((_, what)) => (Status::Fail, what),
        None if seen.is_empty() => {
            let why = "not decidable: the description has neither truth.left nor truth.reserved to hold the \
                       sales against";
            (Status::NotApplicable, why.into())
        }
        None => (Status::Pass, format!("{}, {sold} sold", seen.join(", "))),
    }
}

fn nothing_lost(traces: &Traces, counts: Counts, after: &Stock) -> (Status, String) {
    if let Some(orders) = traces.new_orders() {
        let mut buyers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for tried in traces.confirmed() {
            if let Some(order) = &tried.order {
                buyers.entry(order).or_default().push(tried.number);
            }
        }
        let lost: Vec<_> = buyers.keys().filter(|order| !orders.contains(*order)).copied().collect();
        if !lost.is_empty() {
            return (
                Status::Fail,
                format!(
                    "{} orders were confirmed and are not in the shop's record: {}",
                    lost.len(),
                    some(&lost)
                ),
            );
        }
        if let Some((order, buyers)) = buyers.iter().find(|(_, buyers)| buyers.len() > 1) {
            return (Status::Fail, format!("order {order} was confirmed to {} buyers", buyers.len()));
        }
    }
    let sold = after.sold - traces.before.sold;
    match counts.bought - sold {
        ..=0 => {
            let by =
                if after.orders.is_some() { "" } else { " (by number: truth.orders would tell by order)" };
            (
                Status::Pass,
                format!("{} units were confirmed, and are in the shop's record{by}", counts.bought),
            )
        }
        lost => (
            Status::Fail,
            format!("{} confirmed and not in the shop's record, if truth.sold shows all of it", units(lost)),
        ),
    }
}

fn nothing_invented(traces: &Traces, counts: Counts, after: &Stock) -> (Status, String) {
    if let Some(orders) = traces.new_orders() {
        let known: BTreeSet<_> = traces.confirmed().filter_map(|tried| tried.order.as_deref()).collect();
        let strange: Vec<_> = orders.difference(&known).copied().collect();
        // What has no clear answer may be there; so may be what was sent again, which is another check's.
        let explained = traces
            .tried
            .iter()
            .filter(|tried| matches!(tried.outcome, Outcome::Unknown { .. }) || tried.resent.is_some());
        if strange.len() > explained.count() {
            return (
                Status::Fail,
                format!(
                    "{} orders are in the record that were not confirmed: {}",
                    strange.len(),
                    some(&strange)
                ),
            );
        }
    }
    let sold = after.sold - traces.before.sold;
    let resent = traces.resent() as i64 * traces.quantity;
    match sold - counts.bought - counts.unknown - resent {
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

fn once_per_key(traces: &Traces, counts: Counts, after: &Stock) -> (Status, String) {
    if !traces.is_idempotent {
        let why = format!(
            "not decidable: nothing was sent twice; if {:?} carries an idempotency key, say idempotent = \
             true",
            traces.last_step
        );
        return (Status::NotApplicable, why);
    }
    if traces.resent() == 0 {
        let why = "not decidable: no purchase that was confirmed had its turn to be sent again";
        return (Status::NotApplicable, why.into());
    }
    let mut answers = BTreeMap::<_, usize>::new();
    for tried in traces.confirmed() {
        let Some(resent) = &tried.resent else { continue };
        if let (Some(first), Some(second), ReadAs::Ok) = (&tried.order, &resent.order, resent.read_as)
            && first != second
        {
            return (
                Status::Fail,
                format!("purchase {} was sent twice, and became two orders: {first}, {second}", tried.number),
            );
        }
        *answers.entry(resent.read_as.to_string()).or_default() += 1;
    }
    let sold = after.sold - traces.before.sold;
    let surplus = sold - counts.bought - counts.unknown;
    if surplus > 0 {
        return (
            Status::Fail,
            format!(
                "{surplus} units more were sold than were confirmed; {} were sent twice",
                traces.resent()
            ),
        );
    }
    let answers: Vec<_> = answers.iter().map(|(read_as, count)| format!("{count} {read_as}")).collect();
    let what = if answers.is_empty() { "none confirmed".into() } else { answers.join(", ") };
    (Status::Pass, format!("{} were sent twice ({what}), and nothing more was sold", traces.resent()))
}

fn no_false_sold_out(traces: &Traces, counts: Counts, after: &Stock) -> (Status, String) {
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

fn all_answered(traces: &Traces, counts: Counts) -> Check {
    let why_unknown = traces.tried.iter().find_map(|tried| match &tried.outcome {
        Outcome::Unknown { why } => Some(why.as_str()),
        _ => None,
    });
    let (status, detail) = match why_unknown {
        None => (Status::Pass, format!("{} purchases were answered", traces.tried.len())),
        Some(why) => {
            (Status::Unknown, format!("{} without a clear answer, such as {why}", units(counts.unknown)))
        }
    };
    Check { name: CheckName::AllAnswered, status, detail }
}

/// So many units, with their verb.
fn units(units: i64) -> String {
    if units == 1 { "1 unit is".into() } else { format!("{units} units are") }
}

/// The first of some orders.
fn some(orders: &[&str]) -> String {
    let named = orders.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if orders.len() > NAMED { named + ", …" } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Verdict, verdict};

    /// So many purchases of each outcome, two at a time, of a stock of ten.
    fn traces(bought: usize, refused: usize, unknown: usize, sold: i64, left: Option<i64>) -> Traces {
        let outcomes = std::iter::repeat_n(Outcome::Bought, bought)
            .chain(std::iter::repeat_n(Outcome::Refused, refused))
            .chain(std::iter::repeat_n(Outcome::Unknown { why: "pay: no answer".into() }, unknown));
        let at = |number: usize| 5.0 * number as f64;
        let tried = outcomes.enumerate().map(|(number, outcome)| Tried {
            number,
            outcome,
            refusal: None,
            order: None,
            resent: None,
            begun_ms: at(number),
            decided_ms: Some(at(number) + 1.0),
            ended_ms: at(number + 2),
        });
        let before = Stock { sold: 100, left: left.map(|_| 10), ..Stock::default() };
        Traces {
            stock: 10,
            quantity: 1,
            arrival: Arrival::Buyers(2),
            is_idempotent: false,
            last_step: "pay".into(),
            tried: tried.collect(),
            before,
            after: Ok(Stock { sold: 100 + sold, left, ..Stock::default() }),
        }
    }

    /// The same with orders: every confirmed one has the number of its purchase, and `record` is what the
    /// shop has.
    fn with_orders(mut traces: Traces, record: std::ops::Range<usize>) -> Traces {
        let names =
            |numbers: std::ops::Range<usize>| Some(numbers.map(|number| format!("o{number}")).collect());
        for tried in traces.tried.iter_mut().filter(|tried| tried.outcome == Outcome::Bought) {
            tried.order = Some(format!("o{}", tried.number));
        }
        traces.before.orders = names(1000..1003);
        traces.after.as_mut().unwrap().orders = names(record);
        traces
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
        assert_eq!(verdict(&checks(&with_orders(traces(10, 30, 0, 10, None), 0..10))), Verdict::Correct);
        assert_eq!(counterexample(&honest), None);
    }

    #[test]
    fn each_lie_is_noticed_by_its_check() {
        let reserving = |units| {
            let mut traces = traces(10, 30, 0, 10, None);
            traces.before.reserved = Some(0);
            traces.after.as_mut().unwrap().reserved = Some(units);
            traces
        };
        assert_eq!(failing(&reserving(10)), []);
        let mut shared = with_orders(traces(10, 30, 0, 10, None), 0..10);
        shared.tried[1].order = Some("o0".into());
        for (lie, caught) in [
            (traces(18, 22, 0, 18, None), CheckName::NotOversold),
            (traces(10, 30, 0, 10, Some(3)), CheckName::Balanced),
            (reserving(1), CheckName::Balanced),
            (traces(10, 30, 0, 8, None), CheckName::NothingLost),
            (with_orders(traces(10, 30, 0, 10, None), 1..11), CheckName::NothingLost),
            (shared, CheckName::NothingLost),
            (traces(8, 32, 0, 10, None), CheckName::NothingInvented),
            (with_orders(traces(10, 30, 0, 10, None), 0..11), CheckName::NothingInvented),
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
        // It hangs between the order and the stock.
        let half_done = traces(0, 0, 40, 39, Some(7));
        assert_eq!(failing(&half_done), []);
        // More is apart than what hangs can explain.
        assert_eq!(failing(&traces(10, 10, 2, 10, Some(3))), [CheckName::Balanced]);
        let unread =
            Traces { after: Err("the truth does not come to rest".into()), ..traces(10, 30, 0, 10, None) };
        assert_eq!(verdict(&checks(&unread)), Verdict::Inconclusive);
        // Too few wanted anything.
        assert_eq!(verdict(&checks(&traces(9, 0, 0, 9, None))), Verdict::Inconclusive);
    }

    #[test]
    fn what_is_sent_twice_is_one_order() {
        let resending = |second: &str, sold| {
            let mut traces = with_orders(traces(10, 30, 0, sold, None), 0..10);
            traces.is_idempotent = true;
            traces.tried[3].resent = Some(Resent { read_as: ReadAs::Ok, order: Some(second.into()) });
            traces
        };
        assert_eq!(failing(&resending("o3", 10)), []);
        assert!(failing(&resending("o11", 10)).contains(&CheckName::OncePerKey));
        let surplus = failing(&resending("o3", 11));
        assert!(surplus.contains(&CheckName::OncePerKey), "{surplus:?}");
        assert!(!surplus.contains(&CheckName::NothingInvented), "one fault, one name: {surplus:?}");
    }

    #[test]
    fn a_counterexample_names_who_was_under_way_together() {
        let text = counterexample(&traces(12, 0, 0, 12, None)).expect("two too many");
        let expected = "purchase 10 is one too many: it was confirmed at 0.060 s, when 10 of 10 units had \
         been \
                        confirmed. Its \"pay\" was under way from 0.051 s; that of purchase 9 was from \
                        0.046 s to \
                        0.055 s, so for 4 ms both were, and both were confirmed. So was that of another.";
        assert_eq!(text, expected);
        let mut lonely = traces(12, 0, 0, 12, None);
        for tried in &mut lonely.tried {
            tried.decided_ms = Some(tried.ended_ms - 1.0);
        }
        let text = counterexample(&lonely).expect("two too many");
        assert!(text.contains("it is an earlier step that looks at the stock"), "{text}");
        let mut before = lonely.clone();
        before.tried[4].decided_ms = Some(before.tried[3].ended_ms - 3.0);
        let text = counterexample(&before).expect("two too many");
        assert!(
            text.contains("But purchase 3 and purchase 4 were in theirs together before, for 1 ms"),
            "{text}"
        );
        for tried in &mut lonely.tried {
            tried.begun_ms = tried.ended_ms - 2.0;
        }
        assert!(counterexample(&lonely).expect("two too many").contains("no race"));
    }
}
