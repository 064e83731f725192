//! The command line: one file for each command.

mod bench;
mod clean;
mod compare;
mod dashboard;
mod demo;
mod destination;
mod experiment;
mod found;
mod lab;
mod live;
mod load;
mod output;
mod report;
mod run;
mod serve;
mod shop;
mod soak;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use order_service::command_line::Documents;
use tokio_util::sync::CancellationToken;

pub use serve::run as serve;

use destination::People;

/// Fires concurrent purchases at an order service and proves whether any stock was oversold.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the exit code says, of this program and of each command.
const EXIT_CODES: &str = "Exit codes: 0 every verdict is as expected; 1 something is violated; 2 \
    inconclusive; 64 the command line, the configuration or a file is refused; 69 something is not \
    available, or broke off, which may be otherwise another time; 74 what was found could not be \
    written; 99 a threshold was missed; 130 ended at once by a second Ctrl-C.";

#[derive(Subcommand)]
pub enum Command {
    /// Every strategy that can run here, on a private store: the verdict table (the default)
    Demo(demo::Demo),
    /// One run against a deployment
    Run(run::Run),
    /// Take away what runs against a deployment have left there
    Clean(clean::Clean),
    /// Strategies side by side, in a laboratory
    Compare(compare::Compare),
    /// The claims of the course, tried
    Experiment(experiment::Experiment),
    /// A great many orders over a great many faults, on PostgreSQL, until something breaks or nothing has
    Soak(soak::Soak),
    /// The speed of it all, in ratios to plain SQL, to doing nothing, and to another load generator
    Bench(bench::Bench),
    /// The web page: choose a strategy, press Run, see whether anything is oversold
    Dashboard(dashboard::Dashboard),
    /// Real servers and replicas to play with, until Ctrl-C
    Lab(lab::Lab),
    /// A report that was kept as JSON, shown again, or made into a page
    Report(report::Kept),
    /// The JSON Schema of a described shop's file, for editors
    Schema,
    #[command(flatten)]
    Documents(Documents),
    /// One replica of the service: what the laboratory starts
    Serve(serve::Serve),
}

impl Command {
    /// Whether it is told of a request to stop, and not just ended: a load is judged by what was done.
    pub fn is_load(&self) -> bool {
        match self {
            Self::Demo(_) | Self::Run(_) | Self::Compare(_) | Self::Soak(_) => true,
            Self::Lab(lab) => lab.has_command(),
            _ => false,
        }
    }
}

impl Default for Command {
    fn default() -> Self {
        Self::Demo(demo::Demo::parse_from(["demo"]))
    }
}

/// Carries a command out.
///
/// When `stop` is cancelled, a load ends with what is under way, and is judged and reported by what was done.
pub async fn run(command: Command, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(demo) => demo::run(demo, stop).await,
        Command::Run(run) => run::run(run, stop).await,
        Command::Clean(clean) => clean::run(clean).await,
        Command::Compare(compare) => compare::run(compare, stop).await,
        Command::Experiment(experiment) => experiment::run(experiment).await,
        Command::Soak(soak) => soak::run(soak, stop).await,
        Command::Bench(bench) => bench::run(bench).await,
        Command::Dashboard(dashboard) => dashboard::run(dashboard).await,
        Command::Lab(lab) => lab::run(lab, stop).await,
        Command::Schema => {
            People::Stdout.say(format!("{:#}", loadtest::shop::schema()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report(kept) => report::run(&kept),
        Command::Documents(documents) => {
            documents.run::<Arguments>()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(_) => unreachable!("a replica has a runtime of its own"),
    }
}
