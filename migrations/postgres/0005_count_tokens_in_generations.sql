-- Fencing tokens of a lock service that may lose its data: the upper half of a token is its generation, which is kept here.
-- A new one begins when the service has lost its count, or is another.
create table token_generations (
    lock_key text not null primary key,
    generation bigint not null constraint generation_is_never_negative check (generation >= 0),
    server text not null
);
