//! The checks that look at one thing each.

use std::collections::{BTreeMap, HashMap, HashSet};

use order_service::api::{Order, OrderStatus};

use super::Finding::{self, Fail, NotApplicable, Pass, Unknown};
use crate::attempt::{Attempt, Outcome, Sale};
use crate::availability::{self, Between, Sales};
use crate::errand;
use crate::evidence::{Database, Evidence, Faults};
use crate::lost_updates::Readers;

/// How many culprits are named.
const NAMED: usize = 3;

/// Σ confirmed quantity ≤ supply.
pub(super) fn not_oversold(_: &Evidence, database: &Database) -> Finding {
    let (sold, supply) = (units_sold(database), database.audit.supply);
    if sold != database.audit.units_sold {
        return Fail(format!(
            "the orders hold {sold} units and the books say {}: orders were missing from one of them",
            database.audit.units_sold
        ));
    }
    let detail = format!("{sold} sold of {supply}");
    if sold > supply { Fail(format!("oversold by {}: {detail}", sold - supply)) } else { Pass(detail) }
}

/// stock = supply − Σ confirmed quantity; no value below zero was ever seen.
pub(super) fn balanced(_: &Evidence, database: &Database) -> Finding {
    let owed = database.audit.supply - units_sold(database);
    let stock = database.audit.stock;
    let below = database.orders.iter().find(|order| order.stock_before < 0 || order.stock_after < 0);
    if let Some(order) = below {
        return Fail(format!("{} left a stock of {}", order.buyer, order.stock_after));
    }
    if stock == owed {
        return Pass(format!("{stock} in stock, as the orders leave"));
    }
    Fail(format!("{stock} in stock, where the orders leave {owed}: {} units lost track of", stock - owed))
}

/// Every confirmed attempt is in the database.
pub(super) fn nothing_lost(evidence: &Evidence, database: &Database) -> Finding {
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
    found(lost, detail)
}

/// What each confirmed answer said is what is stored, but for a cancellation since.
pub(super) fn answers_as_stored(evidence: &Evidence, database: &Database) -> Finding {
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
                wrong.push(format!("{} was told the {what} {said}, and {stored} is stored", name(attempt)));
            }
            None => same += 1,
        }
    }
    found(wrong, format!("{same} answers say what is stored"))
}

/// Every cancellation and every restock that was done is in the database, and no other, each once.
pub(super) fn adjustments_kept(evidence: &Evidence, database: &Database) -> Finding {
    let asked: HashMap<_, _> =
        evidence.errands.iter().filter_map(|errand| Some((errand.reason()?, errand))).collect();
    if asked.is_empty() && database.adjustments.is_empty() {
        return NotApplicable("nobody restocked or cancelled".into());
    }
    let (mut wrong, mut there) = (Vec::new(), HashSet::new());
    for adjustment in &database.adjustments {
        let reason = &adjustment.reason;
        if !there.insert(reason) {
            wrong.push(format!("{reason:?} was done twice"));
        }
        match asked.get(reason).map(|errand| &errand.outcome) {
            None => wrong.push(format!("nobody asked for {reason:?}")),
            Some(errand::Outcome::Refused(_)) => wrong.push(format!("{reason:?} was refused and is there")),
            Some(_) => {}
        }
    }
    let done = asked.iter().filter(|(_, errand)| errand.outcome == errand::Outcome::Done);
    wrong.extend(
        done.filter(|(reason, _)| !there.contains(reason))
            .map(|(reason, _)| format!("{reason:?} was done and is gone")),
    );
    found(wrong, format!("{} restocks and cancellations, all asked for", there.len()))
}

/// Every order in the database was attempted.
pub(super) fn nothing_invented(evidence: &Evidence, database: &Database) -> Finding {
    let attempted: HashMap<_, _> = evidence.attempts.iter().map(|a| (a.index, a.quantity)).collect();
    let invented = database.orders.iter().filter(|order| {
        let asked = Attempt::index_of(&order.buyer).and_then(|index| attempted.get(&index));
        asked != Some(&order.quantity)
    });
    let invented = invented.map(|order| format!("nobody ordered {} for {}", order.quantity, order.buyer));
    found(invented.collect(), format!("{} orders, all attempted", database.orders.len()))
}

