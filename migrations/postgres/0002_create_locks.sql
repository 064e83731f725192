create extension if not exists btree_gist;

-- The lock table of strategy "database": insert the record to lock, delete it to unlock.
create table locks (
    token bigint generated always as identity primary key, -- the fencing token: never used twice
    lock_key text not null,
    mode text not null constraint mode_is_known check (mode in ('exclusive', 'shared')),
    owner uuid not null constraint one_record_per_attempt unique,
    -- Shared records have one seat in common, and each exclusive one has its own: two records of a key may stand
    -- beside each other only in the same seat. So the insert alone decides, whoever inserts what at the same time.
    seat text not null generated always as (case mode when 'shared' then 'shared' else owner::text end) stored,
    holder text not null, -- the replica, for people
    acquired_at timestamptz not null,
    expires_at timestamptz, -- null: never
    constraint exclusive_stands_alone exclude using gist (lock_key with =, seat with <>)
);

-- Those who wait, first come first served. A ticket that its waiter does not refresh counts for nothing.
create table lock_waiters (
    ticket bigint generated always as identity primary key,
    lock_key text not null,
    mode text not null constraint mode_is_known check (mode in ('exclusive', 'shared')),
    owner uuid not null constraint one_ticket_per_attempt unique,
    expires_at timestamptz not null
);

create index waiters_of_a_key on lock_waiters (lock_key, ticket);
