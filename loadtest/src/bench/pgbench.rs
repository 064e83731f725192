//! `pgbench`: what plain SQL makes of the same orders, on the same server, in tables that the service has
//! made.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Lab, Postgres};
use tokio::process::Command;

/// One order.
const ORDER: &str = include_str!("pgbench/order.sql");

/// The database whose tables are ordered from.
pub(super) const DATABASE: &str = "postgres";

/// The program with its script.
pub(super) struct Pgbench {
    program: PathBuf,
    script: PathBuf,
    url: String,
    /// Has the script.
    _lab: Lab,
}

impl Pgbench {
    /// Fills the tables of the [`DATABASE`], which the service has made, with so many products.
    pub(super) async fn new(program: PathBuf, server: &Postgres, products: u32) -> anyhow::Result<Self> {
        let url = server.url_of(DATABASE);
        let lab = Lab::new().context("cannot make a temporary directory")?;
        let script = lab.file("order.sql");
        std::fs::write(&script, ORDER).with_context(|| format!("cannot write {}", script.display()))?;
        let fill = format!(
            "insert into products (sku, name, stock, version, supply, created_at)
             select 'product-' || number, 'Hair dryer', 1000000000, 0, 1000000000, now()
             from generate_series(1, {products}) as number;
             -- Each connection takes so many numbers at once, and does not wait for the others.
             create sequence order_number cache 1000"
        );
        server.query(&fill).await.context("cannot fill pgbench's tables")?;
        Ok(Self { program, script, url, _lab: lab })
    }

    /// Orders per second of so many clients, of the first so many products, after a second that does not
    /// count.
    pub(super) async fn measure(&self, clients: u32, products: u32, time: Duration) -> anyhow::Result<f64> {
        self.run(clients, products, Duration::from_secs(1)).await?;
        self.run(clients, products, time).await
    }

    async fn run(&self, clients: u32, products: u32, time: Duration) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--protocol", "prepared", "--define", &format!("products={products}")]);
        command.args(["--client", &clients.to_string(), "--jobs", &clients.min(2).to_string()]);
        command.args(["--time", &time.as_secs().to_string()]).arg("--file").arg(&self.script);
        let output = command.arg(&self.url).kill_on_drop(true).output().await;
        let output = output.context("pgbench cannot be started")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench ended with {}: {complaint}", output.status);
        per_second(&printed).with_context(|| format!("pgbench did not say how fast it was: {printed}"))
    }
}

fn per_second(printed: &str) -> Option<f64> {
    let figure = printed.lines().find_map(|line| line.strip_prefix("tps = "))?;
    figure.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found_in_what_is_printed() {
        let printed = "latency average = 0.4 ms\ntps = 2150.25 (without initial connection time)\n";
        assert_eq!(per_second(printed), Some(2150.25));
        assert_eq!(per_second("pgbench: error"), None);
    }
}