/// Nothing that was definitely refused is in the database.
pub(super) fn nothing_refused_was_sold(evidence: &Evidence, database: &Database) -> Finding {
    let there: HashSet<_> = database.orders.iter().map(|order| order.buyer.as_str()).collect();
    // What was refused each time that it was sent: of others, one sending may have bought.
    let sendings = evidence.attempts.chunk_by(|a, b| a.index == b.index);
    let refused = sendings.filter(|sendings| sendings.iter().all(Attempt::is_refused));
    let refused: Vec<_> = refused.map(|sendings| &sendings[0]).collect();
    let sold = refused.iter().filter(|attempt| there.contains(name(attempt).as_str()));
    let sold = sold.map(|attempt| format!("{} was refused and is in the database", name(attempt)));
    found(sold.collect(), format!("{} refusals, none in the database", refused.len()))
}

/// At most one order per idempotency key; a replay returns the same order.
pub(super) fn once_per_key(evidence: &Evidence, database: &Database) -> Finding {
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
        // Of those that were refused each time, no order is to be had.
        if sendings.iter().any(|sending| sending.sale().is_some()) {
            sent_again += sendings.iter().filter(|sending| sending.replay).count();
        }
    }
    if wrong.is_empty() && repetitions == 0 && sent_again > 0 {
        return Unknown(format!("none of {sent_again} repetitions of orders was answered with one"));
    }
    found(wrong, format!("{} orders, {repetitions} repetitions answered with the same order", ids.len()))
}

/// Looks at all sendings of one order; returns how many of those that repeated another were answered with an order.
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

/// No two orders read the same stock at the same version.
pub(super) fn no_duplicate_reads(_: &Evidence, database: &Database) -> Finding {
    let mut readers = Readers::default();
    for order in &database.orders {
        readers.add(order.version, order.stock_before, order);
    }
    let Some(first) = readers.first_duplicates() else {
        return Pass("every order read what the one before it wrote".into());
    };
    let (a, b) = (first.readers[0], first.readers[1]);
    let wrote = if a.stock_after == b.stock_after {
        format!("both wrote {}", a.stock_after)
    } else {
        format!("wrote {} and {}", a.stock_after, b.stock_after)
    };
    let witness = format!("{} and {} both read {} and {wrote}", a.buyer, b.buyer, a.stock_before);
    Fail(format!("{witness}; {} updates lost in all", readers.lost_updates()))
}

/// Fencing tokens grow from hold to hold, and never go down along versions. Those of different strategies cannot be
/// compared.
pub(super) fn tokens_increase(evidence: &Evidence, database: &Database) -> Finding {
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
    found(wrong, format!("{} holds sold, and the tokens of {of_holds} holds grow", holders.len()))
}

