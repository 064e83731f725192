//! Whether the stock behaved as one register that was changed at one instant inside each call.
//!
//! In general that is an exponential search (Wing and Gong, 1993). Here the service hands out the version
//! that each change makes, and the version at which each refusal saw the stock, so there is only one order to
//! try: O(n log n). Along it, the instant of an operation cannot be before the invocation of anything that
//! comes earlier in the order; if that is after its own return, the order contradicts real time.

use std::collections::HashMap;

use super::judgement::Judgement::{self, Fail, Pass};
use super::reservations::change_of;
use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Database, Evidence};
use crate::side_operation::SideOutcome;

/// A call on the register: `invoked` and `returned` in nanoseconds; a call without an answer returns never.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Operation {
    name: String,
    invoked: u64,
    returned: u64,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Read `before`, wrote `after`, and made `version`.
    Change { version: i64, before: i64, after: i64 },
    /// Read `stock` at `version`.
    Read { version: i64, stock: i64 },
}

/// The check on a run's evidence.
pub(super) fn linearizable(evidence: &Evidence, database: &Database) -> Judgement {
    let operations = operations(evidence, database);
    let end = match check(evidence.initial_stock, &operations) {
        Ok(end) => end,
        Err(counterexample) => return Fail(counterexample),
    };
    let audit = &database.audit;
    let restocks = database.adjustments.iter().filter(|adjustment| change_of(adjustment).is_none());
    let supply = evidence.initial_stock + restocks.map(|restock| restock.delta).sum::<i64>();
    for (what, says, follows) in [
        ("stock", audit.stock, end.stock),
        ("version", audit.version, end.version),
        ("supply", audit.supply, supply),
    ] {
        if says != follows {
            return Fail(format!("the product's {what} is {says}, where its history leaves {follows}"));
        }
    }
    Pass(format!("{} operations fit one order and real time", operations.len()))
}

/// What a history leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    stock: i64,
    version: i64,
}

fn operations(evidence: &Evidence, database: &Database) -> Vec<Operation> {
    let sendings = evidence.attempts.chunk_by(|a, b| a.index == b.index);
    let attempts: HashMap<_, _> = sendings.map(|sendings| (sendings[0].index, sendings)).collect();
    let mut operations = Vec::new();
    for order in &database.orders {
        // Any sending may have bought, and the first answer says that one has.
        let sendings = Attempt::index_of(&order.buyer).and_then(|index| attempts.get(&index).copied());
        let sendings = sendings.unwrap_or_default();
        let invoked = sendings.iter().map(|attempt| attempt.sent).min();
        let confirmed = sendings.iter().filter(|attempt| attempt.sale().is_some());
        operations.push(Operation {
            name: order.buyer.clone(),
            invoked: invoked.unwrap_or(0),
            returned: confirmed.map(|attempt| attempt.received).min().unwrap_or(u64::MAX),
            action: Action::Change {
                version: order.version,
                before: order.stock_before,
                after: order.stock_after,
            },
        });
    }
    for attempt in &evidence.attempts {
        if let Outcome::SoldOut { available, version } = attempt.outcome {
            operations.push(Operation {
                name: Attempt::buyer(attempt.index),
                invoked: attempt.sent,
                returned: attempt.received,
                action: Action::Read { version, stock: available },
            });
        }
    }
    let side_operations: HashMap<_, _> = evidence
        .side_operations
        .iter()
        .filter_map(|operation| Some((operation.reason()?, operation)))
        .collect();
    let mut stock: HashMap<i64, i64> =
        database.orders.iter().map(|order| (order.version, order.stock_after)).collect();
    stock.insert(0, evidence.initial_stock);
    for adjustment in &database.adjustments {
        let before = stock.get(&(adjustment.version - 1)).copied().unwrap_or_default();
        stock.insert(adjustment.version, before + adjustment.delta);
        // That of another client may have been at any time, and one without an answer at any time after it
        // was sent.
        let operation = side_operations.get(&adjustment.reason);
        let answered = operation.filter(|operation| operation.is_done());
        operations.push(Operation {
            name: adjustment.reason.clone(),
            invoked: operation.map_or(0, |operation| operation.sent),
            returned: answered.map_or(u64::MAX, |operation| operation.received),
            action: Action::Change { version: adjustment.version, before, after: before + adjustment.delta },
        });
    }
    for (number, operation) in evidence.side_operations.iter().enumerate() {
        let seen = match operation.outcome {
            SideOutcome::Read { stock, version } => Some((format!("read {number}"), stock, version)),
            // A payment that came when nothing was left.
            SideOutcome::SoldOut { available, version } => {
                Some((operation.reason().unwrap_or_default(), available, version))
            }
            _ => None,
        };
        if let Some((name, stock, version)) = seen {
            operations.push(Operation {
                name,
                invoked: operation.sent,
                returned: operation.received,
                action: Action::Read { version, stock },
            });
        }
    }
    operations
}

