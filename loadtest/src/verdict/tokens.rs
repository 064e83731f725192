//! Fencing tokens: they order the holds of a lock.

use std::collections::{BTreeMap, HashMap};

use order_service::api::Order;

use super::judgement::Judgement::{self, NotApplicable, Unknown};
use crate::evidence::{Database, Evidence};

/// Fencing tokens grow from hold to hold, and never go down along versions. Those of different strategies
/// cannot be compared.
pub(super) fn tokens_increase(evidence: &Evidence, database: &Database) -> Judgement {
    let mut orders: Vec<_> = database.orders.iter().collect();
    orders.sort_by_key(|order| order.version);
    let mut latest = BTreeMap::<&str, (&Order, i64)>::new();
    let mut holders = HashMap::<(&str, i64), &Order>::new();
    let (mut wrong, mut without) = (Vec::new(), 0);
    for order in &orders {
        let strategy = order.lock.strategy.as_str();
        let Some(token) = order.lock.fencing_token else {
            without += 1;
            continue;
        };
        if let Some((before, high)) = latest.get(strategy).filter(|(_, high)| token < *high) {
            wrong
                .push(format!("{} wrote with token {token} after {} with {high}", order.buyer, before.buyer));
        }
        latest.insert(strategy, (order, token));
        let first = holders.entry((strategy, token)).or_insert(order);
        if first.replica != order.replica {
            wrong.push(format!("{} and {} both wrote with token {token}", first.replica, order.replica));
        }
    }
    // Holds do not say of which strategy they are.
    let is_one_strategy = latest.len() <= 1;
    let of_holds = if is_one_strategy { tokens_of_holds(evidence, &mut wrong) } else { 0 };
    if holders.is_empty() && of_holds == 0 {
        return NotApplicable("this strategy has no fencing tokens".into());
    }
    if without > 0 {
        return Unknown(format!("{without} of {} orders have no token", orders.len()));
    }
    Judgement::of(wrong, format!("{} holds sold, and the tokens of {of_holds} holds grow", holders.len()))
}

/// Each hold has a token of its own, which is greater than those of all that had ended before it began.
/// Returns how many there are.
fn tokens_of_holds(evidence: &Evidence, wrong: &mut Vec<String>) -> usize {
    let records = evidence.holds.known();
    // The holds of a replica that was killed are there twice where its record was read twice.
    let holds: BTreeMap<_, _> = records
        .flat_map(|record| record.holds.iter().map(|hold| (&record.replica, hold)))
        .filter_map(|(replica, hold)| Some(((hold.acquired_ns, replica), (hold, hold.fencing_token?))))
        .collect();
    let mut owners = HashMap::new();
    for ((_, replica), (_, token)) in &holds {
        if let Some(other) = owners.insert(token, replica) {
            wrong.push(format!("{other} and {replica} had the lock with the same token {token}"));
        }
    }
    let mut ended: Vec<_> =
        holds.values().filter_map(|(hold, token)| Some((hold.released_ns?, *token))).collect();
    ended.sort_unstable();
    let mut ended = ended.into_iter().peekable();
    let mut greatest = None;
    for ((acquired, replica), (_, token)) in &holds {
        while let Some((_, token)) = ended.next_if(|(released, _)| released <= acquired) {
            greatest = greatest.max(Some(token));
        }
        if let Some(before) = greatest.filter(|before| token < before) {
            wrong
                .push(format!("{replica} got the lock with token {token} after one with {before} had ended"));
        }
    }
    holds.len()
}
