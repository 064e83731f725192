//! The columns that are read, by their names: a table may have more of them, from the day on when a later
//! version adds one.

/// The beginning of a query for products.
macro_rules! products {
    () => {
        "select sku, name, stock, version, supply, created_at from products"
    };
}

/// The beginning of a query for orders.
macro_rules! orders {
    () => {
        "select id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
             lock_strategy, fencing_token, replica, created_at, pay_by
         from orders"
    };
}

/// The beginning of a query for adjustments.
macro_rules! adjustments {
    () => {
        "select id, sku, delta, reason, version, created_at from stock_adjustments"
    };
}

pub(super) use {adjustments, orders, products};
