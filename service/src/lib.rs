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
//! | [`checkout`] | the use cases: place, cancel, restock, reset; the queue of each product and its worker |
//! | `critical_section` | take the lock, read, decide, commit, release; the same under every strategy |
//! | [`change`] | what the checkout, the critical section and the commit say to each other |
//! | [`inventory`] | the decision: pure, first come first served |
//! | [`holds`] | the record of the latest lock holds: from when to when, and what was written meanwhile |
//! | [`failpoint`] | faults on purpose at the edges of the critical section, for experiments and tests |
//! | `reader`, `commit` | reads and commits of many products together |
//! | [`lock`] | the locks and [`lock::connect`], the one place that knows them all |
//! | [`store`] | the stores; all SQL on products and orders |
//! | [`token`] | fencing tokens, and their generations |
//! | `combine` | what arrives during a flight goes together in the next: reads, commits, lock records |
//! | `db` | pools, session settings and classes of errors, for the stores and the lock table |
//! | [`telemetry`] | logs and metrics |

pub mod config;

pub mod app;

pub mod api;
pub mod http;
pub mod order;

pub mod checkout;
mod critical_section;

pub mod change;
pub mod inventory;

pub mod failpoint;
pub mod holds;

mod commit;
mod reader;

pub mod lock;
pub mod store;
pub mod token;

mod combine;
mod db;
pub mod telemetry;
