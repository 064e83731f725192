//! The soak: a great many orders over a great many faults, in rounds, until something breaks or nothing has.
//!
//! Each round has servers, replicas, orders and faults of its own, all drawn from one seed; a round that
//! fails is made as small as it can be while it still fails, and given as a command.
//!
//! | module | what it does |
//! |---|---|
//! | [`minimise`](mod@minimise) | makes a round that fails smaller |
//! | `tally` | adds rounds up, and draws the table |

pub mod minimise;
mod tally;

use std::time::Duration;

use lab::ServerKind;
use order_service::config::StrategyName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::minimise::{Case, minimise};
use crate::compare::{Plan, Watcher, compare_watched};
use crate::faults::Schedule;
use crate::fleet::{LEASE, StoreKind, servers_of};
use crate::report::{Conclusion, RunReport};
use crate::scenario::{Amount, Scenario};
use crate::verdict::Verdict;

pub use self::tally::{SoakReport, Tally};

/// When the first fault of a round may be injected.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many rounds of a strategy may break off before it is given up.
const BREAKS: usize = 3;

/// How many faults are drawn for a second, at the most.
const MOST_PER_SECOND: f64 = 2.0;

/// How long a round goes on after its last fault.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How long a customer waits for an answer: longer than the service may take, also where it is stopped again
/// and again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to soak.
#[derive(Debug, Clone)]
pub struct Soak {
    /// Under which strategies, one after the other.
    pub strategies: Vec<StrategyName>,
    /// How many orders have to be sent under each.
    pub orders: u64,
    /// How many faults have to be injected under each.
    pub faults: u64,
    /// Orders of a round.
    pub round: u64,
    /// Orders per second.
    pub rate: f64,
    /// Buyers at the same time, at the most.
    pub buyers: usize,
    /// Replicas of the service.
    pub replicas: usize,
    /// Further keys of the service's configuration.
    pub overrides: Vec<(String, String)>,
    /// What all is drawn from.
    pub seed: u64,
    /// How long a failure is made smaller.
    pub minimise_for: Duration,
}

impl Soak {
    /// Runs rounds until there are enough orders and faults, tells of each, and judges all. When `stop` is
    /// cancelled, the round that goes on is the last.
    pub async fn run(&self, watcher: &dyn Watcher, stop: &CancellationToken) -> anyhow::Result<SoakReport> {
        let (length, least) = (self.length(), WARM_UP + AFTERMATH);
        anyhow::ensure!(
            length >= least,
            "a round is {length:?} long, and {least:?} at least are needed for faults"
        );
        for strategy in &self.strategies {
            if let Some(missing) = servers_of(*strategy, StoreKind::Postgres).find_map(ServerKind::missing) {
                anyhow::bail!("{strategy}: {missing}");
            }
        }
        let mut tallies = Vec::new();
        for strategy in &self.strategies {
            let mut tally = Tally::new(*strategy);
            for round in 0.. {
                let is_over = tally.is_enough(self.orders, self.faults) || tally.has_failed();
                if stop.is_cancelled() || is_over || tally.broken_off.len() >= BREAKS {
                    break;
                }
                self.round(*strategy, round, &mut tally, watcher, stop).await;
            }
            tallies.push(tally);
        }
        Ok(SoakReport::new(self, tallies, stop.is_cancelled()))
    }

    async fn round(
        &self,
        strategy: StrategyName,
        round: u64,
        tally: &mut Tally,
        watcher: &dyn Watcher,
        stop: &CancellationToken,
    ) {
        let plan = self.plan(strategy, round);
        let begun = Instant::now();
        let report = match compare_watched(&plan, watcher, stop).await {
            Ok(report) => report,
            Err(error) => {
                eprintln!("{strategy}, round {}: broke off: {error:#}", round + 1);
                tally.broken_off.push(format!("{error:#}\n{}", plan.command_line()));
                return;
            }
        };
        let Some(run) = report.runs.first() else { return };
        tally.add(run);
        eprintln!(
            "{strategy}, round {}: {} · {} of {} orders confirmed · {} faults · {} stale writes refused · \
                {:.0} s; so far {}",
            round + 1,
            verdict_in_words(run),
            run.accepted,
            run.attempts,
            run.faults.len(),
            run.lock.stale_writes_rejected,
            begun.elapsed().as_secs_f64(),
            tally.in_words()
        );
        if run.verdict == Verdict::Violated {
            let smallest = self.smallest(&plan, stop).await;
            eprintln!("{smallest}");
            tally.failure = Some(smallest);
        }
    }

