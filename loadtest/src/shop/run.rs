//! Runs: the same purchases by one buyer after the other, and by more and more at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::buyer::{self, Purchase, Resend, Session};
use super::description::Description;
use super::judge::{Traces, Tried, checks, counterexample};
use super::load::{Arrival, Load};
use super::progress::ShopProgress;
use super::rendezvous::Rendezvous;
use super::report::{Answers, ShopReport, ShopRun, StepLatency};
use super::template::Variables;
use super::truth;
use crate::pacer::Pacer;
use crate::verdict::{Verdict, verdict};

/// What all buyers of a run share.
struct Shared {
    shop: Description,
    load: Load,
    name: String,
    variables: Variables,
    progress: Arc<ShopProgress>,
    next: AtomicUsize,
    is_control: bool,
}

/// Runs the load: first a control of one buyer after the other, then every arrival. Where the control is
/// violated, others do not begin: what is wrong there is no race. When the progress is stopped, the run that
/// goes on is judged by what was done.
pub async fn run(
    shop: &Description,
    load: &Load,
    progress: &Arc<ShopProgress>,
) -> anyhow::Result<ShopReport> {
    ensure!(load.purchases > 0, "there is nothing to buy");
    let (mut runs, mut broke_off) = (Vec::new(), None);
    let arrivals = load.arrivals.iter().flat_map(|arrival| std::iter::repeat_n(*arrival, load.repeat));
    for arrival in std::iter::once(Arrival::ALONE).chain(arrivals) {
        let control_is_wrong =
            runs.first().is_some_and(|control: &ShopRun| control.verdict == Verdict::Violated);
        if progress.stop().is_cancelled() || control_is_wrong {
            break;
        }
        progress.begins(arrival, load.purchases, load.stock);
        match one(shop, load, arrival, progress).await {
            Ok(run) => {
                progress.ends(run.clone());
                runs.push(run);
            }
            Err(error) => {
                let mut why = format!("the run of {arrival} broke off: {error:#}");
                if runs.last().is_some_and(|last: &ShopRun| last.unknown > 0) {
                    why += "; purchases of the run before it had no clear answer, and may still have been \
                     under \
                            way: a longer timeout may help";
                }
                // What was seen before is worth telling.
                if runs.is_empty() {
                    bail!(why);
                }
                broke_off = Some(why);
                break;
            }
        }
    }
    Ok(ShopReport::new(&shop.name, runs, progress.stop().is_cancelled(), broke_off))
}

async fn one(
    shop: &Description,
    load: &Load,
    arrival: Arrival,
    progress: &Arc<ShopProgress>,
) -> anyhow::Result<ShopRun> {
    let operator = load.door.open(shop, 0)?;
    let name = format!("run-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let variables = load.variables(shop, &name)?;
    let (variables, _) = buyer::set_up(shop, &operator, &variables).await?;
    let before = truth::when_set_up(shop, &operator, &variables, load.stock, load.settle).await?;
    let shared = Arc::new(Shared {
        shop: shop.clone(),
        load: load.clone(),
        name,
        variables: variables.clone(),
        progress: Arc::clone(progress),
        next: AtomicUsize::new(0),
        is_control: arrival == Arrival::ALONE,
    });
    let begun = std::time::Instant::now();
    let mut purchases = match arrival {
        Arrival::Buyers(buyers) => closed(&shared, buyers).await?,
        Arrival::Rate(rate) => open(&shared, rate).await?,
    };
    purchases.sort_by_key(|(number, _)| *number);
    let after = truth::settled(shop, &operator, &variables, load.settle).await;
    let traces = Traces {
        stock: load.stock,
        quantity: load.quantity,
        arrival,
        is_idempotent: shop.is_idempotent(),
        last_step: shop.deciding_step().map_or_else(String::new, |step| step.title().into()),
        tried: purchases.iter().map(|(number, purchase)| Tried::of(*number, purchase, begun)).collect(),
        before,
        after: after.map_err(|error| format!("{error:#}")),
    };
    Ok(report(shop, &traces, &purchases))
}

type Numbered = (usize, Purchase);

/// So many buyers at the same time, each with the next purchase when the last one is over.
async fn closed(shared: &Arc<Shared>, buyers: usize) -> anyhow::Result<Vec<Numbered>> {
    let start = Arc::new(Barrier::new(buyers));
    let place = (shared.load.rendezvous && buyers > 1).then(|| Arc::new(Rendezvous::of(buyers)));
    let mut tasks = JoinSet::new();
    for _ in 0..buyers {
        let (shared, start, place) = (Arc::clone(shared), Arc::clone(&start), place.clone());
        tasks.spawn(async move {
            let mut purchases = Vec::new();
            start.wait().await;
            let done = loop {
                let number = shared.next.fetch_add(1, Ordering::Relaxed);
                if number >= shared.load.purchases || shared.progress.stop().is_cancelled() {
                    break Ok(purchases);
                }
                match shared.buy(number, place.as_deref()).await {
                    Ok(purchase) => purchases.push((number, purchase)),
                    Err(error) => break Err(error),
                }
            };
            if let Some(place) = place {
                place.leave();
            }
            done
        });
    }
    let mut purchases = Vec::new();
    while let Some(done) = tasks.join_next().await {
        purchases.extend(done.context("a buyer's task ended by itself")??);
    }
    Ok(purchases)
}

/// A purchase begins when it is due, whoever is still waiting. Its time is counted from then.
async fn open(shared: &Arc<Shared>, rate: f64) -> anyhow::Result<Vec<Numbered>> {
    let (pacer, begun) = (Pacer::new(Some(rate)), Instant::now());
    let mut tasks = JoinSet::new();
    for number in 0..shared.load.purchases {
        let due = begun + pacer.due(number as u64).unwrap_or_default();
        tokio::select! {
            () = sleep_until(due) => {}
            () = shared.progress.stop().cancelled() => break,
        }
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            let mut purchase = shared.buy(number, None).await?;
            purchase.begun = due.into_std();
            anyhow::Ok((number, purchase))
        });
    }
    let mut purchases = Vec::new();
    while let Some(done) = tasks.join_next().await {
        purchases.push(done.context("a buyer's task ended by itself")??);
    }
    Ok(purchases)
}

