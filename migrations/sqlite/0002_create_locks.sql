-- The lock table of strategy "database": insert the record to lock, delete it to unlock.
create table locks (
    token integer primary key autoincrement, -- the fencing token: never used twice
    lock_key text not null,
    mode text not null constraint mode_is_known check (mode in ('exclusive', 'shared')),
    owner text not null constraint one_record_per_attempt unique,
    holder text not null, -- the replica, for people
    acquired_at integer not null, -- milliseconds since 1970
    expires_at integer -- milliseconds since 1970; null: never
) strict;

create unique index one_exclusive_record_per_key on locks (lock_key) where mode = 'exclusive';
create index locks_of_a_key on locks (lock_key);

-- Those who wait, first come first served. A ticket that its waiter does not refresh counts for nothing.
create table lock_waiters (
    ticket integer primary key autoincrement,
    lock_key text not null,
    mode text not null constraint mode_is_known check (mode in ('exclusive', 'shared')),
    owner text not null constraint one_ticket_per_attempt unique,
    expires_at integer not null -- milliseconds since 1970
) strict;

create index waiters_of_a_key on lock_waiters (lock_key, ticket);
