-- While a transaction elsewhere is open for long (a backup, a report), nothing that was deleted since can be cleared away, and
-- whoever looks for a key's records or tickets looks at each that is gone: a thousand for a thousand turns. Tokens and tickets of
-- a key only rise. So whoever has had a key to himself knows that what is lower than his token, and than his ticket, is gone for
-- good, and says so the next time (`first_tokens`, `first_tickets`): the look begins there.
-- Nor is a product's row looked for among its versions, where it is known where the last one stands (`places`).
--
-- Statistics of tables whose rows come and go say, at times, that there are none; all plans are alike then, also those that read
-- a whole index. So each table has one index that a key can be looked up in, and what looks it up is no join.
--
-- (Replicas of the version before, while they run, go on with the functions that they know.)

-- Rather than have everybody queue behind this while it waits for a backup, or a report: it is tried again.
set local lock_timeout = '1s';

alter table locks drop constraint locks_pkey, add constraint locks_pkey primary key (lock_key, token);
drop index records_of_a_key;
alter table lock_waiters drop constraint lock_waiters_pkey, add constraint lock_waiters_pkey primary key (lock_key, ticket);
drop index waiters_of_a_key;

-- Clears expired records and tickets away, and returns the owners whose turn it is, and their tickets: with no record that keeps
-- them out, and no earlier ticket; those who have no ticket yet come last, in the order in which they are given. The keys have to
-- be entered before.
create function stocklock_in_turn(
    keys text[], modes text[], owners uuid[], first_tokens bigint[], first_tickets bigint[]
) returns table (owner uuid, ticket bigint) language plpgsql as $$
#variable_conflict use_column
begin
    delete from locks where ctid = any (array(
        select expired.ctid
        from unnest(keys, first_tokens) as asked (lock_key, first_token)
        cross join lateral (
            select l.ctid from locks as l
            where l.lock_key = asked.lock_key and l.token >= asked.first_token
            and l.expires_at <= clock_timestamp()
            offset 0
        ) as expired
    ));
    delete from lock_waiters where ctid = any (array(
        select expired.ctid
        from unnest(keys, first_tickets) as asked (lock_key, first_ticket)
        cross join lateral (
            select w.ctid from lock_waiters as w
            where w.lock_key = asked.lock_key and w.ticket >= asked.first_ticket
            and w.expires_at <= clock_timestamp()
            offset 0
        ) as expired
    ));
    return query
        select asked.owner, nullif(asked.ticket, 9223372036854775807)
        from (
            select t.*,
                count(*) over earlier as before,
                count(*) filter (where t.mode = 'exclusive') over earlier as writers_before
            from (
                select t.*, coalesce(
                    (select me.ticket from lock_waiters as me where me.owner = t.owner), 9223372036854775807
                ) as ticket
                from unnest(keys, modes, owners, first_tokens, first_tickets) with ordinality
                    as t (lock_key, mode, owner, first_token, first_ticket, position)
            ) as t
            window earlier as (
                partition by t.lock_key order by t.ticket, t.position
                rows between unbounded preceding and 1 preceding
            )
        ) as asked
        where case asked.mode when 'exclusive' then asked.before else asked.writers_before end = 0
        and not (
            exists (
                select from locks as l
                where l.lock_key = asked.lock_key and l.token >= asked.first_token
                and (l.mode = 'exclusive' or asked.mode = 'exclusive')
            )
            or exists (
                select from lock_waiters as w
                where w.lock_key = asked.lock_key and w.ticket >= asked.first_ticket and w.ticket < asked.ticket
                and (w.mode = 'exclusive' or asked.mode = 'exclusive')
            )
        );
end $$;

-- What a holder is told of what it has locked: "stock version supply place" of the product, or nothing. Stable: as the statement
-- sees it.
create function stocklock_note(of_key text, keys text[], places tid[]) returns text language plpgsql stable as $$
declare
    place tid := places[array_position(keys, of_key)];
begin
    return coalesce(
        (select concat_ws(' ', stock, version, supply, ctid) from products where ctid = place and sku = of_key),
        (select concat_ws(' ', stock, version, supply, ctid) from products where sku = of_key),
        ''
    );
end $$;

-- Takes the locks of those whose turn it is; the others have a ticket afterwards. Returns the owners that have a record now, their
-- tokens, what the product says whose lock it is, read after the lock was had ("stock version supply place"), and the tickets that
-- they had waited with.
--
-- Tokens have to be drawn in the order in which their records come to stand, or a holder could follow one with a greater
-- token. So the keys have to be entered before, and belong to whoever inserts until the commit.
create function stocklock_take_entered(
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8,
    first_tokens bigint[], first_tickets bigint[], places tid[]
) returns table (owner uuid, token bigint, note text, ticket bigint) language plpgsql as $$
#variable_conflict use_column
declare
    taken bigint;
