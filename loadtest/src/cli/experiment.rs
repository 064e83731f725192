//! `loadtest experiment`: the claims of the course, tried.

use std::process::ExitCode;

use clap::Args;
use loadtest::experiments;

use super::destination::{Destination, People, check};
use super::found::Found as _;
use super::values::experiment;

#[derive(Args)]
pub struct Experiment {
    /// `list`, `all`, or names from the list
    #[arg(required = true, value_name = "NAME", value_parser = experiment(), hide_possible_values = true)]
    names: Vec<String>,
    /// Write what was observed to a file as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<Destination>,
    /// Write it as a page for people
    #[arg(long, value_name = "FILE")]
    html: Option<Destination>,
    /// Print nothing but what came of the claims, in one line
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn run(arguments: Experiment) -> anyhow::Result<ExitCode> {
    let Experiment { names, json, html, quiet } = arguments;
    if names == ["list"] {
        let line =
            |experiment: &experiments::Experiment| format!("{:24} {}", experiment.name, experiment.title);
        let list: Vec<_> = experiments::all().iter().map(line).collect();
        People::Stdout.say(list.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = || json.iter().chain(&html);
    check(files())?;
    let people = People::beside(files());
    let mut reports = Vec::new();
    for experiment in experiments::choose(&names)? {
        let report = experiments::run(experiment).await?;
        if !quiet {
            people.say(experiments::text(&report, people.screen()) + "\n\n")?;
        }
        reports.push(report);
    }
    if quiet {
        people.say(reports.line(&Default::default()))?;
    }
    if let Some(file) = &json {
        file.write_json(&reports)?;
    }
    if let Some(file) = &html {
        file.write(&experiments::page(&reports))?;
    }
    Ok(ExitCode::from(experiments::conclude(&reports).exit_code()))
}
