//! The StockLock order service: the stock of a product, sold under a locking strategy that is chosen
//! in the configuration.
//!
//! The modules, from the outermost to the innermost: each uses only those below it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`app`] | build the service from its configuration and run it until it is signalled to stop |
//! | [`http`] | the router, one file per resource; problem documents, OpenAPI |
//! | [`checkout`] | the use cases: place, pay, cancel, restock, reset; each product's queue and its worker |
//! | [`readiness`] | whether an order could be taken now |
//! | `critical_section` | take the lock, read, decide, commit, release; the same under every strategy |
//! | [`holds`] | the record of the latest lock holds: from when to when, and what was written meanwhile |
//! | `reader` | reads of many products together |
//! | `commit` | commits of many products together |
//! | [`lock`] | the locks and [`lock::connect`], the one place that knows them all |
//! | [`store`] | the stores; all SQL on products and orders |
//! | [`change`] | what the checkout, the critical section, the commit and the store say to each other |
//! | [`inventory`] | the decision: pure, first come first served |
//! | [`token`] | fencing tokens, and their generations |
//! | `combine` | what arrives during a flight goes together in the next: reads, commits, lock records |
//! | `db` | pools, session settings and classes of errors, for the stores and the lock table |
//! | [`telemetry`] | logs and metrics |
//! | [`command_line`] | what the command lines of both programs have in common |
//! | [`config`] | the configuration: defaults, file, environment, flags |
//! | [`failpoint`] | faults on purpose at the edges of the critical section, for experiments and tests |
//! | [`clock`] | the clock by which holds are recorded |
//! | [`order`] | the values of an order that cannot be wrong: SKU, buyer, quantity, idempotency key |
//! | [`api`] | the bodies of requests and answers, shared with the load generator |

pub mod app;
pub mod http;
pub mod checkout;
pub mod readiness;
mod critical_section;
pub mod holds;
mod reader;
mod commit;
pub mod lock;
pub mod store;
pub mod change;
pub mod inventory;
pub mod token;
mod combine;
mod db;
pub mod telemetry;
pub mod command_line;
pub mod config;
pub mod failpoint;
pub mod clock;
pub mod order;
pub mod api;
