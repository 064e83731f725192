//! `loadtest demo`: who oversells, and who does not.

use std::process::ExitCode;

use clap::Parser;
use loadtest::compare::Plan;
use loadtest::faults::Schedule;
use loadtest::fleet::{LEASE, StoreKind};
use order_service::config::StrategyName;
use tokio_util::sync::CancellationToken;

use super::compare::finish;
use super::load::Load;
use super::output::Output;

#[derive(Parser)]
pub struct Demo {
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(demo: Demo, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    demo.output.check()?;
    let plan = Plan {
        strategies: StrategyName::ALL.to_vec(),
        store: StoreKind::Sqlite,
        replicas: demo.replicas.into(),
        redis_servers: 1,
        repeat: 1,
        scenario: demo.load.scenario(&Schedule::default(), LEASE),
        overrides: Vec::new(),
        faults: Schedule::default(),
        control: true,
    };
    if !demo.output.quiet {
        demo.output.people().say(format!(
            "{} buyers at once, {} replicas, {} hair dryers in stock: is any sold that is not there?\n",
            plan.scenario.buyers, plan.replicas, plan.scenario.stock
        ))?;
    }
    finish(&plan, &demo.output, stop).await
}