begin
    if 'exclusive' = all (for_modes) and not exists (
        select from unnest(for_keys, first_tokens, first_tickets) as asked (lock_key, first_token, first_ticket)
        where exists (
            select from locks as l where l.lock_key = asked.lock_key and l.token >= asked.first_token
        )
        or exists (
            select from lock_waiters as w where w.lock_key = asked.lock_key and w.ticket >= asked.first_ticket
        )
    ) then
        return query
            with record as (
                insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
                select lock_key, 'exclusive', owner, for_holder, clock_timestamp(),
                    clock_timestamp() + lease_ms * interval '1 millisecond'
                from (
                    select distinct on (lock_key) lock_key, owner, position
                    from unnest(for_keys, for_owners) with ordinality as asked (lock_key, owner, position)
                    order by lock_key, position
                ) as first
                order by position
                returning lock_key, owner, token
            )
            select record.owner, record.token, stocklock_note(record.lock_key, for_keys, places), null::bigint
            from record;
        get diagnostics taken = row_count;
        if taken < cardinality(for_owners) then
            insert into lock_waiters (lock_key, mode, owner, expires_at)
            select lock_key, 'exclusive', owner, clock_timestamp() + place_ms * interval '1 millisecond'
            from (
                select *, row_number() over (partition by lock_key order by position) as place
                from unnest(for_keys, for_owners) with ordinality as asked (lock_key, owner, position)
            ) as asked
            where place > 1
            order by position
            on conflict (owner) do update set expires_at = excluded.expires_at;
        end if;
        return;
    end if;
    return query
        with asked as materialized (
                 select * from unnest(for_keys, for_modes, for_owners)
                     with ordinality as t (lock_key, mode, owner, position)
             ),
             in_turn as materialized (
                 select * from stocklock_in_turn(for_keys, for_modes, for_owners, first_tokens, first_tickets)
             ),
             record as (
                 insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
                 select lock_key, mode, owner, for_holder, clock_timestamp(),
                     clock_timestamp() + lease_ms * interval '1 millisecond'
                 from asked
                 where owner = any (array(select owner from in_turn))
                 order by position
                 returning lock_key, owner, token
             ),
             -- A ticket that is there already is refreshed, though not by every look.
             waiting as (
                 insert into lock_waiters (lock_key, mode, owner, expires_at)
                 select lock_key, mode, owner, clock_timestamp() + place_ms * interval '1 millisecond'
                 from asked
                 where owner not in (select owner from record)
                 and coalesce((
                     select me.expires_at from lock_waiters as me where me.owner = asked.owner
                 ), '-infinity') <= clock_timestamp() + place_ms * interval '0.67 millisecond'
                 order by position
                 on conflict (owner) do update set expires_at = excluded.expires_at
             ),
             -- (A ticket that has lapsed is gone by now, which this statement does not see.)
             served as (
                 delete from lock_waiters
                 where owner = any (array(select owner from in_turn where in_turn.ticket is not null))
             )
        select record.owner, record.token, stocklock_note(record.lock_key, for_keys, places),
            (select in_turn.ticket from in_turn where in_turn.owner = record.owner)
        from record;
end $$;

-- The same for one owner that wants one key alone, where nobody else has it or waits for it: without tables of one row, in a good
-- deal less time. Otherwise nothing is done, and the token is null.
create function stocklock_take_one(
    for_key text, for_owner uuid, for_holder text, lease_ms float8, first_token bigint, first_ticket bigint, place tid,
    out token bigint, out note text
) language plpgsql as $$
#variable_conflict use_column
begin
    if exists (select from lock_waiters where lock_key = for_key and ticket >= first_ticket)
        or exists (select from locks where lock_key = for_key and token >= first_token)
    then
        return;
    end if;
    insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
    values (
        for_key, 'exclusive', for_owner, for_holder, clock_timestamp(),
        clock_timestamp() + lease_ms * interval '1 millisecond'
    )
    returning locks.token into stocklock_take_one.token;
    stocklock_take_one.note := coalesce(
        (select concat_ws(' ', stock, version, supply, ctid) from products where ctid = place and sku = for_key),
        (select concat_ws(' ', stock, version, supply, ctid) from products where sku = for_key),
        ''
    );
end $$;

create function stocklock_take(
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8,
    first_tokens bigint[], first_tickets bigint[], places tid[]
) returns table (owner uuid, token bigint, note text, ticket bigint) language plpgsql as $$
begin
    if not stocklock_enter(for_keys) then
        return;
    end if;
    if for_modes = array['exclusive'] then
        select one.token, one.note into token, note from stocklock_take_one(
            for_keys[1], for_owners[1], for_holder, lease_ms, first_tokens[1], first_tickets[1], places[1]
        ) as one;
        if token is not null then
            owner := for_owners[1];
            return next;
            return;
        end if;
    end if;
    return query select * from stocklock_take_entered(
        for_keys, for_modes, for_owners, for_holder, lease_ms, place_ms, first_tokens, first_tickets, places
    );