    /// Orders of a round.
    fn orders(&self) -> u64 {
        self.round.min(self.orders)
    }

    /// How long a round is, at least.
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.orders() as f64 / self.rate)
    }

    /// A round: the same for the same seed. Every other is short of stock, so that all is sold out again and
    /// again; and two of four take their time between read and write, so that a holder is hit there.
    pub fn plan(&self, strategy: StrategyName, round: u64) -> Plan {
        let seed = self.seed.wrapping_add(round);
        let length = self.length();
        let last = length.saturating_sub(AFTERMATH).max(WARM_UP);
        let share = self.orders() as f64 / self.orders.max(1) as f64;
        // More would wait for each other.
        let most = ((last - WARM_UP).as_secs_f64() * MOST_PER_SECOND).max(1.0);
        let faults = (self.faults as f64 * share).ceil().clamp(1.0, most) as usize;
        let faults = Schedule::drawn(strategy, faults, (WARM_UP, last), seed);
        let topped_up = faults.end(LEASE).map(|end| (end + LEASE).min(length));
        let is_short = round % 2 == 1;
        let mut overrides = self.overrides.clone();
        if round % 4 >= 2 {
            overrides.push(("checkout.think_time".into(), "5ms".into()));
        }
        let scenario = Scenario {
            buyers: self.buyers,
            amount: Amount::Orders(self.orders()),
            rate: Some(self.rate),
            stock: if is_short { 200 } else { 2_000 },
            quantity: 1..=3,
            cancels: 0.02,
            restocks: if is_short { 0.9 } else { 0.01 },
            reads: 0.02,
            topped_up: topped_up.filter(|_| !is_short),
            timeout: TIMEOUT,
            seed,
            ..Scenario::default()
        };
        Plan {
            strategies: vec![strategy],
            store: StoreKind::Postgres,
            replicas: self.replicas,
            redis_servers: 1,
            repeat: 1,
            scenario,
            overrides,
            faults,
            control: false,
        }
    }

    /// The smallest round that fails as well, in words.
    async fn smallest(&self, plan: &Plan, stop: &CancellationToken) -> String {
        let case = Case { faults: plan.faults.faults.clone(), orders: self.orders(), buyers: self.buyers };
        let with = |case: &Case| {
            let mut plan = plan.clone();
            plan.faults.faults = case.faults.clone();
            plan.scenario.amount = Amount::Orders(case.orders);
            plan.scenario.buyers = case.buyers;
            plan
        };
        let give_up = Instant::now() + self.minimise_for;
        let mut tries = 0;
        let found = minimise(case, self.rate, give_up, async |case: &Case| {
            if stop.is_cancelled() {
                return false;
            }
            tries += 1;
            let fails = match compare_watched(&with(case), &(), stop).await {
                Ok(report) => report.runs.iter().any(|run| run.verdict == Verdict::Violated),
                Err(error) => {
                    eprintln!("  {error:#}");
                    false
                }
            };
            let (what, faults) = (if fails { "fails" } else { "does not fail" }, case.faults.len());
            eprintln!("  {faults} faults, {} orders, {} buyers: {what}", case.orders, case.buyers);
            fails
        })
        .await;
        match found {
            Some(smallest) => format!("the smallest round that fails:\n{}", with(&smallest).command_line()),
            None => {
                format!("it did not fail again in {tries} tries; the round was:\n{}", plan.command_line())
            }
        }
    }
}

fn verdict_in_words(run: &RunReport) -> String {
    match run.reason() {
        Some(check) => format!("{} ({}: {})", run.verdict, check.name, check.detail),
        None => run.verdict.to_string(),
    }
}

impl SoakReport {
    /// What the soak has shown.
    pub fn conclude(&self) -> Conclusion {
        if self.tallies.iter().any(Tally::has_failed) {
            return Conclusion::Violated;
        }
        let is_proven = |tally: &Tally| tally.is_enough(self.orders, self.faults) && tally.is_clear();
        if self.tallies.iter().all(is_proven) { Conclusion::AsExpected } else { Conclusion::Inconclusive }
    }
}
