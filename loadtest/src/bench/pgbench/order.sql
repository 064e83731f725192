-- What an order does to the database, in one statement: the least that plain SQL can do.
\set product random(1, :products)
with product as (
    update products set stock = stock - 1, version = version + 1
    where sku = 'product-' || :product::bigint and stock >= 1
    returning sku, stock, version
)
insert into orders (
    id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
    lock_strategy, fencing_token, replica, created_at
)
select
    -- Identities and keys grow as the service's do.
    lpad(to_hex(nextval('order_number')), 32, '0')::uuid, sku, 'pgbench', 1, 'confirmed',
    'pgbench-' || currval('order_number'), stock + 1, stock, version,
    'pgbench', null, 'pgbench', clock_timestamp()
from product;
