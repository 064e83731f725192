-- Records of the lock table without a unique index. While a transaction elsewhere is open for long (a backup, a report), nothing
-- that was deleted since can be cleared away, and a unique index looks at every dead record of a key before it takes a new one:
-- after 2,500 turns at one key, to take its lock cost 6 ms instead of 0.5. Nobody needs it to decide any more: whoever inserts has
-- entered the key, and has it to himself until the commit.

-- Rather than have everybody queue behind this while it waits for a backup, or a report: it is tried again.
set local lock_timeout = '1s';

drop index one_exclusive_record_per_key;
create index records_of_a_key on locks (lock_key);

-- As before, but of several that ask for one key, the first is chosen, which uniqueness did.
create or replace function stocklock_take_entered(
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
                from (
                    select distinct on (lock_key) lock_key, owner, position
                    from unnest(for_keys, for_owners) with ordinality as asked (lock_key, owner, position)
                    order by lock_key, position
                ) as first
                order by position
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