end $$;

-- Deletes the records and tickets of owners, and tells those who wait for the keys, unless `channel` is null: whoever stands
-- first, where it wants the key alone ("OWNER KEY"), or else all (" KEY").
-- The keys have to be entered before, as those who get a ticket have: so it sees each ticket of one who saw the record.
create function stocklock_give_entered(
    from_keys text[], from_owners uuid[], channel text, first_tokens bigint[], first_tickets bigint[]
) returns void language plpgsql as $$
#variable_conflict use_column
begin
    if cardinality(from_keys) = 1 then
        delete from locks where lock_key = from_keys[1] and token >= first_tokens[1] and owner = from_owners[1];
        if not exists (select from lock_waiters where lock_key = from_keys[1] and ticket >= first_tickets[1]) then
            return;
        end if;
    else
        delete from locks where ctid = any (array(
            select mine.ctid
            from unnest(from_keys, from_owners, first_tokens) as given (lock_key, owner, first_token)
            cross join lateral (
                select l.ctid from locks as l
                where l.lock_key = given.lock_key and l.token >= given.first_token and l.owner = given.owner
                offset 0
            ) as mine
        ));
    end if;
    if exists (
        select from unnest(from_keys, first_tickets) as freed (lock_key, first_ticket)
        cross join lateral (
            select from lock_waiters as w
            where w.lock_key = freed.lock_key and w.ticket >= freed.first_ticket limit 1
        ) as waiting
    ) then
        delete from lock_waiters where owner = any (from_owners);
        if channel is not null then
            perform pg_notify(channel, concat(case next.mode when 'exclusive' then next.owner end, ' ', next.lock_key))
            from unnest(from_keys, first_tickets) as freed (lock_key, first_ticket) cross join lateral (
                select * from lock_waiters as waiting
                where waiting.lock_key = freed.lock_key and waiting.ticket >= freed.first_ticket
                and waiting.expires_at > clock_timestamp()
                order by waiting.ticket limit 1
            ) as next;
        end if;
    end if;
end $$;

-- The same, and enters the keys. With `durable` false, the disk is not waited for: a server that crashes and comes back with a
-- record that was deleted keeps others out until its lease ends, as its holder's crash would. (A record that is inserted is waited
-- for: without it, another could have the lock while its holder believes to.)
create function stocklock_give(
    from_keys text[], from_owners uuid[], channel text, durable boolean, first_tokens bigint[], first_tickets bigint[]
) returns void language plpgsql as $$
begin
    if not durable then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if stocklock_enter(from_keys) then
        perform stocklock_give_entered(from_keys, from_owners, channel, first_tokens, first_tickets);
    end if;
end $$;

-- Gives locks back and takes others: for one who gives up a key and stands in its queue again.
create function stocklock_exchange(
    from_keys text[], from_owners uuid[], channel text, given_tokens bigint[], given_tickets bigint[],
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8,
    first_tokens bigint[], first_tickets bigint[], places tid[]
) returns table (owner uuid, token bigint, note text, ticket bigint) language plpgsql as $$
begin
    -- All of them in one order.
    if from_keys = for_keys then
        perform stocklock_enter(for_keys);
    else
        perform stocklock_enter(array(select unnest(from_keys) union select unnest(for_keys)));
    end if;
    perform stocklock_give_entered(from_keys, from_owners, channel, given_tokens, given_tickets);
    if for_modes = array['exclusive'] then
        select one.token, one.note into token, note from stocklock_take_one(
            for_keys[1], for_owners[1], for_holder, lease_ms, first_tokens[1], first_tickets[1], places[1]
        ) as one;
        if token is not null then
            owner := for_owners[1];
            return next;
            return;
        end if;
    end if;
    return query select * from stocklock_take_entered(
        for_keys, for_modes, for_owners, for_holder, lease_ms, place_ms, first_tokens, first_tickets, places
    );
end $$;

-- Extends the records of owners, and returns the owners of those that are there. Under their keys, as everything that locks rows of
-- several keys: so that no two wait for each other.
create function stocklock_extend(keys text[], owners uuid[], lease_ms float8, first_tokens bigint[])
returns table (owner uuid) language plpgsql as $$
#variable_conflict use_column
begin
    if stocklock_enter(keys) then
        return query
            update locks set expires_at = clock_timestamp() + lease_ms * interval '1 millisecond'
            where ctid = any (array(
                select mine.ctid
                from unnest(keys, owners, first_tokens) as held (lock_key, owner, first_token)
                cross join lateral (
                    select l.ctid from locks as l
                    where l.lock_key = held.lock_key and l.token >= held.first_token and l.owner = held.owner
                    offset 0
                ) as mine
            ))
            returning locks.owner;
    end if;
end $$;
