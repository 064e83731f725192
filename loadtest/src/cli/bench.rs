//! `loadtest bench`: the speed of it all, beside other programs'.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use loadtest::bench;
use loadtest::report::Conclusion;

use super::output::{write, write_json};
use super::values::bench_row;

#[derive(Args)]
pub struct Bench {
    /// How often to measure everything, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long each measurement is, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Groups such as hot, or rows such as hot/redis, separated by commas
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = bench_row)]
    only: Vec<String>,
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub(super) async fn run(arguments: Bench) -> anyhow::Result<ExitCode> {
    let Bench { rounds, seconds, only, json, markdown } = arguments;
    let plan = bench::Plan { rounds, seconds, only };
    let missing = plan.missing();
    if !missing.is_empty() {
        eprintln!("loadtest: {}", missing.join("\nloadtest: "));
        return Ok(ExitCode::from(Conclusion::Inconclusive.exit_code()));
    }
    let report = bench::run(&plan).await;
    println!("{}", bench::terminal(&report));
    if let Some(file) = &json {
        write_json(file, &report)?;
    }
    if let Some(file) = &markdown {
        write(file, &bench::markdown(&report))?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}
