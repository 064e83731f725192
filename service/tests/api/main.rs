//! The service through HTTP: real replicas on SQLite, on free ports. The same suite runs on PostgreSQL in
//! `api_on_postgres.rs`.

mod access;
mod bad_input;
mod bounded;
mod commits;
mod connections;
mod counters;
mod documents;
mod failpoints;
mod helpers;
mod holds;
mod idempotency;
mod limits;
mod only_on_sqlite;
mod operation;
mod orders;
mod payments;
mod products;
mod queue;
mod scan;
mod security;
mod tokens;

/// What the suite runs on.
const STORE: helpers::StoreKind = helpers::StoreKind::Sqlite;
