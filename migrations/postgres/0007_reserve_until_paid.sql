-- Reservations: an order may await its payment until `pay_by`, by this database's clock; then it expires.
alter table orders add column pay_by timestamptz; -- null: confirmed as it was placed

-- Not validated, which would read the table: what is in it has passed the constraint of before, which was stricter.
alter table orders drop constraint status_is_known;
alter table orders add constraint status_is_known
    check (status in ('confirmed', 'cancelled', 'awaiting_payment', 'expired')) not valid;

-- Those that will have to be looked at, soonest first.
create index orders_awaiting_payment on orders (pay_by) where status = 'awaiting_payment';
