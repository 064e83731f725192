//! Where a report goes, and what it must not exceed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use loadtest::refusal::Refused;
use loadtest::report::{Thresholds, junit, markdown};

use super::destination::{Destination, People, check};
use super::found::Found;
use super::values::positive;

/// The variable with the file whose content GitHub shows beside a job.
const GITHUB_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// Where the report goes, and what it must not exceed. Of the files, one may be -, which is standard output;
/// what is for people goes to standard error then.
#[derive(Args)]
pub(super) struct Output {
    /// Write the report to a file as JSON; - is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<Destination>,
    /// Write the report to a file as a page, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<Destination>,
    /// Write the checks to a file as test cases, in JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<Destination>,
    /// Append a summary in Markdown to a file; without one, to that of the job, which GITHUB_STEP_SUMMARY
    /// names
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    github_summary: Option<Option<Destination>>,
    /// Print nothing but the verdict, in one line
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Exit with 99 when the p99 of confirmed orders is greater, such as 50ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// Exit with 99 when fewer orders are confirmed per second
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    min_rate: Option<f64>,
}

impl Output {
    /// Refuses what cannot be written, before there is anything to write.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let summary = self.summary()?;
        check(self.files().chain(&summary))
    }

    /// Where people read.
    pub(super) fn people(&self) -> People {
        let given = self.github_summary.iter().flatten();
        People::beside(self.files().chain(given))
    }

    /// Shows what was found, writes it where that was asked for, and concludes.
    pub(super) fn finish(&self, found: &impl Found) -> anyhow::Result<ExitCode> {
        let (people, thresholds) = (self.people(), self.thresholds());
        let line = found.line(&thresholds);
        if self.quiet {
            people.say(&line)?;
        } else {
            people.say(found.text(people.screen()))?;
            for missed in found.missed(&thresholds) {
                people.say(format!("threshold missed: {missed}"))?;
            }
        }
        if let Some(file) = &self.json {
            file.write_json(found)?;
        }
        if let Some(file) = &self.html {
            file.write(&found.page())?;
        }
        if let Some(file) = &self.junit {
            file.write(&junit("loadtest", &found.suites(&thresholds)))?;
        }
        if let Some(file) = &self.summary()? {
            file.append(&markdown(&line, &found.table(), &found.suites(&thresholds)))?;
        }
        Ok(ExitCode::from(found.conclude(&thresholds).exit_code()))
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds { max_p99_ms: self.max_p99.map(|max| max.as_secs_f64() * 1e3), min_rate: self.min_rate }
    }

    fn files(&self) -> impl Iterator<Item = &Destination> {
        self.json.iter().chain(&self.html).chain(&self.junit)
    }

    fn summary(&self) -> Result<Option<Destination>, Refused> {
        match &self.github_summary {
            None => Ok(None),
            Some(Some(file)) => Ok(Some(file.clone())),
            Some(None) => {
                let file = std::env::var_os(GITHUB_SUMMARY).filter(|file| !file.is_empty());
                let file = file.with_context(|| {
                    format!("--github-summary: {GITHUB_SUMMARY} is not set; say --github-summary=FILE")
                });
                file.map(|file| Some(Destination::File(file.into()))).map_err(Refused::by)
            }
        }
    }
}
