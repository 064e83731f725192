-- To take locks and to give them back is one call each, or one for both. Where nobody else wants a key, it costs little more
-- than its record; the queue is looked at where there is one. (Replicas of the version before, while they run, go on with their
-- own statements and `stocklock_awaited`, which nothing else needs.)

-- Has these keys to itself until the transaction ends. In one order, so that no two wait for each other. (For one key without
-- a query, which is a good part of the cost.)
create or replace function stocklock_enter(keys text[]) returns boolean language plpgsql as $$
begin
    if cardinality(keys) = 1 then
        return pg_advisory_xact_lock(hashtextextended('stocklock ' || keys[1], 0)) is not null;
    end if;
    perform pg_advisory_xact_lock(key) from (
        select distinct hashtextextended('stocklock ' || lock_key, 0) as key from unnest(keys) as lock_key order by key
    ) as in_order;
    return true;
end $$;

-- Takes the locks of those whose turn it is; the others have a ticket afterwards. Returns the owners that have a record
-- now, their tokens, and what the product says whose lock it is, read after the lock was had: "stock version supply".
--
-- Tokens have to be drawn in the order in which their records come to stand, or a holder could follow one with a greater
-- token. So the keys have to be entered before, and belong to whoever inserts until the commit. Uniqueness decides
-- against replicas of older versions.
create function stocklock_take_entered(
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8
) returns table (owner uuid, token bigint, note text) language plpgsql as $$
#variable_conflict use_column
declare
    taken bigint;
begin
    if 'exclusive' = all (for_modes)
        and not exists (select from locks where lock_key = any (for_keys))
        and not exists (select from lock_waiters where lock_key = any (for_keys))
    then
        return query
            with record as (
                insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
                select lock_key, 'exclusive', owner, for_holder, clock_timestamp(),
                    clock_timestamp() + lease_ms * interval '1 millisecond'
                from unnest(for_keys, for_owners) with ordinality as asked (lock_key, owner, position)
                order by position
                on conflict do nothing
                returning lock_key, owner, token
            )
            select record.owner, record.token, concat_ws(' ', product.stock, product.version, product.supply)
            from record left join products as product on product.sku = record.lock_key;
        get diagnostics taken = row_count;
        if taken < cardinality(for_owners) then
            insert into lock_waiters (lock_key, mode, owner, expires_at)
            select lock_key, 'exclusive', owner, clock_timestamp() + place_ms * interval '1 millisecond'
            from unnest(for_keys, for_owners) with ordinality as asked (lock_key, owner, position)
            where not exists (
                select from locks where locks.lock_key = asked.lock_key and locks.owner = asked.owner
            )
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
             record as (
                 insert into locks (lock_key, mode, owner, holder, acquired_at, expires_at)
                 select lock_key, mode, owner, for_holder, clock_timestamp(),
                     clock_timestamp() + lease_ms * interval '1 millisecond'
                 from asked
                 where owner = any (array(select stocklock_in_turn(for_keys, for_modes, for_owners)))
                 order by position
                 on conflict do nothing
                 returning lock_key, owner, token
             ),
             -- A ticket that is there already is refreshed, though not by every look.
             waiting as (
                 insert into lock_waiters (lock_key, mode, owner, expires_at)
                 select lock_key, mode, owner, clock_timestamp() + place_ms * interval '1 millisecond'
                 from asked
                 where owner not in (select owner from record)
                 and not exists (
                     select from lock_waiters as me
                     where me.owner = asked.owner
                     and me.expires_at > clock_timestamp() + place_ms * interval '0.67 millisecond'
                 )
                 order by position
                 on conflict (owner) do update set expires_at = excluded.expires_at
             ),
             served as (delete from lock_waiters using record where lock_waiters.owner = record.owner)
        select record.owner, record.token, concat_ws(' ', product.stock, product.version, product.supply)
        from record left join products as product on product.sku = record.lock_key;
end $$;

create function stocklock_take(
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8
) returns table (owner uuid, token bigint, note text) language plpgsql as $$
begin
    if stocklock_enter(for_keys) then
        return query select * from
            stocklock_take_entered(for_keys, for_modes, for_owners, for_holder, lease_ms, place_ms);
    end if;
end $$;

-- Deletes the records and tickets of owners, and tells those who wait for the keys, unless `channel` is null: whoever stands
-- first, where it wants the key alone ("OWNER KEY"), or else all (" KEY").
-- The keys have to be entered before, as those who get a ticket have: so it sees each ticket of one who saw the record.
create function stocklock_give_entered(from_keys text[], from_owners uuid[], channel text)
returns void language plpgsql as $$
#variable_conflict use_column
begin
    delete from locks using unnest(from_keys, from_owners) as mine (lock_key, owner)
    where locks.lock_key = mine.lock_key and locks.owner = mine.owner;
    if exists (select from lock_waiters where lock_key = any (from_keys)) then
        delete from lock_waiters where owner = any (from_owners);
        if channel is not null then
            perform pg_notify(channel, concat(case next.mode when 'exclusive' then next.owner end, ' ', next.lock_key))
            from unnest(from_keys) as freed (lock_key) cross join lateral (
                select * from lock_waiters as waiting
                where waiting.lock_key = freed.lock_key and waiting.expires_at > clock_timestamp()
                order by ticket limit 1
            ) as next;
        end if;
    end if;
end $$;

-- The same, and enters the keys. With `durable` false, the disk is not waited for: a server that crashes and comes back with a record that was deleted
-- keeps others out until its lease ends, as its holder's crash would. (A record that is inserted is waited for: without
-- it, another could have the lock while its holder believes to.)
create function stocklock_give(from_keys text[], from_owners uuid[], channel text, durable boolean)
returns void language plpgsql as $$
begin
    if not durable then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if stocklock_enter(from_keys) then
        perform stocklock_give_entered(from_keys, from_owners, channel);
    end if;
end $$;

-- Gives locks back and takes others: for one who gives up a key and stands in its queue again.
create function stocklock_exchange(
    from_keys text[], from_owners uuid[], channel text,
    for_keys text[], for_modes text[], for_owners uuid[], for_holder text, lease_ms float8, place_ms float8
) returns table (owner uuid, token bigint, note text) language plpgsql as $$
begin
    -- All of them in one order.
    if stocklock_enter(array(select unnest(from_keys) union select unnest(for_keys))) then
        perform stocklock_give_entered(from_keys, from_owners, channel);
        return query select * from
            stocklock_take_entered(for_keys, for_modes, for_owners, for_holder, lease_ms, place_ms);
    end if;
end $$;
