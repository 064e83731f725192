-- What a product's orders come to, so that those of a product with very many of them need not be read to know it. Changed by
-- the statement that writes the product for the orders, by as much as they change it. The next migration counts what is there.

-- Rather than have everybody queue behind this while it waits for a backup, or a report: it is tried again.
set local lock_timeout = '1s';

alter table products
    add column order_count bigint not null default 0,
    add column units_sold bigint not null default 0, -- in confirmed orders
    add column units_reserved bigint not null default 0; -- for orders that await their payment
