//! The same load under several strategies, turn and turn about, on one PostgreSQL server.

use std::time::Duration;

use lab::{Postgres, Server as _};
use order_service::config::StrategyName;

use crate::fleet::{Fleet, FleetPlan, StoreKind};
use crate::report::RunReport;
use crate::run::{self, FaultSource};
use crate::scenario::{Amount, Scenario};
use crate::spread::Spread;
use crate::verdict::Verdict;

/// How often each contender runs: enough for a median.
const ROUNDS: u64 = 3;

/// How long each run is.
const RUN: Duration = Duration::from_millis(1_500);

/// What was measured of one strategy in one mode.
pub(in crate::experiments) struct Bench {
    pub(in crate::experiments) strategy: StrategyName,
    /// The most orders in one lock hold: 1 in textbook mode.
    pub(in crate::experiments) max_batch: usize,
    pub(in crate::experiments) runs: Vec<RunReport>,
}

impl Bench {
    /// Measures each strategy in textbook mode and combined. All replicas are there from the beginning, and the runs
    /// alternate, so that whatever else the machine does falls on all.
    pub(in crate::experiments) async fn side_by_side(
        strategies: &[StrategyName],
    ) -> anyhow::Result<Vec<Self>> {
        let postgres = Postgres::start().await?;
        let mut benches = Vec::new();
        let mut fleets = Vec::new();
        for max_batch in [1, 256] {
            for &strategy in strategies {
                let mut plan = FleetPlan::new(strategy, 2)?
                    .with("store.url", &postgres.url())
                    .with("checkout.max_batch", &max_batch.to_string())
                    .with("lock.wait", "5s");
                plan.store = StoreKind::Postgres;
                fleets.push(Fleet::start(plan).await?);
                benches.push(Self { strategy, max_batch, runs: Vec::new() });
            }
        }
        for seed in 0..ROUNDS {
            for (fleet, bench) in fleets.iter().zip(&mut benches) {
                let (stock, replays) = (1_000_000, 0.0);
                let amount = Amount::For(RUN);
                let scenario = Scenario { buyers: 64, amount, stock, replays, seed, ..Scenario::default() };
                let progress = Default::default();
                let run = run::fire(fleet.clients(), &scenario, &progress, FaultSource::None).await?;
                bench.runs.push(run);
            }
        }
        for fleet in fleets {
            fleet.stop().await?;
        }
        Ok(benches)
    }

    /// A figure of all runs.
    pub(in crate::experiments) fn spread(&self, figure: impl Fn(&RunReport) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure).collect())
    }

    /// Confirmed orders per second.
    pub(in crate::experiments) fn rate(&self) -> Spread {
        self.spread(|run| run.accepted_per_second)
    }

    /// Whether every run was as it should be.
    pub(in crate::experiments) fn is_correct(&self) -> bool {
        self.runs.iter().all(|run| run.verdict == Verdict::Correct)
    }
}
