-- Reservations: an order may await its payment until `pay_by`; then it expires. A constraint cannot be changed: the table
-- is made anew, with what was in it.
create table orders_with_reservations (
    id text not null primary key,
    sku text not null constraint order_is_for_a_product references products (sku),
    buyer text not null,
    quantity integer not null constraint quantity_is_positive check (quantity > 0),
    status text not null
        constraint status_is_known check (status in ('confirmed', 'cancelled', 'awaiting_payment', 'expired')),
    idempotency_key text constraint one_order_per_idempotency_key unique,
    stock_before integer not null,
    stock_after integer not null,
    version integer not null,
    lock_strategy text not null,
    fencing_token integer,
    replica text not null,
    created_at integer not null, -- microseconds since 1970
    pay_by integer -- microseconds since 1970; null: confirmed as it was placed
) strict;

insert into orders_with_reservations (
    id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version, lock_strategy,
    fencing_token, replica, created_at
)
select id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version, lock_strategy,
    fencing_token, replica, created_at
from orders;

drop table orders;
alter table orders_with_reservations rename to orders;

create index orders_of_a_product on orders (sku, id);
create index orders_by_version on orders (sku, version);

-- Those that will have to be looked at, soonest first.
create index orders_awaiting_payment on orders (pay_by) where status = 'awaiting_payment';
