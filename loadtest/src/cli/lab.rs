//! `loadtest lab`: real servers and replicas to play with, or for a command to use.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use clap::Args;
use lab::{ServerKind, Servers, Setup};
use loadtest::fleet::StoreKind;
use loadtest::laboratory::{self, Laboratory};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use order_service::config::StrategyName;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::destination::People;
use super::values::{key_value, odd, server, strategy};

#[derive(Args)]
pub struct Lab {
    /// The locking strategy of the replicas
    #[arg(long, default_value_t = StrategyName::Database, value_parser = strategy())]
    strategy: StrategyName,
    /// The store of the replicas
    #[arg(long, value_enum, default_value_t = StoreKind::Postgres)]
    store: StoreKind,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Redis servers, an odd number, that know nothing of each other and of which a majority has the lock
    /// (Redlock)
    #[arg(long, default_value_t = 1, value_parser = odd)]
    redis_servers: usize,
    /// A key of the service's configuration with its value, such as checkout.max_batch=1; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// These servers and no replicas: postgres, redis, zookeeper, etcd
    #[arg(
        long,
        value_name = "SERVER,SERVER",
        value_delimiter = ',',
        value_parser = server(),
        hide_possible_values = true,
        conflicts_with_all = ["strategy", "store", "replicas", "overrides"]
    )]
    only: Vec<ServerKind>,
    /// A command that is run with the addresses in its environment (POSTGRES_URL, REDIS_URL, ZOOKEEPER_URL,
    /// ETCD_URL; SHOP_1, SHOP_2 …, TOKEN), instead of waiting for Ctrl-C. All ends with it, and its exit code
    /// is ours
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Lab {
    /// Whether it runs a command, which is told of a request to stop.
    pub(super) fn has_command(&self) -> bool {
        !self.command.is_empty()
    }
}

pub(super) async fn run(arguments: Lab, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Lab { strategy, store, replicas, redis_servers, overrides, only, command } = arguments;
    let setup = Setup { redis_servers, ..Setup::default() };
    if !only.is_empty() {
        if let Some(missing) = only.iter().find_map(|kind| kind.missing()) {
            anyhow::bail!(missing);
        }
        let servers = Servers::start(only, setup).await?;
        let variables = laboratory::variables(&servers);
        if !command.is_empty() {
            return with(&command, variables, stop).await;
        }
        let lines: Vec<_> = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        People::Stdout.say(lines.join("\n"))?;
        return std::future::pending().await;
    }
    let laboratory = Laboratory::open(strategy, store, replicas.into(), setup, &overrides).await?;
    if !command.is_empty() {
        return with(&command, laboratory.variables(), stop).await;
    }
    People::Stdout.say(&laboratory)?;
    std::future::pending().await
}

/// Runs a command to its end. A request to stop is passed on, and the command's end waited for.
async fn with(
    command: &[OsString],
    variables: Vec<(String, String)>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    // Asked to stop when we end, in whichever way; the thread that starts it is the main one.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "--"])
        .args(command)
        .envs(variables)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run setpriv, which is in util-linux")?;
    let stopped = tokio::select! {
        ended = child.wait() => return Ok(code(ended?)),
        () = stop.cancelled() => child.id(),
    };
    if let Some(id) = stopped.and_then(|id| i32::try_from(id).ok()) {
        // It may have ended in this moment.
        kill(Pid::from_raw(id), Signal::SIGTERM).ok();
    }
    Ok(code(child.wait().await?))
}

/// As a shell says it: 128 and the signal's number for what a signal has ended.
fn code(ended: ExitStatus) -> ExitCode {
    let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
