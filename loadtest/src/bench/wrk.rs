//! `wrk`: the load on the service, from a program that needs so little itself that two cores are left to what
//! is measured.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use lab::Lab;
use tokio::process::Command;
use uuid::Uuid;

use super::catalogue::Catalogue;
use crate::client::Client;

/// Places orders.
const ORDERS: &str = include_str!("wrk/orders.lua");

/// What every request begins with: an order, or a request that does nothing.
const ORDER: &str = "POST /v1/orders";
const PROBE: &str = "GET /livez";

/// Prints what was counted.
const COUNT: &str = include_str!("wrk/count.lua");

/// The program with its script.
pub(super) struct Wrk {
    program: PathBuf,
    orders: PathBuf,
    /// Has the script.
    _lab: Lab,
}

/// What one run counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Count {
    /// Answers with a status below 400.
    pub(super) succeeded: u64,
    /// Answers with another.
    pub(super) refused: u64,
    /// Connections that could not be made or broke, and answers that did not come within two seconds.
    pub(super) broken: u64,
    /// Successful answers per second.
    pub(super) per_second: f64,
}

impl Wrk {
    /// Writes the script.
    pub(super) fn new(program: PathBuf) -> anyhow::Result<Self> {
        let lab = Lab::new().context("cannot make a temporary directory")?;
        let orders = lab.file("orders.lua");
        let script = format!("{ORDERS}{COUNT}");
        std::fs::write(&orders, script).with_context(|| format!("cannot write {}", orders.display()))?;
        Ok(Self { program, orders, _lab: lab })
    }

    /// Orders products of `catalogue` from all replicas at once, over so many connections to each.
    pub(super) async fn order(
        &self,
        replicas: &[Client],
        connections: u32,
        catalogue: &Catalogue,
        time: Duration,
    ) -> anyhow::Result<Count> {
        let threads = threads(connections, replicas.len());
        let runs = replicas.iter().map(|replica| {
            let run = Uuid::new_v4().simple().to_string();
            let (size, skew) = (catalogue.size().to_string(), catalogue.skew().to_string());
            let arguments = [ORDER, &run, catalogue.prefix(), &size, &skew].map(ToOwned::to_owned);
            count(self.command(replica, threads, connections, time, &arguments))
        });
        Ok(Count::sum(&try_join_all(runs).await?))
    }

    /// Asks one replica whether it is alive: a request that does nothing, with the head and the body of an
    /// order, so that all that differs is what is done with it.
    pub(super) async fn probe(
        &self,
        replica: &Client,
        connections: u32,
        time: Duration,
    ) -> anyhow::Result<Count> {
        let arguments = [PROBE, "probe", "probe", "1", "0"].map(ToOwned::to_owned);
        count(self.command(replica, threads(connections, 1), connections, time, &arguments)).await
    }

    fn command(
        &self,
        replica: &Client,
        threads: u32,
        connections: u32,
        time: Duration,
        arguments: &[String],
    ) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-t", &threads.to_string(), "-c", &connections.to_string()]);
        command.args(["-d", &format!("{}s", time.as_secs())]).kill_on_drop(true);
        command.arg("-s").arg(&self.orders).arg(replica.base()).arg("--").args(arguments);
        command
    }
}

/// Two threads where there are connections for them, and one where each replica has a `wrk` of its own.
fn threads(connections: u32, replicas: usize) -> u32 {
    if replicas == 1 { connections.min(2) } else { 1 }
}

async fn count(mut command: Command) -> anyhow::Result<Count> {
    let output = command.output().await.context("wrk cannot be started")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let counted = printed.lines().find_map(|line| Count::parse(line.strip_prefix("counted ")?));
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wrk ended with {}: {complaint}{printed}", output.status);
    counted.with_context(|| format!("wrk did not say what it counted: {complaint}{printed}"))
}

impl Count {
    /// Reads `requests refused broken microseconds`.
    fn parse(line: &str) -> Option<Self> {
        let fields = line.split(' ').map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [requests, refused, broken, microseconds] = fields[..] else { return None };
        let succeeded = requests.checked_sub(refused)?;
        let per_second = succeeded as f64 / (microseconds as f64 / 1e6);
        Some(Self { succeeded, refused, broken, per_second })
    }

    fn sum(counts: &[Self]) -> Self {
        counts.iter().fold(Self::default(), |sum, count| Self {
            succeeded: sum.succeeded + count.succeeded,
            refused: sum.refused + count.refused,
            broken: sum.broken + count.broken,
            per_second: sum.per_second + count.per_second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_no_success() {
        let count = Count::parse("1000 100 3 2000000").unwrap();
        assert_eq!(count, Count { succeeded: 900, refused: 100, broken: 3, per_second: 450.0 });
        assert_eq!(Count::sum(&[count, count]).per_second, 900.0);
        assert_eq!(Count::parse("1000 100 3"), None);
    }
}
