//! The suite of `api/`, on PostgreSQL.

#[path = "api/bad_input.rs"]
mod bad_input;
#[path = "api/bounded.rs"]
mod bounded;
#[path = "api/commits.rs"]
mod commits;
#[path = "api/counters.rs"]
mod counters;
#[path = "api/failpoints.rs"]
mod failpoints;
#[path = "api/helpers.rs"]
mod helpers;
#[path = "api/holds.rs"]
mod holds;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/only_on_postgres.rs"]
mod only_on_postgres;
#[path = "api/operation.rs"]
mod operation;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/orders.rs"]
mod orders;
#[path = "api/payments.rs"]
mod payments;
#[path = "api/products.rs"]
mod products;
#[path = "api/queue.rs"]
mod queue;
#[path = "api/tokens.rs"]
mod tokens;

/// What the suite runs on.
const STORE: helpers::StoreKind = helpers::StoreKind::Postgres;
