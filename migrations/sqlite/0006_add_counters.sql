-- What a product's orders come to, so that those of a product with very many of them need not be read to know it. Changed in
-- the transaction that writes the orders, by as much as they change it. The next migration counts what is there.
alter table products add column order_count integer not null default 0;
alter table products add column units_sold integer not null default 0; -- in confirmed orders
alter table products add column units_reserved integer not null default 0; -- for orders that await their payment
