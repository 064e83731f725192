//! The StockLock order service: the stock of a product, sold under a locking strategy that is chosen
//! in the configuration.
//!
//! The modules, in the order in which an order meets them:
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | the configuration: defaults, file, environment, flags |
//! | [`app`] | build the service from its configuration and run it until it is told to stop |
//! | [`api`] | the bodies of requests and answers, shared with the load generator |
//! | [`http`] | the router, one file per resource; problem documents, OpenAPI |
//! | [`order`] | the values of an order that cannot be wrong: SKU, buyer, quantity, idempotency key |
//! | [`checkout`] | the use cases: place, cancel, restock, reset |
//! | [`line`](mod@line) | the checkout line: orders for one product, combined under one lock hold |
//! | [`holds`] | the record of the latest lock holds: from when to when, and what was written meanwhile |
//! | [`section`] | the critical section: read, decide, write; the same under every strategy |
//! | [`failpoint`] | faults on purpose at the edges of the critical section, for experiments and tests |
//! | [`purchase`] | the decision: pure, first come first served |
//! | [`lock`] | the locks and [`lock::connect`], the one place that knows the strategy |
//! | [`store`] | the stores; all SQL on products and orders |
//! | `combine` | many jobs in one round trip: what arrives while one is under way goes together in the next |
//! | `db` | pools, session settings and classes of errors, for the stores and the lock table |
//! | [`telemetry`] | logs and metrics |

pub mod config;

pub mod app;

pub mod api;
pub mod http;
pub mod order;

pub mod checkout;
pub mod failpoint;
pub mod holds;
pub mod line;
pub mod purchase;
pub mod section;

pub mod lock;
pub mod store;

mod combine;
mod db;
pub mod telemetry;
