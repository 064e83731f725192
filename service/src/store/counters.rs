//! The counters of a product: what its orders come to, kept in its row, so that the orders of a product with
//! very many need not be read to know it.

use super::{Transition, WriteBatch};
use crate::api::{Audit, CountedFrom, DuplicateRead, OrderStatus, OrderTotals};
use crate::inventory::StockLevel;
use crate::order::MAX_RESETTABLE;

/// How many of a product's orders an audit reads at the most: the latest.
macro_rules! examined {
    () => {
        100000
    };
}

/// The same as [`MAX_RESETTABLE`], for statements.
macro_rules! resettable {
    () => {
        30000
    };
}

pub(super) use {examined, resettable};

const _: () = assert!(resettable!() == MAX_RESETTABLE, "the statements have the same limit");

/// As in the statements.
const EXAMINED: i64 = examined!();

/// The latest orders of a product.
pub(super) struct Latest {
    /// What they come to.
    pub(super) totals: OrderTotals,
    /// Those among them that read the same stock at the same version.
    pub(super) duplicate_reads: Vec<DuplicateRead>,
}

/// What the audit of a product comes to, whose row says `level` and `counters`. The orders count as long as
/// all were read: they are what was sold, and the counters only say so.
pub(super) fn audit(level: StockLevel, counters: OrderTotals, latest: Latest) -> Audit {
    let StockLevel { stock, version, supply } = level;
    let Latest { totals, duplicate_reads } = latest;
    let orders_read = totals.orders;
    let has_all = orders_read < EXAMINED;
    let counted_from = if has_all { CountedFrom::Orders } else { CountedFrom::Counters };
    let counters_agree = match has_all {
        true => Some(totals == counters),
        // That there are as many as were read is all that is known.
        false => (counters.orders < orders_read).then_some(false),
    };
    let OrderTotals { orders, units_sold, units_reserved } = if has_all { totals } else { counters };
    let taken = units_sold + units_reserved;
    Audit {
        supply,
        stock,
        version,
        units_sold,
        units_reserved,
        orders,
        oversold_units: (taken - supply).max(0),
        balanced: stock == supply - taken,
        duplicate_reads,
        counted_from,
        orders_read,
        counters: Some(counters),
        counters_agree,
    }
}

impl WriteBatch {
    /// By how much it changes the counters of its product, which begin at zero where it resets it.
    pub(super) fn counted(&self) -> OrderTotals {
        let orders = i64::try_from(self.orders.len()).expect("a batch is in memory");
        let mut totals = OrderTotals { orders, ..OrderTotals::default() };
        for (order, _) in &self.orders {
            match self.payment_window {
                None => add(&mut totals, OrderStatus::Confirmed, order.quantity),
                Some(_) => {
                    add(&mut totals, OrderStatus::AwaitingPayment, order.stock_before - order.stock_after);
                }
            }
        }
        for Transition { from, to, units_before, units_after, .. } in &self.transitions {
            add(&mut totals, *from, -units_before);
            add(&mut totals, *to, *units_after);
        }
        totals
    }
}

/// Adds the units that orders with this status take.
fn add(totals: &mut OrderTotals, status: OrderStatus, units: i64) {
    match status {
        OrderStatus::Confirmed => totals.units_sold += units,
        OrderStatus::AwaitingPayment => totals.units_reserved += units,
        OrderStatus::Cancelled | OrderStatus::Expired => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(read: i64, counters: OrderTotals) -> Audit {
        let totals = OrderTotals { orders: read, units_sold: read, units_reserved: 0 };
        let level = StockLevel { stock: 0, version: 1, supply: counters.units_sold };
        audit(level, counters, Latest { totals, duplicate_reads: Vec::new() })
    }

    #[test]
    fn orders_count_while_all_are_read_and_counters_beyond() {
        let counters = |orders| OrderTotals { orders, units_sold: orders, units_reserved: 0 };
        for (read, orders, counted_from, agree, sold) in [
            (0, 0, CountedFrom::Orders, Some(true), 0),
            (EXAMINED - 1, EXAMINED - 1, CountedFrom::Orders, Some(true), EXAMINED - 1),
            (7, 8, CountedFrom::Orders, Some(false), 7),
            (EXAMINED, EXAMINED, CountedFrom::Counters, None, EXAMINED),
            (EXAMINED, 7 * EXAMINED, CountedFrom::Counters, None, 7 * EXAMINED),
            (EXAMINED, EXAMINED - 1, CountedFrom::Counters, Some(false), EXAMINED - 1),
        ] {
            let audit = audited(read, counters(orders));
            let seen = (audit.counted_from, audit.counters_agree, audit.units_sold, audit.orders_read);
            assert_eq!(seen, (counted_from, agree, sold, read), "{read} of {orders}");
        }
    }
}
