//! Does somebody else's shop oversell? A load test for services that are not ours: a file describes how to
//! buy in them, and where they say what was sold.
//!
//! A module uses only modules that stand below it in this table:
//!
//! | module | what it does |
//! |---|---|
//! | [`rehearsal`] | one purchase alone, with every step shown |
//! | [`run`](mod@run) | the same purchases by one buyer after the other, and by more and more at once |
//! | [`page`] | what was found, as a page |
//! | [`progress`] | how far a load has come |
//! | `text` | what was found, as a table |
//! | [`report`] | what was found, as JSON and as test cases |
//! | [`judge`] | the verdict: pure functions from what was answered and what the shop's record says |
//! | [`load`] | what is bought, by how many, and what that asks of the shop |
//! | [`truth`] | what the shop itself says of its stock |
//! | [`buyer`] | a session, and the steps of a purchase in it |
//! | [`trust`] | whom buyers trust, over TLS |
//! | [`rendezvous`] | buyers who wait for each other before the last step |
//! | [`database`] | statements for the shop's own database |
//! | [`answer`] | what is taken from an answer, and what it is like |
//! | [`description`] | the file |
//! | [`template`] | texts with variables |
//! | [`owner`] | at which hosts orders may be made |

mod rehearsal;
mod run;
pub mod page;
mod progress;
mod text;
mod report;
mod judge;
mod load;
mod truth;
mod buyer;
mod trust;
mod rendezvous;
mod database;
mod answer;
mod description;
mod template;
mod owner;

pub use buyer::{Door, Outcome, ReadAs, Resent};
pub use description::{Description, schema};
pub use judge::Tried;
pub use load::{Arrival, Load, LoadOptions, MAX_REQUESTS, RUNGS};
pub use owner::Owner;
pub use progress::{Now, ShopBar, ShopProgress};
pub use rehearsal::{Rehearsal, rehearse};
pub use report::{Answers, ShopReport, ShopRun, StepLatency, words};
pub use run::run;
