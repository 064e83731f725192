//! Overload: what is left of the capacity when much more is offered, and after another holder had the lock
//! for long.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Direction, Postgres, Server as _};
use order_service::clock::now_ns;
use order_service::config::StrategyName;
use order_service::lock::Mode;
use tokio::time::{Instant, sleep};

use super::ours;
use super::report::GroupReport;
use super::row::{Bar, Row};
use super::testbed::Deployment;
use super::{Plan, note};
use crate::attempt::Attempt;
use crate::experiments::Contenders;
use crate::fleet::Fleet;
use crate::record::Record;
use crate::scenario::Scenario;

/// How long a load goes on before it is measured: as long as an order waits for the lock, so that the first
/// are refused by then.
const LEAD: Duration = Duration::from_secs(2);

/// How much more than the capacity is offered.
const FACTORS: [u32; 2] = [3, 10];

/// How long another holder has the lock.
const HOLD: Duration = Duration::from_secs(3);

/// How long after that the service sells at capacity again.
const RECOVERY: Duration = Duration::from_secs(2);

/// The share of the capacity that is enough.
const BAR: Option<Bar> = Bar::at_least(0.8);

/// The most buyers of the generator: each that waits for an answer has a connection.
const MOST_BUYERS: f64 = 12_000.0;

/// A service whose capacity a slow network limits, so that more can be offered on the same machine.
#[derive(Debug, Clone, Copy)]
struct Case {
    deployment: Deployment,
    /// How much later everything arrives that goes to the server of the locks or comes from it.
    delay: Duration,
    /// Buyers in a closed loop that make the service work as hard as it can.
    buyers: usize,
}

const CASES: [Case; 2] = [
    Case {
        deployment: Deployment { textbook: true, ..Deployment::of(StrategyName::Redis) },
        delay: Duration::from_millis(5),
        buyers: 32,
    },
    Case {
        deployment: Deployment::of(StrategyName::Database),
        delay: Duration::from_millis(10),
        buyers: 1_024,
    },
];

/// The names of the rows.
pub(super) fn rows() -> Vec<String> {
    CASES.iter().flat_map(|case| case.rows()).collect()
}

impl Case {
    fn rows(self) -> Vec<String> {
        let strategy = self.deployment.strategy;
        let offered = FACTORS.iter().map(|factor| format!("overload/{strategy}-{factor}x"));
        offered.chain([format!("overload/{strategy}-after-hold")]).collect()
    }
}

/// Measures the rows that are wanted.
pub(super) async fn measure(plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    for case in CASES.into_iter().filter(|case| case.rows().iter().any(|row| plan.wants(row))) {
        let mut shop = Shop::open(case).await?;
        let mut rounds = Vec::new();
        for round in 1..=plan.rounds {
            rounds.push(shop.round(round, plan, report).await?);
        }
        shop.fleet.stop().await?;
        let capacities: Vec<_> = rounds.iter().map(|round| round[0]).collect();
        for (number, name) in (1..).zip(case.rows()) {
            let figures: Vec<_> = rounds.iter().map(|round| round[number]).collect();
            report.rows.push(Row::of_pairs(&name, "the capacity", "orders/s", &figures, &capacities, BAR));
        }
    }
    Ok(())
}

/// The service behind its slow network.
struct Shop {
    case: Case,
    fleet: Fleet,
    products: usize,
    /// A database that is near, where the locks are not kept in it. Last, so that it outlives the replica.
    _postgres: Option<Postgres>,
}

impl Shop {
    async fn open(case: Case) -> anyhow::Result<Self> {
        let mut plan = case.deployment.plan()?;
        plan.proxied = true;
        let mut postgres = None;
        if case.deployment.strategy != StrategyName::Database {
            let near = Postgres::start().await?;
            plan = plan.with("store.url", &near.url());
            postgres = Some(near);
        }
        let fleet = Fleet::start(plan).await?;
        for link in fleet.links_of(0).all() {
            link.delay(Direction::ToServer, case.delay);
            link.delay(Direction::ToClient, case.delay);
        }
        Ok(Self { case, fleet, products: 0, _postgres: postgres })
    }

