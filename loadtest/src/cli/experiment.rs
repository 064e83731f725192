//! `loadtest experiment`: the claims of the course, tried.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use loadtest::experiments;

use super::output::{write, write_json};

#[derive(Args)]
pub struct Experiment {
    /// `list`, `all`, or names from the list
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Write what was observed to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write it as a page for people
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) async fn run(arguments: Experiment) -> anyhow::Result<ExitCode> {
    if arguments.names == ["list"] {
        for experiment in experiments::all() {
            println!("{:20} {}", experiment.name, experiment.claim);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = experiments::choose(&arguments.names)?;
    let mut reports = Vec::new();
    for experiment in chosen {
        let report = experiments::run(experiment).await?;
        println!("{report}\n");
        reports.push(report);
    }
    if let Some(file) = &arguments.json {
        write_json(file, &reports)?;
    }
    if let Some(file) = &arguments.html {
        write(file, &experiments::page(&reports))?;
    }
    Ok(ExitCode::from(experiments::conclude(&reports).exit_code()))
}
