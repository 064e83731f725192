//! The order service. `order-service --help` lists every key of the configuration.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use order_service::app::{self, App, StartError, stop_signal};
use order_service::config::{Config, ConfigError, LeaseTime, Sources, reference};
use order_service::lock::{ConnectError, DatabaseLock, FencingToken};
use order_service::{http, store, telemetry};

/// Sells the stock of a product under a locking strategy that is chosen in the configuration.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Option<Command>,
}

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
}

/// Requests and answers are many small values, made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("order-service: {error:#}");
            ExitCode::from(if is_for_ever(&error) { REFUSED } else { UNAVAILABLE })
        }
    }
}

/// That the configuration is refused: the same would be refused again.
const REFUSED: u8 = 64;

/// That something is not available, which may be another time.
const UNAVAILABLE: u8 = 69;

/// Whether an error is of the configuration, or of what it was given with.
fn is_for_ever(error: &anyhow::Error) -> bool {
    let is_config = |error: &(dyn std::error::Error + 'static)| error.is::<ConfigError>();
    error.chain().any(is_config)
        || matches!(
            error.downcast_ref(),
            Some(StartError::Config(_) | StartError::Lock(ConnectError::Config(_)))
        )
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = || Config::load(&arguments.sources);
    match arguments.command {
        None => in_runtime(&config()?, serve)?,
        Some(Command::Openapi) => print(&http::openapi_yaml())?,
        Some(Command::Config) => print(&reference())?,
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
    for holder in lock_table(config).await?.holders().await? {
        let expired = if holder.expired { ", expired" } else { "" };
        let token = holder.token.map_or(0, |token| token.0);
        let replica = holder.replica.unwrap_or_default();
        println!("{token}\t{}\t{:?}, held by {replica}{expired}", holder.key, holder.mode);
    }
    Ok(())
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    telemetry::start_logging(&config.log);
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

fn print(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(text.as_bytes())
}
