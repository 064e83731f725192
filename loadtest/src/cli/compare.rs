//! `loadtest compare`: strategies side by side.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use loadtest::compare::{self, Plan};
use loadtest::faults::{FORMS, Schedule};
use loadtest::fleet::StoreKind;
use loadtest::refusal::Refused;
use order_service::config::{Config, StrategyName};
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::load::Load;
use super::output::Output;
use super::values::{fault, key_value, odd, strategy};

#[derive(Args)]
pub struct Compare {
    /// The strategies to compare, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = StrategyName::ALL, value_parser = strategy())]
    strategies: Vec<StrategyName>,
    /// The store: a file, or a PostgreSQL server of the laboratory's own
    #[arg(long, value_enum, default_value_t = StoreKind::Sqlite)]
    store: StoreKind,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Redis servers, an odd number, that know nothing of each other and of which a majority has the lock
    /// (Redlock)
    #[arg(long, default_value_t = 1, value_parser = odd)]
    redis_servers: usize,
    /// How often to run each strategy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// A key of the service's configuration with its value, such as checkout.max_batch=1; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    #[arg(
        long = "fault",
        help = format!(
            "What to break meanwhile, separated by commas: {FORMS}, which goes on until the end"
        ),
        value_name = "FAULT@TIME",
        value_parser = fault,
        action = clap::ArgAction::Append
    )]
    faults: Vec<String>,
    /// Do not fire the same load at a shop without a lock beside the others: whether it breaks that one says
    /// what their verdicts are worth
    #[arg(long)]
    no_control: bool,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: Compare, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let faults = Schedule::parse(&arguments.faults).map_err(Refused)?;
    let lease = Plan::lease(&arguments.overrides);
    let plan = Plan {
        strategies: arguments.strategies,
        store: arguments.store,
        replicas: arguments.replicas.into(),
        redis_servers: arguments.redis_servers,
        repeat: arguments.repeat as usize,
        scenario: arguments.load.scenario(&faults, lease),
        overrides: arguments.overrides,
        faults,
        control: !arguments.no_control,
    };
    check(&plan)?;
    finish(&plan, &arguments.output, stop).await
}

/// Refuses a configuration that no replica would start with.
fn check(plan: &Plan) -> anyhow::Result<()> {
    for strategy in &plan.strategies {
        let mut keys = vec![("lock.strategy".to_owned(), strategy.to_string())];
        keys.extend(plan.overrides.iter().cloned());
        Config::of(&keys).with_context(|| format!("the run under {strategy} cannot be made"))?;
    }
    Ok(())
}

/// Runs the plan, and shows and judges what came of it.
pub(super) async fn finish(
    plan: &Plan,
    output: &Output,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    output.check()?;
    let live = Live::new(output.quiet);
    let report = compare::compare_watched(plan, &live, stop).await?;
    output.finish(&report)
}
