//! Idempotency keys: an order that is sent again is still one order.

use std::collections::HashSet;

use super::judgement::Judgement::{self, Unknown};
use super::judgement::name;
use crate::attempt::{Attempt, Outcome, Sale};
use crate::evidence::{Database, Evidence};

/// At most one order per idempotency key; a replay returns the same order.
pub(super) fn once_per_key(evidence: &Evidence, database: &Database) -> Judgement {
    let mut wrong = Vec::new();
    let (mut ids, mut buyers) = (HashSet::new(), HashSet::new());
    for order in &database.orders {
        if !ids.insert(order.id) {
            wrong.push(format!("two orders have the id {}", order.id));
        }
        if !buyers.insert(&order.buyer) {
            wrong.push(format!("{} bought twice with one key", order.buyer));
        }
    }
    let (mut repetitions, mut sent_again) = (0, 0);
    for sendings in evidence.attempts.chunk_by(|a, b| a.index == b.index) {
        repetitions += repeated(sendings, &mut wrong);
        // What was refused each time that it was sent is answered with no order.
        if sendings.iter().any(|sending| sending.sale().is_some()) {
            sent_again += sendings.iter().filter(|sending| sending.replay).count();
        }
    }
    if wrong.is_empty() && repetitions == 0 && sent_again > 0 {
        return Unknown(format!("none of {sent_again} repetitions of orders was answered with one"));
    }
    Judgement::of(
        wrong,
        format!("{} orders, {repetitions} repetitions answered with the same order", ids.len()),
    )
}

/// Checks all sendings of one order. Returns how many of those that repeated another were answered with an
/// order.
fn repeated(sendings: &[Attempt], wrong: &mut Vec<String>) -> usize {
    let mut repetitions = 0;
    for (place, attempt) in sendings.iter().enumerate() {
        // What was answered before this one was sent.
        let before =
            || sendings.iter().filter(|other| other.received <= attempt.sent && other.sent < attempt.sent);
        let confirmed = before().find_map(Attempt::sale);
        let is_alone = sendings
            .iter()
            .enumerate()
            .all(|(other, sending)| other == place || attempt.received <= sending.sent);
        match &attempt.outcome {
            Outcome::Sold(sale) if sale.replayed && is_alone => {
                wrong.push(format!("{} was answered as a repetition the first time", name(attempt)));
            }
            Outcome::Sold(sale) => {
                repetitions += usize::from(attempt.replay);
                let is_same = |first: &Sale| first.id == sale.id && first.version == sale.version;
                let mut others = sendings.iter().filter_map(Attempt::sale);
                if !others.all(is_same) || confirmed.is_some_and(|_| !sale.replayed) {
                    wrong.push(format!("{} was answered with another order when repeated", name(attempt)));
                }
            }
            Outcome::SoldOut { .. } if confirmed.is_some() => {
                wrong.push(format!("{} was confirmed, and sold out when repeated", name(attempt)));
            }
            Outcome::Failed { why } if confirmed.is_some() && !why.is_temporary() => {
                wrong.push(format!("{} was confirmed, and refused when repeated: {why}", name(attempt)));
            }
            _ => {}
        }
    }
    let firsts = sendings.iter().filter_map(Attempt::sale).filter(|sale| !sale.replayed).count();
    if firsts > 1 {
        wrong.push(format!("{} bought {firsts} times with one key", name(&sendings[0])));
    }
    repetitions
}
