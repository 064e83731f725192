//! The checks that look at one thing each.

use std::collections::{BTreeMap, HashMap, HashSet};

use order_service::api::{Order, OrderStatus};

use super::Finding::{self, Fail, NotApplicable, Pass, Unknown};
use crate::attempt::{Attempt, Outcome};
use crate::errand;
use crate::evidence::{Database, Evidence};

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
    let unknown: Vec<_> = evidence.attempts.iter().filter(|a| !a.replay && a.is_unknown()).collect();
    let there: HashSet<_> = database.orders.iter().map(|order| order.buyer.as_str()).collect();
    let recovered = unknown.iter().filter(|attempt| there.contains(name(attempt).as_str())).count();
    let mut detail = format!("{kept} confirmed answers are in the database");
    if !unknown.is_empty() {
        let absent = unknown.len() - recovered;
        detail += &format!("; of {} without one, {recovered} recovered, {absent} absent", unknown.len());
    }
    found(lost, detail)
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
    let refused: Vec<_> = evidence.attempts.iter().filter(|a| !a.replay && a.is_refused()).collect();
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
    let originals: HashMap<_, _> =
        evidence.attempts.iter().filter(|a| !a.replay).filter_map(|a| Some((a.index, a.sale()?))).collect();
    let mut replays = 0;
    for attempt in evidence.attempts.iter() {
        match (&attempt.outcome, attempt.replay) {
            (Outcome::Sold(sale), false) if sale.replayed => {
                wrong.push(format!("{} was answered as a repetition the first time", name(attempt)));
            }
            (Outcome::Sold(sale), true) => {
                replays += 1;
                let same = originals.get(&attempt.index).is_some_and(|first| {
                    first.id == sale.id && first.version == sale.version && sale.replayed
                });
                if !same {
                    wrong.push(format!("{} was answered with another order when repeated", name(attempt)));
                }
            }
            (Outcome::SoldOut { .. }, true) => {
                wrong.push(format!("{} was confirmed, and sold out when repeated", name(attempt)));
            }
            (Outcome::Failed { why }, true) if !is_temporary(why) => {
                wrong.push(format!("{} was confirmed, and refused when repeated: {why}", name(attempt)));
            }
            _ => {}
        }
    }
    let repeated = evidence.attempts.iter().filter(|attempt| attempt.replay).count();
    if wrong.is_empty() && replays == 0 && repeated > 0 {
        return Unknown(format!("none of {repeated} repetitions was answered"));
    }
    found(wrong, format!("{} orders, {replays} repetitions answered with the same order", ids.len()))
}

/// No two orders read the same stock at the same version.
pub(super) fn no_duplicate_reads(_: &Evidence, database: &Database) -> Finding {
    let mut readers = BTreeMap::<_, Vec<&Order>>::new();
    for order in &database.orders {
        readers.entry((order.version, order.stock_before)).or_default().push(order);
    }
    let mut duplicates = readers.values().filter(|orders| orders.len() > 1).peekable();
    let Some(first) = duplicates.peek() else {
        return Pass("every order read what the one before it wrote".into());
    };
    let (a, b) = (first[0], first[1]);
    let wrote = if a.stock_after == b.stock_after {
        format!("both wrote {}", a.stock_after)
    } else {
        format!("wrote {} and {}", a.stock_after, b.stock_after)
    };
    let witness = format!("{} and {} both read {} and {wrote}", a.buyer, b.buyer, a.stock_before);
    let more = duplicates.map(|orders| orders.len() - 1).sum::<usize>();
    Fail(format!("{witness}; {more} updates lost in all"))
}

/// Fencing tokens never go down along versions. Those of different strategies cannot be compared.
pub(super) fn tokens_increase(_: &Evidence, database: &Database) -> Finding {
    let mut orders: Vec<_> = database.orders.iter().collect();
    orders.sort_by_key(|order| order.version);
    let mut latest = BTreeMap::<&str, (&Order, i64)>::new();
    let (mut down, mut holds, mut without) = (Vec::new(), HashSet::new(), 0);
    for order in &orders {
        let strategy = order.lock.strategy.as_str();
        let Some(token) = order.lock.fencing_token else {
            without += 1;
            continue;
        };
        if let Some((before, high)) = latest.get(strategy).filter(|(_, high)| token < *high) {
            down.push(format!("{} wrote with token {token} after {} with {high}", order.buyer, before.buyer));
        }
        latest.insert(strategy, (order, token));
        holds.insert((strategy, token));
    }
    if holds.is_empty() {
        return NotApplicable("this strategy has no fencing tokens".into());
    }
    if without > 0 {
        return Unknown(format!("{without} of {} orders have no token", orders.len()));
    }
    found(down, format!("{} holds sold", holds.len()))
}

/// Exactly the supply was sold, as far as somebody wanted it, and each refusal for want of stock was true.
pub(super) fn no_false_sold_out(evidence: &Evidence, database: &Database) -> Finding {
    let mut wrong = Vec::new();
    let mut refusals = 0;
    let mut least = None::<&Attempt>;
    for attempt in evidence.attempts.iter().filter(|attempt| !attempt.replay) {
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
    let original = || evidence.attempts.iter().filter(|attempt| !attempt.replay);
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
    let original = || evidence.attempts.iter().filter(|attempt| !attempt.replay);
    let accepted = original().filter(|attempt| attempt.sale().is_some()).count();
    if accepted == 0 && evidence.initial_stock > 0 {
        return Unknown("no order was confirmed".into());
    }
    let failed = original().filter(|a| a.is_unknown() || matches!(a.outcome, Outcome::Failed { .. })).count();
    let unsold = database.audit.supply - units_sold(database);
    if failed > 0 && !evidence.faults && unsold > 0 {
        return Unknown(format!("{failed} attempts failed, and {unsold} units were not sold"));
    }
    Pass(format!("{accepted} orders were confirmed"))
}

/// Every attempt got an answer within its deadline; nobody has or awaits the lock afterwards.
pub(super) fn all_answered(evidence: &Evidence) -> Finding {
    let attempts = evidence.attempts.len();
    let broken = evidence.attempts.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Broken { why } if !evidence.faults => {
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
    let holder = lock.holders.iter().find(|holder| !(holder.expired && evidence.faults));
    match (holder, lock.waiting) {
        (None, 0) => Pass(format!("{attempts} attempts answered, and the lock is free")),
        (Some(holder), _) => {
            let replica = holder.replica.as_deref().unwrap_or("somebody");
            Fail(format!("{replica} still has the lock"))
        }
        (None, waiting) => Fail(format!("{waiting} still wait for the lock")),
    }
}

/// Whether a refusal says nothing of the order itself.
fn is_temporary(why: &str) -> bool {
    let temporary =
        ["lock-timeout", "overloaded", "dependency-down", "shutting-down", "idempotency-in-flight"];
    temporary.contains(&why) || why.starts_with("not sent")
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
