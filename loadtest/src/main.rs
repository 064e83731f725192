//! The load generator. Without arguments: the demonstration.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command};

/// The exit code of a command line that cannot be carried out.
const USAGE: u8 = 64;
/// Requests and answers are many small values, made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = !error.use_stderr();
            error.print().ok();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let code = match arguments.command {
        // A replica has its own runtime, and its own way to stop.
        Some(Command::Serve(replica)) => cli::serve(&replica),
        command => run(command.unwrap_or_default()),
    };
    code.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        ExitCode::from(USAGE)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            code = cli::run(command) => code,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        }
    })
}
