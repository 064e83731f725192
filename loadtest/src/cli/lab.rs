//! `loadtest lab`: real servers and replicas to play with.

use std::process::ExitCode;

use clap::Args;
use loadtest::fleet::StoreKind;
use loadtest::laboratory::Laboratory;
use order_service::config::StrategyName;

use super::values::key_value;

#[derive(Args)]
pub struct Lab {
    /// The locking strategy of the replicas
    #[arg(long, default_value_t = StrategyName::Database)]
    strategy: StrategyName,
    /// The store of the replicas
    #[arg(long, value_enum, default_value_t = StoreKind::Postgres)]
    store: StoreKind,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// A key of the service's configuration with its value, such as checkout.max_batch=1; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

pub(super) async fn run(arguments: Lab) -> anyhow::Result<ExitCode> {
    let Lab { strategy, store, replicas, overrides } = arguments;
    let laboratory = Laboratory::open(strategy, store, replicas.into(), &overrides).await?;
    println!("{laboratory}");
    std::future::pending().await
}
