//! The orders in the database, against the answers to their buyers.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::judgement::Judgement::{self, Pass, Unknown};
use super::judgement::name;
use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Database, Evidence};

/// Something was sold, where there was something to sell: a verdict on nothing says nothing.
pub(super) fn exercised(evidence: &Evidence, database: &Database) -> Judgement {
    let original = || Attempt::firsts(&evidence.attempts);
    let accepted = original().filter(|attempt| attempt.sale().is_some()).count();
    if accepted == 0 && evidence.initial_stock > 0 {
        return Unknown("no order was confirmed".into());
    }
    let failed = original().filter(|a| a.is_unknown() || matches!(a.outcome, Outcome::Failed { .. })).count();
    let unsold = database.audit.supply - database.units_sold();
    if failed > 0 && !evidence.faults.any() && unsold > 0 {
        let mut reasons = BTreeMap::<_, usize>::new();
        for why in original().filter_map(|attempt| attempt.outcome.failure()) {
            *reasons.entry(why.to_string()).or_default() += 1;
        }
        let most = reasons.into_iter().max_by_key(|(_, count)| *count);
        let most = most.map_or_else(String::new, |(why, count)| format!(" ({count} of them: {why})"));
        return Unknown(format!("{failed} attempts failed{most}, and {unsold} units were not sold"));
    }
    Pass(format!("{accepted} orders were confirmed"))
}

/// Every confirmed attempt is in the database.
pub(super) fn nothing_lost(evidence: &Evidence, database: &Database) -> Judgement {
    let orders: HashMap<_, _> = database.orders.iter().map(|order| (order.id, order)).collect();
    let confirmed = evidence.attempts.iter().filter_map(|attempt| Some((attempt, attempt.sale()?)));
    let mut lost = Vec::new();
    let mut kept = 0;
    for (attempt, sale) in confirmed {
        match orders.get(&sale.id) {
            Some(order) if order.quantity == attempt.quantity && order.buyer == name(attempt) => kept += 1,
            Some(_) => lost.push(format!("{} is another order than was confirmed", name(attempt))),
            None => lost.push(format!("{} was confirmed and is gone", name(attempt))),
        }
    }
    let unknown: Vec<_> =
        Attempt::firsts(&evidence.attempts).filter(|attempt| attempt.is_unknown()).collect();
    let there: HashSet<_> = database.orders.iter().map(|order| order.buyer.as_str()).collect();
    let recovered = unknown.iter().filter(|attempt| there.contains(name(attempt).as_str())).count();
    let mut detail = format!("{kept} confirmed answers are in the database");
    if !unknown.is_empty() {
        let absent = unknown.len() - recovered;
        detail += &format!("; of {} without one, {recovered} recovered, {absent} absent", unknown.len());
    }
    Judgement::of(lost, detail)
}

/// What each confirmed answer said is what is stored, but for a cancellation since.
pub(super) fn answers_as_stored(evidence: &Evidence, database: &Database) -> Judgement {
    let orders: HashMap<_, _> = database.orders.iter().map(|order| (order.id, order)).collect();
    let (mut wrong, mut same) = (Vec::new(), 0);
    for attempt in &evidence.attempts {
        let Some((sale, order)) = attempt.sale().and_then(|sale| Some((sale, *orders.get(&sale.id)?))) else {
            continue;
        };
        let token = |token: Option<i64>| token.map_or_else(|| "none".into(), |token| token.to_string());
        let said = [
            ("stock before", sale.stock_before.to_string(), order.stock_before.to_string()),
            ("stock after", sale.stock_after.to_string(), order.stock_after.to_string()),
            ("version", sale.version.to_string(), order.version.to_string()),
            ("fencing token", token(sale.token), token(order.lock.fencing_token)),
            ("replica", sale.replica.clone(), order.replica.clone()),
        ];
        match said.iter().find(|(_, said, stored)| said != stored) {
            Some((what, said, stored)) => {
                wrong.push(format!(
                    "{} was answered with the {what} {said}, and {stored} is stored",
                    name(attempt)
                ));
            }
            None => same += 1,
        }
    }
    Judgement::of(wrong, format!("{same} answers say what is stored"))
}

/// Every order in the database was attempted.
pub(super) fn nothing_invented(evidence: &Evidence, database: &Database) -> Judgement {
    let attempted: HashMap<_, _> = evidence.attempts.iter().map(|a| (a.index, a.quantity)).collect();
    let invented = database.orders.iter().filter(|order| {
        let asked = Attempt::index_of(&order.buyer).and_then(|index| attempted.get(&index));
        asked != Some(&order.quantity)
    });
    let invented = invented.map(|order| format!("{} for {} were never ordered", order.quantity, order.buyer));
    Judgement::of(invented.collect(), format!("{} orders, all attempted", database.orders.len()))
}

/// Nothing that was definitely refused is in the database.
pub(super) fn nothing_refused_was_sold(evidence: &Evidence, database: &Database) -> Judgement {
    let there: HashSet<_> = database.orders.iter().map(|order| order.buyer.as_str()).collect();
    // What was refused each time that it was sent: of others, one sending may have bought.
    let sendings = evidence.attempts.chunk_by(|a, b| a.index == b.index);
    let refused = sendings.filter(|sendings| sendings.iter().all(Attempt::is_refused));
    let refused: Vec<_> = refused.map(|sendings| &sendings[0]).collect();
    let sold = refused.iter().filter(|attempt| there.contains(name(attempt).as_str()));
    let sold = sold.map(|attempt| format!("{} was refused and is in the database", name(attempt)));
    Judgement::of(sold.collect(), format!("{} refusals, none in the database", refused.len()))
}
