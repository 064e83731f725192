create table products (
    sku text not null primary key,
    name text not null,
    stock integer not null constraint stock_is_never_negative check (stock >= 0),
    version integer not null,
    supply integer not null constraint supply_is_never_negative check (supply >= 0),
    created_at integer not null -- microseconds since 1970
) strict;

create table orders (
    id text not null primary key,
    sku text not null constraint order_is_for_a_product references products (sku),
    buyer text not null,
    quantity integer not null constraint quantity_is_positive check (quantity > 0),
    status text not null constraint status_is_known check (status in ('confirmed', 'cancelled')),
    idempotency_key text constraint one_order_per_idempotency_key unique,
    stock_before integer not null,
    stock_after integer not null,
    version integer not null,
    lock_strategy text not null,
    fencing_token integer,
    replica text not null,
    created_at integer not null -- microseconds since 1970
) strict;

create index orders_of_a_product on orders (sku, id);
create index orders_by_version on orders (sku, version);

-- Changes of stock that are not orders: restocks and cancellations.
create table stock_adjustments (
    id text not null primary key,
    sku text not null constraint adjustment_is_of_a_product references products (sku),
    delta integer not null,
    reason text not null,
    version integer not null,
    created_at integer not null -- microseconds since 1970
) strict;

create index adjustments_by_version on stock_adjustments (sku, version);
