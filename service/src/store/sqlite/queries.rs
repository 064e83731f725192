//! Queries that read many rows, and never more the more there are: each is a range of an index, which ends at
//! a limit.

use crate::store::{adjustments, examined, orders, resettable};

/// A page of orders.
pub(super) const ORDERS: &str = concat!(orders!(), " where id > ?1 order by id limit ?2");

/// A page of the orders of a product.
pub(super) const ORDERS_OF_A_PRODUCT: &str =
    concat!(orders!(), " where id > ?1 and sku = ?3 order by id limit ?2");

/// A page of the adjustments of a product. (The index is by version only; few have the same.)
pub(super) const ADJUSTMENTS: &str = concat!(
    adjustments!(),
    " where sku = ?1 and version >= ?2 and (version > ?2 or id > ?3) order by version, id limit ?4"
);

/// What a product's row says.
pub(super) const LEVEL_AND_COUNTERS: &str =
    "select stock, version, supply, order_count, units_sold, units_reserved from products where sku = ?1";

/// What the latest orders of a product come to.
pub(super) const LATEST_TOTALS: &str = concat!(
    "select count(*) as order_count,
        coalesce(sum(quantity) filter (where status = 'confirmed'), 0) as units_sold,
        coalesce(sum(stock_before - stock_after) filter (where status = 'awaiting_payment'), 0)
            as units_reserved
    from (
        select quantity, status, stock_before, stock_after from orders
        where sku = ?1 order by version desc limit ",
    examined!(),
    "
    )"
);

/// Those of the latest orders of a product that read the same. Which versions there are more than once, the
/// index says.
pub(super) const DUPLICATE_READS: &str = concat!(
    "select stock_before, version, json_group_array(id) as orders from orders
    where sku = ?1 and version in (
        select version from (
            select version from orders where sku = ?1 order by version desc limit ",
    examined!(),
    "
        ) group by version having count(*) > 1
    )
    group by version, stock_before having count(*) > 1
    order by version, stock_before limit 10"
);

/// Whether a product has more orders, or adjustments, than a reset may delete.
pub(super) const NOT_RESETTABLE: &str = concat!(
    "select exists (select 1 from orders where sku = ?1 order by version limit 1 offset ",
    resettable!(),
    ") or exists (select 1 from stock_adjustments where sku = ?1 order by version limit 1 offset ",
    resettable!(),
    ")"
);

/// All of them, by name.
pub(in crate::store) const BOUNDED: [(&str, &str); 6] = [
    ("orders", ORDERS),
    ("orders of a product", ORDERS_OF_A_PRODUCT),
    ("adjustments", ADJUSTMENTS),
    ("audit", LATEST_TOTALS),
    ("duplicate reads", DUPLICATE_READS),
    ("reset", NOT_RESETTABLE),
];
