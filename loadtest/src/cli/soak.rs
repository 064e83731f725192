//! `loadtest soak`: a great many orders over a great many faults.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loadtest::soak;
use order_service::config::StrategyName;
use tokio_util::sync::CancellationToken;

use super::output::{write, write_json};
use super::values::{key_value, positive};

#[derive(Args)]
pub struct Soak {
    /// The strategies, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = StrategyName::leased())]
    strategies: Vec<StrategyName>,
    /// Orders that have to be sent under each strategy, repetitions left out
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    orders: u64,
    /// Faults that have to be injected under each strategy
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    faults: u64,
    /// Orders of a round; each has servers and replicas of its own
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    round: u64,
    /// Orders per second
    #[arg(long, default_value_t = 1_000.0, allow_negative_numbers = true, value_parser = positive)]
    rate: f64,
    /// Buyers at the same time, at the most
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    buyers: u32,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// A key of the service's configuration with its value, such as checkout.guard=off; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// What orders and faults are drawn from
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// How long a round that fails is made smaller
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = humantime::parse_duration)]
    minimise_for: Duration,
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub(super) async fn run(arguments: Soak, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Soak { json, markdown, .. } = &arguments;
    let (json, markdown) = (json.clone(), markdown.clone());
    let soak = soak::Soak {
        strategies: arguments.strategies,
        orders: arguments.orders,
        faults: arguments.faults,
        round: arguments.round,
        rate: arguments.rate,
        buyers: arguments.buyers as usize,
        replicas: arguments.replicas.into(),
        overrides: arguments.overrides,
        seed: arguments.seed,
        minimise_for: arguments.minimise_for,
    };
    let report = soak.run(stop).await?;
    println!("{}", report.markdown());
    if let Some(file) = &json {
        write_json(file, &report)?;
    }
    if let Some(file) = &markdown {
        write(file, &report.markdown())?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}
