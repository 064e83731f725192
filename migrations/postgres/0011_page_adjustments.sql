-- Adjustments come in pages, by version and identity: the index has both, so that a page is read and no more.

-- Rather than have everybody queue behind this while it waits for a backup, or a report: it is tried again.
set local lock_timeout = '1s';

create index adjustments_in_order on stock_adjustments (sku, version, id);
drop index adjustments_by_version;
