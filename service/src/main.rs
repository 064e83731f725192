//! The order service. `order-service --help` lists every key of the configuration.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use order_service::app::{self, App, StartError, stop_signal};
use order_service::command_line::exit::{NOT_WRITTEN, REFUSED, UNAVAILABLE};
use order_service::command_line::{Documents, NotWritten, in_words, print};
use order_service::config::{Config, LeaseTime, Sources, reference};
use order_service::lock::{DatabaseLock, FencingToken};
use order_service::{http, store, telemetry};

/// Sells the stock of a product under a locking strategy that is chosen in the configuration.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 there is no such record (unlock); 64 the command line or the \
    configuration is refused; 69 something is not available, which may be another time; 74 what was to be \
    printed could not be written.";

#[derive(Subcommand)]
enum Command {
    /// Print the OpenAPI description as YAML
    Openapi,
    /// Print a configuration file with every key, its help and its default
    Config,
    /// Bring the tables of the store up to date, as a role that may change them
    Migrate,
    /// List the records of the lock table
    Locks,
    /// Delete a record of the lock table whose holder is known to be dead
    Unlock {
        /// The record's fencing token, as `locks` lists it
        token: i64,
    },
    #[command(flatten)]
    Documents(Documents),
}

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
    run(arguments).unwrap_or_else(|error| {
        eprintln!("order-service: {}", in_words(&error));
        ExitCode::from(match error.downcast_ref::<NotWritten>() {
            Some(_) => NOT_WRITTEN,
            None if error.chain().any(app::is_refusal) => REFUSED,
            None => UNAVAILABLE,
        })
    })
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = || Config::load(&arguments.sources);
    match arguments.command {
        None => {
            let config = config()?;
            // Outside of the runtime, whose last tasks have something to say, too.
            let _log = telemetry::start_logging(&config.log);
            in_runtime(&config, serve)?;
        }
        Some(Command::Openapi) => print(&http::openapi_yaml())?,
        Some(Command::Config) => print(&reference())?,
        Some(Command::Documents(documents)) => documents.run::<Arguments>()?,
        Some(Command::Migrate) => in_runtime(&config()?, migrate)?,
        Some(Command::Locks) => in_runtime(&config()?, list_records)?,
        Some(Command::Unlock { token }) => {
            let unlock = async |config: &Config| {
                Ok(lock_table(config).await?.delete_record(FencingToken(token)).await?)
            };
            if !in_runtime(&config()?, unlock)? {
                eprintln!("order-service: there is no record {token}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn in_runtime<T>(config: &Config, work: impl AsyncFnOnce(&Config) -> anyhow::Result<T>) -> anyhow::Result<T> {
    app::runtime(config)?.block_on(work(config))
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    match store::migrate(&config.store).await.map_err(StartError::from)? {
        0 => println!("the tables are up to date"),
        1 => println!("1 migration was run"),
        run => println!("{run} migrations were run"),
    }
    Ok(())
}

async fn list_records(config: &Config) -> anyhow::Result<()> {
    let mut list = String::new();
    for holder in lock_table(config).await?.holders().await? {
        let expired = if holder.expired { ", expired" } else { "" };
        let token = holder.token.map_or(0, |token| token.0);
        let replica = holder.replica.unwrap_or_default();
        writeln!(list, "{token}\t{}\t{:?}, held by {replica}{expired}", holder.key, holder.mode)
            .expect("a text takes all that is written to it");
    }
    print(&list)?;
    Ok(())
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let app = App::build(config).await?;
    let info = app.info();
    tracing::info!(replica = info.replica, strategy = info.strategy, store = info.store, "started");
    let stop = stop_signal();
    if let Some(address) = app.admin_address() {
        println!("admin calls at http://{address}");
    }
    println!("listening on http://{}", app.address());
    app.run(stop).await;
    Ok(())
}

async fn lock_table(config: &Config) -> anyhow::Result<DatabaseLock> {
    store::connect(&config.store).await?.close().await;
    Ok(DatabaseLock::connect(&config.store, LeaseTime::Never, "operator").await?)
}
