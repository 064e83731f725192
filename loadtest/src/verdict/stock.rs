//! What was sold, and what is left.

use std::collections::{HashMap, HashSet};

use super::judgement::Judgement::{self, Fail, NotApplicable, Pass};
use super::judgement::{name, units_sold};
use crate::attempt::{Attempt, Outcome};
use crate::evidence::{Database, Evidence};
use crate::lost_updates::Readers;
use crate::side_operation::SideOutcome;

/// Σ confirmed quantity ≤ supply.
pub(super) fn not_oversold(_: &Evidence, database: &Database) -> Judgement {
    let (sold, supply) = (units_sold(database), database.audit.supply);
    if sold != database.audit.units_sold {
        return Fail(format!(
            "the orders hold {sold} units and the audit says {}: orders were missing from one of them",
            database.audit.units_sold
        ));
    }
    let detail = format!("{sold} sold of {supply}");
    if sold > supply { Fail(format!("oversold by {}: {detail}", sold - supply)) } else { Pass(detail) }
}

/// stock = supply − Σ confirmed quantity; no value below zero was ever seen.
pub(super) fn balanced(_: &Evidence, database: &Database) -> Judgement {
    let expected = database.audit.supply - units_sold(database);
    let stock = database.audit.stock;
    let below = database.orders.iter().find(|order| order.stock_before < 0 || order.stock_after < 0);
    if let Some(order) = below {
        return Fail(format!("{} left a stock of {}", order.buyer, order.stock_after));
    }
    if stock == expected {
        return Pass(format!("{stock} in stock, as the orders leave"));
    }
    Fail(format!(
        "{stock} in stock, where the orders leave {expected}: {} units lost track of",
        stock - expected
    ))
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

/// Every cancellation and every restock that was done is in the database, and no other, each once.
pub(super) fn adjustments_kept(evidence: &Evidence, database: &Database) -> Judgement {
    let asked: HashMap<_, _> = evidence
        .side_operations
        .iter()
        .filter_map(|operation| Some((operation.reason()?, operation)))
        .collect();
    if asked.is_empty() && database.adjustments.is_empty() {
        return NotApplicable("nothing was restocked or cancelled".into());
    }
    let (mut wrong, mut there) = (Vec::new(), HashSet::new());
    for adjustment in &database.adjustments {
        let reason = &adjustment.reason;
        if !there.insert(reason) {
            wrong.push(format!("{reason:?} was done twice"));
        }
        match asked.get(reason).map(|operation| &operation.outcome) {
            None => wrong.push(format!("{reason:?} was never asked for")),
            Some(SideOutcome::Refused(_)) => wrong.push(format!("{reason:?} was refused and is there")),
            Some(_) => {}
        }
    }
    let done = asked.iter().filter(|(_, operation)| operation.is_done());
    wrong.extend(
        done.filter(|(reason, _)| !there.contains(reason))
            .map(|(reason, _)| format!("{reason:?} was done and is gone")),
    );
    Judgement::of(wrong, format!("{} restocks and cancellations, all asked for", there.len()))
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
    let sold = units_sold(database);
    let one_by_one = original().all(|attempt| attempt.quantity == 1);
    let all_wanted = demand >= database.audit.supply && one_by_one && database.adjustments.is_empty();
    if wrong.is_empty() && all_wanted && sold < database.audit.supply && failed == 0 {
        wrong.push(format!("{sold} sold of {}, which {demand} were wanted of", database.audit.supply));
    }
    Judgement::of(wrong, format!("{refusals} refusals for want of stock, all true; {stock} left"))
}
