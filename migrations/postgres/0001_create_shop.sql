create table products (
    sku text not null primary key,
    name text not null,
    stock bigint not null constraint stock_is_never_negative check (stock >= 0),
    version bigint not null,
    supply bigint not null constraint supply_is_never_negative check (supply >= 0),
    created_at timestamptz not null
);

create table orders (
    id uuid not null primary key,
    sku text not null constraint order_is_for_a_product references products (sku),
    buyer text not null,
    quantity bigint not null constraint quantity_is_positive check (quantity > 0),
    status text not null constraint status_is_known check (status in ('confirmed', 'cancelled')),
    idempotency_key text constraint one_order_per_idempotency_key unique,
    stock_before bigint not null,
    stock_after bigint not null,
    version bigint not null,
    lock_strategy text not null,
    fencing_token bigint,
    replica text not null,
    created_at timestamptz not null
);

create index orders_of_a_product on orders (sku, id);
create index orders_by_version on orders (sku, version);

-- Changes of stock that are not orders: restocks and cancellations.
create table stock_adjustments (
    id uuid not null primary key,
    sku text not null constraint adjustment_is_of_a_product references products (sku),
    delta bigint not null,
    reason text not null,
    version bigint not null,
    created_at timestamptz not null
);

create index adjustments_by_version on stock_adjustments (sku, version);
