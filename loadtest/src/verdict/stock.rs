//! What was sold, and what is left.

use std::collections::{BTreeMap, HashMap, HashSet};

use order_service::api::{Audit, CountedFrom, OrderStatus, OrderTotals};

use super::judgement::Judgement::{self, Fail, NotApplicable, Pass};
use super::judgement::name;
use super::reservations::{End, change_of};
use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Database, Evidence};
use crate::lost_updates::Readers;
use crate::side_operation::SideOutcome;

/// Σ confirmed and reserved quantity ≤ supply, at every version.
pub(super) fn not_oversold(evidence: &Evidence, database: &Database) -> Judgement {
    let Audit { supply, .. } = database.audit;
    let (sold, reserved) = (database.units_sold(), database.units_reserved());
    let is_counted = database.audit.counted_from == CountedFrom::Orders;
    for (what, units, audit) in [
        ("hold", sold, database.audit.units_sold),
        ("have reserved", reserved, database.audit.units_reserved),
    ] {
        // What the shop has not counted says nothing about which orders there are.
        if is_counted && units != audit {
            return Fail(format!(
                "the orders {what} {units} units and the audit says {audit}: orders were missing from one of \
                 them"
            ));
        }
    }
    let mut detail = format!("{sold} sold of {supply}");
    if reserved > 0 {
        detail += &format!(", {reserved} reserved");
    }
    let taken = sold + reserved;
    if taken > supply {
        return Fail(format!("oversold by {}: {detail}", taken - supply));
    }
    match oversold_meanwhile(evidence, database) {
        Some(moment) => Fail(format!("{moment}; in the end, {detail}")),
        None => Pass(detail),
    }
}

/// Where more was sold and reserved than there was, although that was put right later; looked for where the
/// versions put all changes in one order.
fn oversold_meanwhile(evidence: &Evidence, database: &Database) -> Option<String> {
    let mut changes = BTreeMap::new();
    for order in &database.orders {
        // What an order takes when it is placed.
        let taken =
            if order.pay_by.is_some() { order.stock_before - order.stock_after } else { order.quantity };
        changes.insert(order.version, (0, taken));
    }
    for adjustment in &database.adjustments {
        let is_restock = change_of(adjustment).is_none();
        let (added, taken) = if is_restock { (adjustment.delta, 0) } else { (0, -adjustment.delta) };
        changes.insert(adjustment.version, (added, taken));
    }
    if changes.len() != database.orders.len() + database.adjustments.len() {
        return None;
    }
    let (mut supply, mut taken) = (evidence.initial_stock, 0);
    changes.into_iter().find_map(|(version, (more_supply, more_taken))| {
        supply += more_supply;
        taken += more_taken;
        (taken > supply).then(|| format!("{taken} were sold or reserved of {supply} at version {version}"))
    })
}

/// stock = supply − Σ confirmed and reserved quantity, and the shop's own counters say what the orders do; no
/// value below zero was ever seen.
pub(super) fn balanced(_: &Evidence, database: &Database) -> Judgement {
    let expected = database.audit.supply - database.units_sold() - database.units_reserved();
    let stock = database.audit.stock;
    let below = database.orders.iter().find(|order| order.stock_before < 0 || order.stock_after < 0);
    if let Some(order) = below {
        return Fail(format!("{} left a stock of {}", order.buyer, order.stock_after));
    }
    let totals = database.totals();
    if let Some(counters) = database.audit.counters.filter(|counters| *counters != totals) {
        return Fail(format!("the product's counters say {}, its orders {}", words(counters), words(totals)));
    }
    if stock == expected {
        return Pass(format!("{stock} in stock, as the orders leave"));
    }
    Fail(format!(
        "{stock} in stock, where the orders leave {expected}: {} units lost track of",
        stock - expected
    ))
}

fn words(totals: OrderTotals) -> String {
    let OrderTotals { orders, units_sold, units_reserved } = totals;
    format!("{units_sold} sold and {units_reserved} reserved by {orders} orders")
}

/// No two orders read the same stock at the same version.
pub(super) fn no_duplicate_reads(_: &Evidence, database: &Database) -> Judgement {
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

/// Every cancellation, payment and restock that was done is in the database, and no other, each once. The
/// shop itself ends what is not paid in time.
pub(super) fn adjustments_kept(evidence: &Evidence, database: &Database) -> Judgement {
    let asked: HashMap<_, _> = evidence
        .side_operations
        .iter()
        .filter_map(|operation| Some((operation.reason()?, operation)))
        .collect();
    if asked.is_empty() && database.adjustments.is_empty() {
        return NotApplicable("nothing was restocked, cancelled or paid".into());
    }
    let expired = database.orders.iter().filter(|order| order.status == OrderStatus::Expired);
    let expired: HashSet<_> = expired.map(|order| (order.id, End::Expired)).collect();
    let (mut wrong, mut there) = (Vec::new(), HashSet::new());
    for adjustment in &database.adjustments {
        let reason = &adjustment.reason;
        if !there.insert(reason) {
            wrong.push(format!("{reason:?} was done twice"));
        }
        match asked.get(reason).map(|operation| &operation.outcome) {
            None if change_of(adjustment).is_some_and(|change| expired.contains(&change)) => {}
            None => wrong.push(format!("{reason:?} was never asked for")),
            Some(SideOutcome::Refused(_) | SideOutcome::SoldOut { .. }) => {
                wrong.push(format!("{reason:?} was refused and is there"));
            }
            Some(_) => {}
        }
    }
    let done = asked.iter().filter(|(_, operation)| operation.is_done());
    wrong.extend(
        done.filter(|(reason, _)| !there.contains(reason))
            .map(|(reason, _)| format!("{reason:?} was done and is gone")),
    );
    Judgement::of(
        wrong,
        format!("{} restocks, cancellations and ends of payment, all as asked for", there.len()),
    )
}

/// Exactly the supply was sold, as far as it was ordered, and each refusal for want of stock was true.
pub(super) fn no_false_sold_out(evidence: &Evidence, database: &Database) -> Judgement {
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
    let sold = database.units_sold();
    let one_by_one = original().all(|attempt| attempt.quantity == 1);
    let all_wanted = demand >= database.audit.supply && one_by_one && database.adjustments.is_empty();
    if wrong.is_empty() && all_wanted && sold < database.audit.supply && failed == 0 {
        wrong.push(format!("{sold} sold of {}, which {demand} were wanted of", database.audit.supply));
    }
    Judgement::of(wrong, format!("{refusals} refusals for want of stock, all true; {stock} left"))
}
