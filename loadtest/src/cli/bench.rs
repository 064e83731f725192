//! `loadtest bench`: the speed of it all, beside other programs'.

use std::process::ExitCode;

use clap::Args;
use loadtest::bench;
use loadtest::report::Conclusion;

use super::destination::{Destination, People, check};
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
    /// Write the report to a file as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<Destination>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<Destination>,
}

pub(super) async fn run(arguments: Bench) -> anyhow::Result<ExitCode> {
    let Bench { rounds, seconds, only, json, markdown } = arguments;
    let files = || json.iter().chain(&markdown);
    check(files())?;
    let plan = bench::Plan { rounds, seconds, only };
    let missing = plan.missing();
    if !missing.is_empty() {
        eprintln!("loadtest: {}", missing.join("\nloadtest: "));
        return Ok(ExitCode::from(Conclusion::Inconclusive.exit_code()));
    }
    let report = bench::run(&plan).await;
    People::beside(files()).say(bench::terminal(&report))?;
    if let Some(file) = &json {
        file.write_json(&report)?;
    }
    if let Some(file) = &markdown {
        file.write(&bench::markdown(&report))?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}
