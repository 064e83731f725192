//! Where a report goes, and what it must not exceed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use loadtest::report::{Report, Thresholds, html};

use super::values::positive;

/// Where the report goes, and what it must not exceed.
#[derive(Args)]
pub(super) struct Output {
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write the report to a file as a page, which needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Exit with 99 when the p99 of confirmed orders is greater, such as 50ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// Exit with 99 when fewer orders are confirmed per second
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    min_rate: Option<f64>,
}

impl Output {
    /// What the report must not exceed.
    pub(super) fn thresholds(&self) -> Thresholds {
        Thresholds { max_p99_ms: self.max_p99.map(|max| max.as_secs_f64() * 1e3), min_rate: self.min_rate }
    }

    /// Writes the report where it was asked for, and concludes.
    pub(super) fn finish(&self, report: &Report) -> anyhow::Result<ExitCode> {
        if let Some(file) = &self.json {
            write_json(file, report)?;
        }
        if let Some(file) = &self.html {
            write(file, &html::page(report))?;
        }
        let thresholds = self.thresholds();
        for missed in report.missed(&thresholds) {
            println!("threshold missed: {missed}");
        }
        Ok(ExitCode::from(report.conclude(&thresholds).exit_code()))
    }
}

/// Writes a value to a file as JSON.
pub(super) fn write_json(file: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value).expect("a report can be written as JSON");
    write(file, &(json + "\n"))
}

/// Writes a text to a file.
pub(super) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
