//! Queries that read many rows, and never more the more there are: each is a range of an index, which ends at
//! a limit.

use crate::store::{adjustments, examined, orders, resettable};

/// A page of orders.
pub(super) const ORDERS: &str = concat!(orders!(), " where id > $1 order by id limit $2");

/// A page of the orders of a product. (Asked for by `sku = $3 and id > $1`, PostgreSQL may read everybody's
/// orders by their identities, and leave out those of other products.)
pub(super) const ORDERS_OF_A_PRODUCT: &str =
    concat!(orders!(), " where (sku, id) > ($3, $1) and sku <= $3 order by sku, id limit $2");

/// A page of the adjustments of a product.
pub(super) const ADJUSTMENTS: &str =
    concat!(adjustments!(), " where sku = $1 and (version, id) > ($2, $3) order by version, id limit $4");

/// What a product's row says, and what its latest orders do. One statement, so one snapshot.
pub(super) const AUDIT: &str = concat!(
    "with latest as materialized (
        select *, version in (lag(version) over by_version, lead(version) over by_version) as is_shared
        from (
            select id, quantity, status, stock_before, stock_after, version from orders
            where sku = $1 order by version desc limit ",
    examined!(),
    "
        ) as latest
        window by_version as (order by version desc)
    )
    select p.stock, p.version, p.supply, p.order_count, p.units_sold, p.units_reserved,
        l.orders, l.latest_sold, l.latest_reserved,
        (
            select coalesce(jsonb_agg(to_jsonb(d) order by d.version, d.stock_before), '[]'::jsonb)
            from (
                select stock_before, version, jsonb_agg(id order by id) as orders
                from latest where is_shared
                group by version, stock_before having count(*) > 1
                order by version, stock_before limit 10
            ) as d
        )::text as duplicate_reads
    from products as p
    cross join (
        select count(*) as orders,
            coalesce(sum(quantity) filter (where status = 'confirmed'), 0)::bigint as latest_sold,
            coalesce(sum(stock_before - stock_after) filter (where status = 'awaiting_payment'), 0)::bigint
                as latest_reserved
        from latest
    ) as l
    where p.sku = $1"
);

/// Those of products that have more orders, or adjustments, than a reset may delete.
pub(super) const NOT_RESETTABLE: &str = concat!(
    "select reset.sku from unnest($1::text[]) as reset (sku)
    where exists (
        select from orders as o where o.sku = reset.sku order by o.version offset ",
    resettable!(),
    " limit 1
    )
    or exists (
        select from stock_adjustments as a where a.sku = reset.sku order by a.version offset ",
    resettable!(),
    " limit 1
    )"
);

/// All of them, by name.
pub(in crate::store) const BOUNDED: [(&str, &str); 5] = [
    ("orders", ORDERS),
    ("orders of a product", ORDERS_OF_A_PRODUCT),
    ("adjustments", ADJUSTMENTS),
    ("audit", AUDIT),
    ("reset", NOT_RESETTABLE),
];
