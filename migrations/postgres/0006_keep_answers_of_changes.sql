-- What was answered to a change of stock other than an order, by its idempotency key, and what had been asked for; written in
-- the commit of the change. (An order has its key itself.) A reset leaves it where it is.
create table kept_answers (
    idempotency_key text not null constraint one_change_per_idempotency_key primary key,
    request text not null,
    answer text not null,
    created_at timestamptz not null default clock_timestamp()
);