/// Each hold has a token of its own, which is greater than those of all that had ended before it began. Returns how many
/// there are.
fn tokens_of_holds(evidence: &Evidence, wrong: &mut Vec<String>) -> usize {
    let records = evidence.holds.known();
    // A life that has ended is in the record twice, if it was asked twice.
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

/// Exactly the supply was sold, as far as somebody wanted it, and each refusal for want of stock was true.
pub(super) fn no_false_sold_out(evidence: &Evidence, database: &Database) -> Finding {
    let mut wrong = Vec::new();
    let mut refusals = 0;
    let mut least = None::<&Attempt>;
    for attempt in Attempt::firsts(&evidence.attempts) {
        let Outcome::SoldOut { available, .. } = attempt.outcome else { continue };
        refusals += 1;
        if attempt.quantity <= available {
            wrong.push(format!(
                "{} was refused {} units where {available} were left",
                name(attempt),
                attempt.quantity
            ));
        }
        least = least.filter(|least| least.quantity <= attempt.quantity).or(Some(attempt));
    }
    let stock = database.audit.stock;
    // Without restocks and cancellations stock only falls: what is left at the end was there all the time.
    if let Some(least) = least
        && database.adjustments.is_empty()
        && least.quantity <= stock
    {
        wrong.push(format!("{} was refused {} units, and {stock} are left", name(least), least.quantity));
    }
    let original = || Attempt::firsts(&evidence.attempts);
    let demand: i64 = original().map(|attempt| attempt.quantity).sum();
    let failed = original().filter(|a| a.is_unknown() || matches!(a.outcome, Outcome::Failed { .. })).count();
    let sold = units_sold(database);
    let one_by_one = original().all(|attempt| attempt.quantity == 1);
    let all_wanted = demand >= database.audit.supply && one_by_one && database.adjustments.is_empty();
    if wrong.is_empty() && all_wanted && sold < database.audit.supply && failed == 0 {
        wrong.push(format!("{sold} sold of {}, which {demand} were wanted of", database.audit.supply));
    }
    found(wrong, format!("{refusals} refusals for want of stock, all true; {stock} left"))
}

/// Something was sold, where there was something to sell: a verdict on nothing says nothing.
pub(super) fn exercised(evidence: &Evidence, database: &Database) -> Finding {
    let original = || Attempt::firsts(&evidence.attempts);
    let accepted = original().filter(|attempt| attempt.sale().is_some()).count();
    if accepted == 0 && evidence.initial_stock > 0 {
        return Unknown("no order was confirmed".into());
    }
    let failed = original().filter(|a| a.is_unknown() || matches!(a.outcome, Outcome::Failed { .. })).count();
    let unsold = database.audit.supply - units_sold(database);
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

/// Every fault struck while orders were being sold: one that meets an empty shop proves nothing.
pub(super) fn faults_struck(evidence: &Evidence) -> Finding {
    let (broken, missed) = match &evidence.faults {
        Faults::None => return NotApplicable("nothing was broken".into()),
        Faults::Unknown => return NotApplicable("what was broken, and when, is not known here".into()),
        Faults::Known { broken, missed } => (broken, missed),
    };
    let end = Sales::of(evidence).end;
    let late = broken.iter().filter(|broken| broken.from > end).map(|broken| {
        format!(
            "{} after {:.1} s, when nothing was to be sold any more",
            broken.what,
            broken.from as f64 / 1e9
        )
    });
    let unmet: Vec<_> = missed.iter().cloned().chain(late).collect();
    if !unmet.is_empty() {
        let Fail(unmet) = found(unmet, String::new()) else { unreachable!("there are some") };
        return Unknown(format!("not put to the proof: {unmet}"));
    }
    Pass(format!("{} faults struck while orders were being sold", broken.len()))
}

/// Where nothing was broken, the shop sold.
pub(super) fn available(evidence: &Evidence) -> Finding {
    let Faults::Known { broken, .. } = &evidence.faults else {
        return NotApplicable("nothing was broken, as far as is known".into());
    };
    match availability::between_faults(evidence, broken) {
        Between::Down(why) => Fail(why),
        Between::Idle(why) => Unknown(why),
        Between::Up(detail) => Pass(detail),
    }
}

/// Every attempt got an answer within its deadline; nobody has or awaits the lock afterwards.
pub(super) fn all_answered(evidence: &Evidence) -> Finding {
    let attempts = evidence.attempts.len();
    let broken = evidence.attempts.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Broken { why } if !evidence.faults.any() => {
            Some(format!("{} got no answer: {why}", name(attempt)))
        }
        _ => None,
    });
    if let Some(broken) = broken {
        return Fail(broken);
    }
    let silent = evidence.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Unanswered);
    let silent: Vec<_> = silent.map(|attempt| format!("{} got no answer in time", name(attempt))).collect();
    if !silent.is_empty() {
        return found(silent, String::new());
    }
    let lock = match &evidence.lock {
        Ok(lock) => lock,
        Err(why) => return Unknown(format!("who has the lock cannot be seen: {why}")),
    };
    // A crashed holder's lock is free when it has expired; without a crash there is nothing to be left.
    let holder = lock.holders.iter().find(|holder| !(holder.expired && evidence.faults.any()));
    match (holder, lock.waiting) {
        (None, 0) => Pass(format!("{attempts} attempts answered, and the lock is free")),
        (Some(holder), _) => {
            let replica = holder.replica.as_deref().unwrap_or("somebody");
            Fail(format!("{replica} still has the lock"))
        }
        (None, waiting) => Fail(format!("{waiting} still wait for the lock")),
    }
}

fn units_sold(database: &Database) -> i64 {
    let confirmed = database.orders.iter().filter(|order| order.status == OrderStatus::Confirmed);
    confirmed.map(|order| order.quantity).sum()
}

fn name(attempt: &Attempt) -> String {
    Attempt::buyer(attempt.index)
}

/// Fails with the first of what was found wrong, or passes with `detail`.
fn found(wrong: Vec<String>, detail: String) -> Finding {
    if wrong.is_empty() {
        return Pass(detail);
    }
    let named = wrong[..wrong.len().min(NAMED)].join("; ");
    let more = wrong.len().saturating_sub(NAMED);
    Fail(if more > 0 { format!("{named}; and {more} more") } else { named })
}
