//! `loadtest soak`: a great many orders over a great many faults.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use loadtest::client::Client;
use loadtest::compare::Watcher;
use loadtest::faults::FaultJournal;
use loadtest::progress::Progress;
use loadtest::report::RunReport;
use loadtest::scenario::Scenario;
use loadtest::soak;
use order_service::config::StrategyName;
use tokio_util::sync::CancellationToken;

use super::destination::{Destination, People, check};
use super::live::Live;
use super::values::{key_value, positive, strategy};

#[derive(Args)]
pub struct Soak {
    /// The strategies, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = StrategyName::leased(), value_parser = strategy())]
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
    /// Write the report to a file as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<Destination>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<Destination>,
}

/// Shows a round while it goes on; the soak itself says what has come of it.
struct Rounds(Live);

impl Watcher for Rounds {
    fn begins(&self, strategy: StrategyName, scenario: &Scenario, progress: &Arc<Progress>) {
        self.0.show(strategy.as_str(), scenario, progress);
    }

    fn fires(&self, _: &[Client], faults: &FaultJournal) {
        self.0.breaks(faults);
    }

    fn ends(&self, _: &RunReport) {
        self.0.clear();
    }
}

pub(super) async fn run(arguments: Soak, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Soak { json, markdown, .. } = &arguments;
    let (json, markdown) = (json.clone(), markdown.clone());
    let files = || json.iter().chain(&markdown);
    check(files())?;
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
    let report = soak.run(&Rounds(Live::new(false)), stop).await?;
    People::beside(files()).say(report.markdown())?;
    if let Some(file) = &json {
        file.write_json(&report)?;
    }
    if let Some(file) = &markdown {
        file.write(&report.markdown())?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}
