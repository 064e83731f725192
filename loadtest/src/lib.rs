//! The StockLock load generator: fires concurrent purchases at an order service and proves from the database
//! whether any stock was oversold.
//!
//! A module uses only modules that stand below it in this table:
//!
//! | module | what it does |
//! |---|---|
//! | [`dashboard`] | the page that runs all this, and shows it while it goes on |
//! | [`bench`](mod@bench) | the speed of it all, beside other programs' |
//! | [`experiments`] | the claims of the course, tried |
//! | [`shop`] | does somebody else's shop oversell? |
//! | [`soak`] | a great many orders over a great many faults, and a failure made small |
//! | [`laboratory`] | servers and replicas for a person to play with |
//! | [`compare`] | the same scenario under several strategies, with the negative control |
//! | [`run`] | one run: send, break, collect, judge |
//! | [`report`] | the table, the JSON and the page of what runs have shown |
//! | [`verdict`] | the checks: pure functions from the evidence to a verdict |
//! | [`collector`] | reads the evidence, once nothing more can be written |
//! | [`runner`] | sends the orders of a scenario, and records every attempt |
//! | [`faults`] | what is broken meanwhile, and when |
//! | [`fleet`] | the replicas of the service that orders are sent to |
//! | [`resources`] | what the replicas need of the machine, and whether that grows |
//! | [`progress`] | how far a run has come |
//! | [`series`] | the run along its time: what charts are drawn from |
//! | [`availability`] | when the shop sold, and when it did not although it could have |
//! | [`payments`] | what became of orders that had to be paid |
//! | [`evidence`] | what the checks look at: the record, and what the database says afterwards |
//! | [`holds`] | who had the lock when, and where two had it at once |
//! | [`lost_updates`] | changes of stock of which one overwrote the other |
//! | [`record`] | what a run has sent, and what was answered |
//! | [`metrics`] | latencies and the lock's figures |
//! | [`side_operation`] | the record of a cancellation, a restock or a read |
//! | [`attempt`] | the record of an order, each time that it was sent |
//! | [`problem`] | the kinds of the service's problem documents |
//! | [`client`] | the HTTP client, which tells "not sent" from "not known" |
//! | [`pacer`] | when each attempt is due: closed loop or open loop |
//! | [`scenario`] | what is to be sent: buyers, orders, quantities, seed |
//! | [`environment`] | the machine and the program that figures were measured with |
//! | [`spread`] | what several measurements of the same say |
//! | [`refusal`] | that something cannot be carried out, however often it is tried |

pub mod dashboard;
pub mod bench;
pub mod experiments;
pub mod shop;
pub mod soak;
pub mod laboratory;
pub mod compare;
pub mod run;
pub mod report;
pub mod verdict;
pub mod collector;
pub mod runner;
pub mod faults;
pub mod fleet;
pub mod resources;
pub mod progress;
pub mod series;
pub mod availability;
pub mod payments;
pub mod evidence;
pub mod holds;
pub mod lost_updates;
pub mod record;
pub mod metrics;
pub mod side_operation;
pub mod attempt;
pub mod problem;
pub mod client;
pub mod pacer;
pub mod scenario;
pub mod environment;
pub mod spread;
pub mod refusal;
