//! `loadtest report`: a report that was kept, shown again.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use loadtest::experiments::ExperimentReport;
use loadtest::refusal::Refused;
use loadtest::report::Report;
use loadtest::shop::ShopReport;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::Output;

#[derive(Args)]
pub struct Kept {
    /// The JSON that run, compare, demo or experiment wrote; - is standard input
    #[arg(value_name = "REPORT")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Kept) -> anyhow::Result<ExitCode> {
    arguments.output.check()?;
    let name = arguments.file.display();
    let text = read(&arguments.file).with_context(|| format!("cannot read {name}")).map_err(Refused::by)?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{name} is no JSON")).map_err(Refused::by)?;
    match &value {
        Value::Array(_) => arguments.output.finish(&parse::<Vec<ExperimentReport>>(value, &name)?),
        Value::Object(parts) if parts.contains_key("shop") => {
            arguments.output.finish(&parse::<ShopReport>(value, &name)?)
        }
        Value::Object(parts) if parts.contains_key("runs") => {
            arguments.output.finish(&parse::<Report>(value, &name)?)
        }
        _ => Err(Refused(format!("{name} is no report of run, compare, demo or experiment")).into()),
    }
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn parse<T: DeserializeOwned>(value: Value, name: &impl std::fmt::Display) -> Result<T, Refused> {
    serde_json::from_value(value).with_context(|| format!("{name} is no report")).map_err(Refused::by)
}