/// Replays the operations in the order of their versions, or says where that is not possible.
fn check(initial_stock: i64, operations: &[Operation]) -> Result<End, String> {
    let mut order: Vec<_> = operations.iter().collect();
    order.sort_by_key(|operation| match operation.action {
        Action::Change { version, .. } => (version, 0),
        Action::Read { version, .. } => (version, 1),
    });
    let (mut version, mut stock) = (0, initial_stock);
    let mut earliest = Earliest::default();
    let mut reads: Vec<&Operation> = Vec::new();
    for operation in order {
        let name = &operation.name;
        match operation.action {
            Action::Change { version: made, before, after } => {
                if made != version + 1 {
                    return Err(if made == version {
                        format!("{name} made version {made}, which another change had made")
                    } else {
                        format!("{name} made version {made} after {version}: a change is missing")
                    });
                }
                if before != stock {
                    return Err(format!(
                        "{name} read {before} at version {version}, where {stock} was written"
                    ));
                }
                // What was read at a version was read before the next was made; among themselves, such reads
                // may have come in any order.
                reads.drain(..).for_each(|read| earliest.after(read));
                earliest.after(operation);
                earliest.allows(operation)?;
                (version, stock) = (made, after);
            }
            Action::Read { version: seen, stock: available } => {
                if seen != version {
                    return Err(format!("{name} read version {seen}, which no change made"));
                }
                if available != stock {
                    return Err(format!(
                        "{name} read {available} at version {version}, where {stock} was written"
                    ));
                }
                earliest.allows(operation)?;
                reads.push(operation);
            }
        }
    }
    Ok(End { stock, version })
}

/// The earliest instant at which the next operation can have been: after the invocation of all before it.
#[derive(Default)]
struct Earliest<'a> {
    instant: u64,
    because_of: Option<&'a str>,
}

impl<'a> Earliest<'a> {
    fn after(&mut self, operation: &'a Operation) {
        if operation.invoked > self.instant {
            self.instant = operation.invoked;
            self.because_of = Some(&operation.name);
        }
    }

    fn allows(&self, operation: &Operation) -> Result<(), String> {
        if self.instant.max(operation.invoked) <= operation.returned {
            return Ok(());
        }
        let name = &operation.name;
        let later = self.because_of.unwrap_or(name);
        let ms = (self.instant - operation.returned) as f64 / 1e6;
        Err(format!(
            "{name} comes after {later} in the versions, but was answered {ms:.3} ms before it was sent"
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tries every order: is there one that respects real time and in which each operation is right?
    fn exhaustive(initial_stock: i64, operations: &[Operation]) -> bool {
        fn search(version: i64, stock: i64, left: &[&Operation]) -> bool {
            if left.is_empty() {
                return true;
            }
            (0..left.len()).any(|i| {
                let operation = left[i];
                // Nothing that is still to come had returned before this was invoked.
                let too_early = left.iter().any(|other| other.returned < operation.invoked);
                let next = match operation.action {
                    Action::Change { version: made, before, after } => {
                        (made == version + 1 && before == stock).then_some((made, after))
                    }
                    Action::Read { version: seen, stock: available } => {
                        (seen == version && available == stock).then_some((version, stock))
                    }
                };
                let rest: Vec<_> =
                    left.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, o)| *o).collect();
                !too_early && next.is_some_and(|(version, stock)| search(version, stock, &rest))
            })
        }
        search(0, initial_stock, &operations.iter().collect::<Vec<_>>())
    }

    /// A history whose actions fit each other more often than not, with times that may not.
    fn history() -> impl Strategy<Value = Vec<Operation>> {
        let call = (0..12_u64, 0..8_u64, prop::bool::weighted(0.3), 0..20_u8);
        prop::collection::vec(call, 0..7).prop_map(|calls| {
            let (mut version, mut stock) = (0, 10);
            let mut operations = Vec::new();
            for (i, (invoked, length, is_read, defect)) in calls.into_iter().enumerate() {
                let action = if is_read {
                    Action::Read { version, stock: if defect == 0 { stock + 1 } else { stock } }
                } else {
                    let before = if defect == 1 { stock + 1 } else { stock };
                    version += if defect == 2 { 0 } else { 1 };
                    stock = before - 1;
                    Action::Change { version, before, after: stock }
                };
                let returned = if defect == 3 { u64::MAX } else { invoked + length };
                operations.push(Operation { name: format!("o{i}"), invoked, returned, action });
            }
            operations
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn agrees_with_a_search_through_all_orders(operations in history()) {
            prop_assert_eq!(check(10, &operations).is_ok(), exhaustive(10, &operations));
        }
    }

    #[test]
    fn an_answer_before_its_predecessor_was_sent_is_a_counterexample() {
        let change = |name: &str, invoked, returned, version, before| Operation {
            name: name.into(),
            invoked,
            returned,
            action: Action::Change { version, before, after: before - 1 },
        };
        let history = [change("A", 5_000_000, 6_000_000, 1, 2), change("B", 0, 4_000_000, 2, 1)];
        let counterexample = check(2, &history).unwrap_err();
        assert_eq!(
            counterexample,
            "B comes after A in the versions, but was answered 1.000 ms before it was sent"
        );
    }
}