impl Shared {
    async fn buy(&self, number: usize, place: Option<&Rendezvous>) -> anyhow::Result<Purchase> {
        let session: Session = self.load.door.open(&self.shop, number)?;
        let mut variables = self.variables.clone();
        for (name, value) in Load::of_buyer(&self.name, number) {
            variables.set(name, value);
        }
        let before_last = async {
            if let Some(place) = place {
                place.wait().await;
            }
        };
        let resend = self.resend(number);
        let purchase = buyer::purchase(&self.shop, &session, variables, resend, before_last).await;
        self.progress.counts(&purchase.outcome);
        Ok(purchase)
    }

    /// Whether a purchase's last step is sent again: the same purchases of every run.
    fn resend(&self, number: usize) -> Resend {
        if !self.shop.is_idempotent() {
            return Resend::Never;
        }
        let replays = self.load.replays;
        // Two at the same time are no control.
        let twins = if self.is_control { 0.0 } else { self.load.twins };
        match Xoshiro256PlusPlus::seed_from_u64(number as u64).random_range(0.0..1.0) {
            share if share < twins => Resend::AtOnce,
            share if share < twins + replays => Resend::Afterwards,
            _ => Resend::Never,
        }
    }
}

fn report(shop: &Description, traces: &Traces, purchases: &[Numbered]) -> ShopRun {
    let counts = traces.counts();
    let checks = checks(traces);
    let confirmed = purchases.iter().map(|(_, purchase)| purchase).filter(|bought| bought.is_confirmed());
    let whole = percentiles(confirmed.map(|purchase| purchase.ended - purchase.begun));
    let steps = shop.purchase.iter().enumerate().map(|(number, step)| {
        let taken = purchases.iter().filter_map(|(_, purchase)| purchase.steps.get(number));
        let (p50_ms, p99_ms) = percentiles(taken.map(|taken| taken.took));
        StepLatency { step: step.title().into(), p50_ms, p99_ms }
    });
    ShopRun {
        arrival: traces.arrival,
        at_once: traces.most_at_once(),
        purchases: purchases.len(),
        stock: traces.stock,
        quantity: traces.quantity,
        sold: traces.sold(),
        oversold: traces.oversold(),
        bought: counts.bought,
        refused: counts.refused,
        unknown: counts.unknown,
        resent: traces.resent(),
        per_second: traces.per_second(),
        p50_ms: whole.0,
        p99_ms: whole.1,
        steps: steps.collect(),
        unclear: Answers::most_frequent(traces),
        refusals: Answers::grouped(traces.refusals()),
        counterexample: counterexample(traces),
        verdict: verdict(&checks),
        checks,
        tried: traces.tried.clone(),
    }
}

/// The median and the 99th percentile, in milliseconds, if there are any.
fn percentiles(times: impl Iterator<Item = Duration>) -> (Option<f64>, Option<f64>) {
    // In microseconds, up to an hour.
    let mut histogram = Histogram::<u64>::new_with_max(3_600_000_000, 3).expect("the bounds are allowed");
    times.for_each(|time| histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)));
    let at = |quantile| (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e3);
    (at(0.5), at(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_in_milliseconds_however_long() {
        let times = (1..=100).map(|number| Duration::from_millis(number * 10));
        let (Some(p50), Some(p99)) = percentiles(times) else { panic!("there are times") };
        assert!((499.0..=501.0).contains(&p50) && (989.0..=991.0).contains(&p99), "{p50} {p99}");
        assert_eq!(percentiles(std::iter::empty()), (None, None));
    }
}
