//! Our own load generator, inside this process: where the record of every attempt is needed.

use std::time::Duration;

use crate::attempt::Attempt;
use crate::client::Client;
use crate::record::Record;
use crate::runner;
use crate::scenario::{Amount, Scenario};

use super::catalogue::{Catalogue, Demand};

/// A load for so long, in a closed loop, or at a rate in an open one. Every answer is of an order of its own.
pub(super) fn scenario(buyers: usize, rate: Option<f64>, time: Duration) -> Scenario {
    Scenario { buyers, rate, amount: Amount::For(time), replays: 0.0, twins: 0.0, ..Scenario::default() }
}

/// Orders the only product of a catalogue, and says what is wrong with its audit afterwards.
pub(super) async fn fire(
    replica: &Client,
    catalogue: &mut Catalogue,
    scenario: &Scenario,
) -> anyhow::Result<(Record, Vec<String>)> {
    let replicas = [replica.clone()];
    let sku = catalogue.skus().next().expect("a catalogue has a product");
    let record = runner::run(&replicas, &sku, scenario, &Default::default()).await;
    let count = |of: fn(&Attempt) -> bool| record.attempts.iter().filter(|a| of(a)).count() as u64;
    catalogue.note(count(|attempt| attempt.sale().is_some()), count(Attempt::is_unknown));
    let violations = catalogue.audit(replica).await?;
    Ok((record, violations))
}

/// A product of its own for one run.
pub(super) async fn product(replica: &Client, name: &str) -> anyhow::Result<Catalogue> {
    Catalogue::create(replica, name.into(), Demand::One).await
}

/// How many attempts that `of` accepts fall between two moments, per second; `at` says when an attempt was,
/// and both count from the start of the run.
pub(super) fn per_second(
    record: &Record,
    (from, until): (Duration, Duration),
    of: impl Fn(&Attempt) -> bool,
    at: impl Fn(&Attempt) -> u64,
) -> f64 {
    let window = from.as_nanos()..until.as_nanos();
    let within = |attempt: &&Attempt| of(attempt) && window.contains(&u128::from(at(attempt)));
    record.attempts.iter().filter(within).count() as f64 / (until - from).as_secs_f64()
}
