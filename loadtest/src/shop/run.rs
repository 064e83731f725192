//! Runs: the same purchases by one buyer after the other, and by more and more at the same time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::buyer::{self, Purchase, Session};
use super::description::Description;
use super::judge::{Traces, checks};
use super::report::{ShopReport, ShopRun, StepLatency};
use super::template::Variables;
use super::truth;
use crate::verdict::verdict;

/// How many buy at the same time where nothing else is asked for.
pub const RUNGS: [usize; 4] = [4, 8, 20, 40];

/// What is bought, by how many.
#[derive(Debug, Clone)]
pub struct Load {
    /// Buyers at the same time, in one run after the other.
    pub rungs: Vec<usize>,
    /// How often each.
    pub repeat: usize,
    /// Purchases in each run.
    pub purchases: usize,
    /// Units that the set-up puts in stock.
    pub stock: i64,
    /// Units in each purchase.
    pub quantity: i64,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How long the shop's record may take to come to rest.
    pub settle: Duration,
}

impl Load {
    /// The variables of one buyer.
    pub(super) fn of_buyer(&self, run: &str, number: usize) -> [(&'static str, Value); 2] {
        [("buyer", json!(format!("{run}-{number}"))), ("key", json!(Uuid::new_v4().to_string()))]
    }
}

/// What all of a run know.
pub(super) fn variables_of(
    shop: &Description,
    load: &Load,
    run: &str,
    number: usize,
) -> anyhow::Result<Variables> {
    let mut variables = Variables::new();
    variables.set("stock", json!(load.stock));
    variables.set("quantity", json!(load.quantity));
    for (name, value) in load.of_buyer(run, number) {
        variables.set(name, value);
    }
    for (name, text) in &shop.variables {
        let value = variables.fill(text).with_context(|| format!("variables.{name}"))?;
        variables.set(name, Value::String(value));
    }
    Ok(variables)
}

/// Runs the load: first a control of one buyer after the other, then every rung. When `stop` is cancelled,
/// the run that goes on is judged by what was done, and others do not begin.
pub async fn run(shop: &Description, load: &Load, stop: &CancellationToken) -> anyhow::Result<ShopReport> {
    ensure!(load.purchases > 0, "there is nothing to buy");
    let mut runs = Vec::new();
    let rungs = load.rungs.iter().flat_map(|buyers| std::iter::repeat_n(*buyers, load.repeat));
    for buyers in std::iter::once(1).chain(rungs) {
        if stop.is_cancelled() {
            break;
        }
        let run = one(shop, load, buyers, stop).await;
        let run = run.with_context(|| format!("the run of {buyers} buyers broke off"))?;
        eprintln!(
            "{buyers} buyers: {} of {} sold, {}",
            run.sold.unwrap_or(run.bought),
            run.stock,
            run.verdict
        );
        runs.push(run);
    }
    Ok(ShopReport::new(&shop.name, runs))
}

async fn one(
    shop: &Description,
    load: &Load,
    buyers: usize,
    stop: &CancellationToken,
) -> anyhow::Result<ShopRun> {
    let operator = Session::open(shop, 0, load.timeout)?;
    let name = format!("run-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let variables = variables_of(shop, load, &name, 0)?;
    let variables = buyer::set_up(shop, &operator, &variables).await?;
    let before = truth::read(shop, &operator, &variables).await?;
    if let Some(left) = before.left {
        ensure!(left == load.stock, "setup: {} should be in stock, and truth.left says {left}", load.stock);
    }
    let next = Arc::new(Mutex::new(0..load.purchases));
    let start = Arc::new(Barrier::new(buyers));
    let mut tasks = JoinSet::new();
    for _ in 0..buyers {
        let (shop, load, variables) = (shop.clone(), load.clone(), variables.clone());
        let (next, start, stop, name) = (Arc::clone(&next), Arc::clone(&start), stop.clone(), name.clone());
        tasks.spawn(async move {
            let mut purchases = Vec::new();
            start.wait().await;
            loop {
                let number = next.lock().await.next().filter(|_| !stop.is_cancelled());
                let Some(number) = number else { return anyhow::Ok(purchases) };
                let session = Session::open(&shop, number, load.timeout)?;
                let mut variables = variables.clone();
                for (name, value) in load.of_buyer(&name, number) {
                    variables.set(name, value);
                }
                purchases.push(buyer::purchase(&shop, &session, variables).await);
            }
        });
    }
    let mut purchases = Vec::new();
    while let Some(done) = tasks.join_next().await {
        purchases.extend(done.context("a buyer's task ended by itself")??);
    }
    let after = truth::settled(shop, &operator, &variables, Instant::now() + load.settle).await;
    let spans = purchases.iter().map(|purchase| (purchase.outcome.clone(), purchase.begun, purchase.ended));
    let traces = Traces {
        stock: load.stock,
        quantity: load.quantity,
        buyers,
        purchases: spans.collect(),
        before,
        after: after.map_err(|error| format!("{error:#}")),
    };
    Ok(report(shop, &traces, &purchases))
}

fn report(shop: &Description, traces: &Traces, purchases: &[Purchase]) -> ShopRun {
    let counts = traces.counts();
    let checks = checks(traces);
    let whole = percentiles(purchases.iter().map(|purchase| purchase.ended - purchase.begun));
    let steps = shop.purchase.iter().enumerate().map(|(number, step)| {
        let taken = purchases.iter().filter_map(|purchase| purchase.steps.get(number));
        let (p50_ms, p99_ms) = percentiles(taken.map(|taken| taken.took));
        StepLatency { step: step.title().into(), p50_ms, p99_ms }
    });
    ShopRun {
        buyers: traces.buyers,
        purchases: purchases.len(),
        stock: traces.stock,
        sold: traces.sold(),
        oversold: traces.oversold(),
        bought: counts.bought,
        refused: counts.refused,
        unknown: counts.unknown,
        p50_ms: whole.0,
        p99_ms: whole.1,
        steps: steps.collect(),
        verdict: verdict(&checks),
        checks,
    }
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(times: impl Iterator<Item = Duration>) -> (f64, f64) {
    // In microseconds, up to an hour.
    let mut histogram = Histogram::<u64>::new_with_max(3_600_000_000, 3).expect("the bounds are allowed");
    times.for_each(|time| histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)));
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    (at(0.5), at(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_in_milliseconds_however_long() {
        let times = (1..=100).map(|number| Duration::from_millis(number * 10));
        let (p50, p99) = percentiles(times);
        assert!((499.0..=501.0).contains(&p50) && (989.0..=991.0).contains(&p99), "{p50} {p99}");
    }
}
