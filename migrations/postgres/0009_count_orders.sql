-- Sets the counters of all products to what their orders come to. It may be run again at any time, in a transaction: after
-- replicas of a version before counters have written, or a program that does not count.
--
-- Whoever writes orders waits meanwhile, and whoever reads does not. What was written before is committed, and counted; what is
-- written afterwards is added to it. Those wait, too, who lock a row before they write it: otherwise each would wait for the other.
set local lock_timeout = '1s'; -- rather than have everybody queue behind this while it waits for one that takes long
lock table products in exclusive mode;

update products as p
set order_count = c.order_count, units_sold = c.units_sold, units_reserved = c.units_reserved
from (
    select products.sku, count(o.id) as order_count,
        coalesce(sum(o.quantity) filter (where o.status = 'confirmed'), 0) as units_sold,
        coalesce(sum(o.stock_before - o.stock_after) filter (where o.status = 'awaiting_payment'), 0)
            as units_reserved
    from products left join orders as o on o.sku = products.sku
    group by products.sku
) as c
where p.sku = c.sku
and (p.order_count, p.units_sold, p.units_reserved) <> (c.order_count, c.units_sold, c.units_reserved);
