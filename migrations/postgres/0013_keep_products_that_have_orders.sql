-- A foreign key looks its product up for each order: in a batch of many orders a good part of what they cost, and beside an open
-- transaction elsewhere (see the migration before) it looks at each version of the product since. An order is inserted by the
-- statement, or in the transaction, that has just written its product's row. So it is enough that no product goes that has
-- orders, and that is seen to when one is deleted.

-- Rather than have everybody queue behind this while it waits for a backup, or a report: it is tried again. It takes two tables,
-- which orders take the other way round: it gives up before the server looks for a deadlock and has an order give up.
set local lock_timeout = '400ms';

alter table orders drop constraint order_is_for_a_product;

create function stocklock_keep_product() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if new.sku = old.sku then
            return new;
        end if;
    end if;
    if exists (select from orders where sku = old.sku) then
        raise foreign_key_violation using
            message = format('product "%s" has orders', old.sku), table = 'products', constraint = 'order_is_for_a_product';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end $$;

create trigger order_is_for_a_product before delete or update of sku on products
    for each row execute function stocklock_keep_product();
