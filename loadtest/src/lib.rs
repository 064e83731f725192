//! The StockLock load generator: fires concurrent purchases at an order service and proves from the database
//! whether any stock was oversold.
//!
//! A run goes through these modules in this order:
//!
//! | module | what it does |
//! |---|---|
//! | [`scenario`] | what is to be fired: buyers, orders, quantities, seed |
//! | [`fleet`] | replicas of the service to fire at: in a laboratory of its own, or somebody's deployment |
//! | [`client`] | the HTTP client, which tells "not sent" from "not known" |
//! | [`pacer`] | when each attempt is due: closed loop or open loop |
//! | [`availability`] | when the shop sold, and when it did not although it could have |
//! | [`runner`] | fires, and keeps a record of every [attempt] and [errand] |
//! | [`faults`] | what is broken meanwhile, and when |
//! | [`evidence`] | what the database says afterwards |
//! | [`verdict`] | the checks: pure functions from the evidence to a verdict |
//! | [`metrics`] | latencies and the lock's figures |
//! | [`resources`] | what the replicas need of the machine, and whether that grows |
//! | [`series`] | the run along its time: what charts are drawn from |
//! | [`report`] | the table, the JSON, the page; made in an [environment] |
//! | [`compare`] | the same scenario under several strategies, with the negative control |
//! | [`soak`] | a great many orders over a great many faults, and a failure made small |
//! | [`bench`](mod@bench) | the speed of it all, beside other programs' |
//! | [`spread`] | what several measurements of the same say |
//! | [`laboratory`] | servers and replicas for a person to play with |
//! | [`experiments`] | the claims of the course, tried |
//! | [`dashboard`] | the page that runs all this, and shows it while it goes on |

pub mod attempt;
pub mod availability;
pub mod bench;
pub mod client;
pub mod compare;
pub mod dashboard;
pub mod environment;
pub mod errand;
pub mod evidence;
pub mod experiments;
pub mod faults;
pub mod fleet;
pub mod laboratory;
pub mod metrics;
pub mod pacer;
pub mod problem;
pub mod progress;
pub mod report;
pub mod resources;
pub mod runner;
pub mod scenario;
pub mod series;
pub mod soak;
pub mod spread;
pub mod verdict;
