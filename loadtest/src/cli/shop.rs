//! `loadtest run --target-file`: a load on a shop that is not ours.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use loadtest::report::Conclusion;
use loadtest::shop::{self, Description, RUNGS};
use loadtest::verdict::Verdict;
use tokio_util::sync::CancellationToken;

use super::load::Load;
use super::output::{Output, write_json};

/// Units in stock of a shop that is not ours, where no number is given.
const STOCK: i64 = 10;

/// How many times the stock is wanted, where no number of orders is given.
const WANTED: i64 = 4;

#[derive(Args)]
#[command(next_help_heading = "For a shop that is not ours")]
pub(super) struct Shop {
    /// Instead of --target: the description of a shop, which need not be this project's. Of the load, --stock
    /// [default: 10], --orders [default: four times the stock], --quantity, --timeout and --json count
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "faults"])]
    pub(super) target_file: Option<PathBuf>,
    /// Make two purchases, one after the other, show every step, and stop there
    #[arg(long, requires = "target_file")]
    dry_run: bool,
    /// How many buy at the same time, in one run after the other
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_values_t = RUNGS,
        requires = "target_file"
    )]
    rungs: Vec<usize>,
    /// How often each
    #[arg(long, default_value_t = 1, value_name = "N", requires = "target_file")]
    repeat: usize,
    /// How long the shop's record may take to come to rest after a run
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// A host that is not this machine, at which orders may be made
    #[arg(long, value_name = "HOST", requires = "target_file")]
    i_own_this_target: Vec<String>,
}

/// Rehearses, and then runs the load.
pub(super) async fn run(
    file: &Path,
    arguments: &Shop,
    load: &Load,
    output: &Output,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    if output.html.is_some() {
        bail!("--html: there is no page for described shops yet");
    }
    let description = Description::read(file)?;
    let quantity = *load.quantity.start();
    ensure!(quantity == *load.quantity.end(), "--quantity: every buyer of a described shop buys as much");
    let stock = load.stock.unwrap_or(STOCK);
    ensure!(stock >= quantity, "--stock: must be enough for one purchase");
    let wanted = load.orders.unwrap_or_else(|| (stock * WANTED / quantity).unsigned_abs());
    ensure!(
        arguments.rungs.iter().all(|buyers| (1..=10_000).contains(buyers)),
        "--rungs: must be from 1 to 10000"
    );
    let load = shop::Load {
        rungs: arguments.rungs.clone(),
        repeat: arguments.repeat,
        purchases: usize::try_from(wanted)?,
        stock,
        quantity,
        timeout: load.timeout,
        settle: arguments.settle,
    };
    let purchases = 2 + load.purchases * (1 + load.rungs.len() * load.repeat);
    shop::check_owner(&description, &arguments.i_own_this_target, purchases)?;
    let rehearsal = shop::rehearse(&description, &load).await?;
    if arguments.dry_run || !rehearsal.faults.is_empty() {
        println!("{rehearsal}");
    }
    if !rehearsal.faults.is_empty() {
        return Ok(ExitCode::from(Conclusion::Inconclusive.exit_code()));
    }
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let report = shop::run(&description, &load, stop).await?;
    println!("{report}");
    if let Some(file) = &output.json {
        write_json(file, &report)?;
    }
    let conclusion = match report.verdict {
        Verdict::Correct => Conclusion::AsExpected,
        Verdict::Inconclusive => Conclusion::Inconclusive,
        Verdict::Violated => Conclusion::Violated,
    };
    Ok(ExitCode::from(conclusion.exit_code()))
}
