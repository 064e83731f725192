//! `loadtest run --target-file`: a load on a shop that is not ours.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use loadtest::refusal::Refused;
use loadtest::report::Conclusion;
use loadtest::shop::{self, Description, LoadOptions, MAX_REQUESTS, RUNGS, ShopBar, ShopProgress};
use tokio_util::sync::CancellationToken;

use super::load::Load;
use super::output::Output;

#[derive(Args)]
#[command(next_help_heading = "For a shop that is not ours")]
pub(super) struct Shop {
    /// Instead of --target: the description of a shop, which need not be this project's. Of the load, --stock
    /// [default: 10], --orders [default: four times the stock], --rate, --duration (of a --rate), --quantity,
    /// --replays and --twins [default: 0.2 each, where a step is idempotent] and --timeout count
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "faults", "token"])]
    pub(super) target_file: Option<PathBuf>,
    /// Make four purchases alone, show every step, and stop there
    #[arg(long, requires = "target_file")]
    dry_run: bool,
    /// How many buy at the same time, in one run after the other
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_values_t = RUNGS,
        requires = "target_file",
        conflicts_with = "rate"
    )]
    rungs: Vec<usize>,
    /// How often each
    #[arg(long, default_value_t = 1, value_name = "N", requires = "target_file")]
    repeat: usize,
    /// Let all buyers wait for each other before the last step
    #[arg(long, requires = "target_file", conflicts_with = "rate")]
    rendezvous: bool,
    /// How long the shop's record may take to come to rest after a run
    #[arg(
        long,
        default_value = "15s",
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        requires = "target_file"
    )]
    settle: Duration,
    /// A host that is not this machine, at which orders may be made
    #[arg(long, value_name = "HOST", requires = "target_file")]
    i_own_this_target: Vec<String>,
    /// How many requests may be made in all
    #[arg(long, value_name = "N", default_value_t = MAX_REQUESTS, requires = "target_file")]
    max_requests: usize,
}

impl Shop {
    fn load(&self, load: &Load) -> Result<shop::Load, Refused> {
        if let Some(name) = load.only_for_ours() {
            return Err(Refused(format!("{name}: not for a described shop")));
        }
        let quantity = *load.quantity.start();
        if quantity != *load.quantity.end() {
            return Err(Refused("--quantity: every buyer of a described shop buys as much".into()));
        }
        let options = LoadOptions {
            rungs: self.rungs.clone(),
            rate: load.rate,
            repeat: self.repeat,
            purchases: load.orders,
            duration: load.duration,
            stock: load.stock,
            quantity,
            replays: load.replays,
            twins: load.twins,
            rendezvous: self.rendezvous,
            timeout: load.timeout,
            settle: self.settle,
            owned_hosts: self.i_own_this_target.clone(),
        };
        shop::Load::of(options).map_err(Refused::by)
    }
}

/// Rehearses, and then runs the load.
pub(super) async fn run(
    file: &Path,
    arguments: &Shop,
    load: &Load,
    output: &Output,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    output.check()?;
    let description = Description::read(file).map_err(Refused::by)?;
    let load = arguments.load(load)?;
    load.check(&description, arguments.max_requests).map_err(Refused::by)?;
    if !arguments.dry_run && !output.quiet {
        eprintln!("{}\n", load.announcement(&description));
    }
    let rehearsal = shop::rehearse(&description, &load).await?;
    let fits = rehearsal.faults.is_empty();
    if arguments.dry_run || !fits {
        output.people().say(&rehearsal)?;
    }
    if !fits {
        return Ok(ExitCode::from(Conclusion::Inconclusive.exit_code()));
    }
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Arc::new(ShopProgress::until(stop.clone()));
    let bar = (!output.quiet).then(|| ShopBar::show(&progress));
    let report = shop::run(&description, &load, &progress).await;
    drop(bar);
    output.finish(&report?)
}
