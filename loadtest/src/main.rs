//! The load generator. Without arguments: the demonstration.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use loadtest::client::CallError;
use loadtest::refusal::Refused;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use order_service::app::{self, stop_signal};
use order_service::command_line::exit::{NOT_WRITTEN, REFUSED, UNAVAILABLE};
use order_service::command_line::{NotWritten, in_words};
use tokio_util::sync::CancellationToken;

use crate::cli::{Arguments, Command};

/// The exit code of what was ended at once.
const INTERRUPTED: u8 = 130;

/// Requests and answers are many small values, made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = !error.use_stderr();
            error.print().ok();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) };
        }
    };
    raise_file_limit();
    let code = match arguments.command {
        // A replica has its own runtime, and its own way to stop.
        Some(Command::Serve(replica)) => cli::serve(&replica),
        command => run(command.unwrap_or_default()),
    };
    code.unwrap_or_else(|error| {
        eprintln!("loadtest: {}", in_words(&error));
        ExitCode::from(code_of(&error))
    })
}

/// The exit code that says what kind of error it is.
fn code_of(error: &anyhow::Error) -> u8 {
    let is_answer_of_no = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(CallError::Unexpected(_, status, _) | CallError::NotExecuted(_, status, _)) => {
            status.is_client_error()
        }
        _ => false,
    };
    let any = |is_it: &dyn Fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(is_it);
    if any(&|cause| cause.is::<NotWritten>()) {
        NOT_WRITTEN
    } else if any(&|cause| cause.is::<Refused>() || app::is_refusal(cause) || is_answer_of_no(cause)) {
        REFUSED
    } else {
        UNAVAILABLE
    }
}

/// Lets this process open as many files as its hard limit allows: each of thousands of buyers has a
/// connection or two.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that is refused, the run says what it could not open.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let stop = CancellationToken::new();
        let is_load = command.is_load();
        tokio::select! {
            // Signals are heard before anything is begun.
            biased;
            () = interrupted(is_load.then_some(&stop)) => Ok(ExitCode::from(INTERRUPTED)),
            code = cli::run(command, &stop) => code,
        }
    })
}

/// Waits for Ctrl-C, or a request to terminate. The first one only asks a load to stop: it is judged by what
/// was done.
async fn interrupted(stop: Option<&CancellationToken>) {
    stop_signal().await;
    let Some(stop) = stop else { return };
    stop.cancel();
    eprintln!(
        "\nloadtest: stopping; what is under way is waited for, and what was done is judged (once more: end \
            at once)"
    );
    stop_signal().await;
}
