//! The most memory that a replica ever had, under the heaviest load.

use std::time::Duration;

use anyhow::Context as _;
use order_service::config::StrategyName::{self, Database, Redis};

use super::catalogue::Demand;
use super::report::GroupReport;
use super::row::{Bar, Row};
use super::testbed::{Deployment, Load, Testbed};
use super::{Plan, note};

const DEMANDS: [(&str, Demand); 3] =
    [("hot", Demand::One), ("1000", Demand::Uniform(1_000)), ("10000", Demand::Uniform(10_000))];

const CASES: [(StrategyName, usize); 6] =
    [(Redis, 0), (Redis, 1), (Redis, 2), (Database, 0), (Database, 1), (Database, 2)];

/// The names of the rows.
pub(super) fn rows() -> Vec<String> {
    CASES.map(|(strategy, demand)| name(strategy, DEMANDS[demand].0)).to_vec()
}

fn name(strategy: StrategyName, products: &str) -> String {
    format!("memory/{strategy}-{products}")
}

/// Measures the rows that are wanted, each with a replica of its own in each round: what a process has had
/// once, it may keep.
pub(super) async fn measure(plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    for (strategy, demand) in CASES {
        let (products, demand) = DEMANDS[demand];
        let name = name(strategy, products);
        if !plan.wants(&name) {
            continue;
        }
        let mut figures = Vec::new();
        for round in 1..=plan.rounds {
            figures.push(peak_mib(strategy, demand, plan, report).await?);
            note(round, plan, &format!("{name}: {:.1} MiB", figures[figures.len() - 1]));
        }
        report.rows.push(Row::alone(&name, "MiB", &figures, Bar::at_most(64.0)));
    }
    Ok(())
}

async fn peak_mib(
    strategy: StrategyName,
    demand: Demand,
    plan: &Plan,
    report: &mut GroupReport,
) -> anyhow::Result<f64> {
    let deployment = Deployment::of(strategy);
    let load = Load::Orders { deployment, connections: 256, demand };
    let mut testbed = Testbed::start(&[load]).await?;
    let (_, violations) = testbed.measure(load, Duration::from_secs(plan.seconds)).await?;
    report.violations.extend(violations);
    let [replica] = testbed.process_ids(deployment)[..] else { unreachable!("it has one replica") };
    let peak = peak_kib(replica).context("the peak of a process's memory cannot be seen here");
    testbed.stop().await?;
    Ok(peak? as f64 / 1024.0)
}

/// The most resident memory that a process has had, as Linux counts it.
fn peak_kib(process: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}