    /// The capacity, and then what is sold when each factor of it is offered, and after the hold.
    async fn round(&mut self, round: u32, plan: &Plan, report: &mut GroupReport) -> anyhow::Result<Vec<f64>> {
        let measured = Duration::from_secs(plan.seconds);
        let closed = ours::scenario(self.case.buyers, None, LEAD + measured);
        let capacity = self.sold(&closed, report).await?;
        let strategy = self.case.deployment.strategy;
        note(round, plan, &format!("{strategy}: capacity {capacity:.0}/s"));
        ensure!(capacity > 0.0, "{strategy}: nothing was sold without overload");
        let mut figures = vec![capacity];
        for factor in FACTORS {
            let open = offer(capacity * f64::from(factor), LEAD + measured);
            figures.push(self.sold(&open, report).await?);
            note(
                round,
                plan,
                &format!("{strategy}, {factor} times that: {:.0}/s", figures[figures.len() - 1]),
            );
        }
        let after_hold = self.sold_after_a_hold(capacity, measured, report).await?;
        note(round, plan, &format!("{strategy}, after another's hold: {after_hold:.0}/s"));
        figures.push(after_hold);
        Ok(figures)
    }

    /// Sales per second after the lead.
    async fn sold(&mut self, scenario: &Scenario, report: &mut GroupReport) -> anyhow::Result<f64> {
        let replica = self.fleet.clients()[0].clone();
        let mut product = ours::product(&replica, &self.next_product()).await?;
        let (record, violations) = ours::fire(&replica, &mut product, scenario).await?;
        report.violations.extend(violations);
        let window = (LEAD, length(scenario));
        report.not_measured.extend(shortfall(&record, scenario, window));
        Ok(sold(&record, window))
    }

    /// Sales per second from a while after the end of another's hold, with three times the capacity offered.
    async fn sold_after_a_hold(
        &mut self,
        capacity: f64,
        measured: Duration,
        report: &mut GroupReport,
    ) -> anyhow::Result<f64> {
        let replica = self.fleet.clients()[0].clone();
        let mut product = ours::product(&replica, &self.next_product()).await?;
        let sku = product.skus().next().expect("a catalogue has a product");
        // The lock is queued for, which takes up to as long as the lead.
        let scenario = offer(capacity * f64::from(FACTORS[0]), LEAD * 2 + HOLD + RECOVERY + measured);
        let hold = hold(self.contenders().await?, &sku);
        let (fired, released) = tokio::join!(ours::fire(&replica, &mut product, &scenario), hold);
        let (record, violations) = fired?;
        report.violations.extend(violations);
        let released = Duration::from_nanos(released?.saturating_sub(record.begun_ns));
        let window = (released + RECOVERY, length(&scenario));
        ensure!(window.0 < window.1, "the lock was not released before the load was over");
        report.not_measured.extend(shortfall(&record, &scenario, window));
        Ok(sold(&record, window))
    }

    /// Others who want the same locks; their network is fast.
    async fn contenders(&mut self) -> anyhow::Result<Contenders> {
        let strategy = self.case.deployment.strategy;
        let server = self.fleet.servers().iter().next().context("the locks are on no server")?;
        Contenders::new(strategy, server, &[]).await
    }

    fn next_product(&mut self) -> String {
        self.products += 1;
        format!("product-{}", self.products)
    }
}

/// Takes a product's lock a while after the beginning, and says when it was released, by the host's clock.
async fn hold(contenders: Contenders, sku: &str) -> anyhow::Result<u64> {
    let lock = contenders.join("another").await?;
    sleep(LEAD / 2).await;
    let deadline = Instant::now() + LEAD + HOLD;
    let lease = lock.acquire(sku, Mode::Exclusive, deadline).await.context("another cannot take the lock")?;
    sleep(HOLD).await;
    lease.release().await;
    let released = now_ns();
    lock.shutdown().await;
    Ok(released)
}

/// An open loop at a rate, with as many buyers as may wait for answers at the same time.
fn offer(rate: f64, time: Duration) -> Scenario {
    let waiting = 5.0 * rate + 100.0;
    ours::scenario(waiting.min(MOST_BUYERS) as usize, Some(rate), time)
}

fn length(scenario: &Scenario) -> Duration {
    match scenario.amount {
        crate::scenario::Amount::For(time) => time,
        crate::scenario::Amount::Orders(_) => unreachable!("all loads here are limited in time"),
    }
}

fn sold(record: &Record, window: (Duration, Duration)) -> f64 {
    ours::per_second(record, window, |attempt| attempt.sale().is_some(), |attempt| attempt.received)
}

/// What the generator failed to offer, where that is more than a tenth.
fn shortfall(record: &Record, scenario: &Scenario, window: (Duration, Duration)) -> Option<String> {
    let rate = scenario.rate?;
    let sent = ours::per_second(record, window, |_| true, |attempt: &Attempt| attempt.sent);
    (sent < 0.9 * rate).then(|| format!("the generator offered {sent:.0} orders/s instead of {rate:.0}"))
}
