//! The service through HTTP: real replicas on a real store, on free ports.

mod bad_input;
mod documents;
mod helpers;
mod idempotency;
mod line;
mod operation;
mod orders;
mod products;
