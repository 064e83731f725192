-- Adjustments come in pages, by version and identity: the index has both, so that a page is read and no more.
create index adjustments_in_order on stock_adjustments (sku, version, id);
drop index adjustments_by_version;
