//! What a request costs our own load generator, which records every answer, beside `oha`, which does not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Lab, Postgres, Server as _};
use nix::sys::resource::UsageWho;
use order_service::config::StrategyName;
use tokio::process::Command;

use super::catalogue::{Catalogue, Demand};
use super::report::GroupReport;
use super::row::{Bar, Row};
use super::testbed::Deployment;
use super::{Plan, note, peers};
use crate::fleet::Fleet;
use crate::report;
use crate::runner::processor_time;
use crate::verdict::Verdict;

/// Connections of both.
const CONNECTIONS: &str = "64";

const FIRING: &str = "generator/firing";
const WITH_VERDICT: &str = "generator/with-verdict";

/// The names of the rows.
pub(super) fn rows() -> Vec<String> {
    vec![FIRING.into(), WITH_VERDICT.into()]
}

/// Microseconds of processor time for each request.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// While it was firing.
    firing: f64,
    /// From its start to its end.
    whole: f64,
}

/// Measures both rows: the generators take turns on the same replica.
pub(super) async fn measure(plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    let time = Duration::from_secs(plan.seconds);
    let postgres = Postgres::start().await?;
    let configuration = Deployment::of(StrategyName::Redis).plan()?;
    let configuration = configuration.with("store.url", &postgres.url());
    // The verdict looks at all holds.
    let fleet = Fleet::start(configuration.with("checkout.holds_kept", "1000000")).await?;
    let lab = Lab::new().context("cannot make a temporary directory")?;
    let (mut oha, mut firing, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let theirs = cost_of_oha(&fleet, round, time).await?;
        let ours = cost_of_ours(&fleet, &lab.file("report.json"), time, report).await?;
        note(round, plan, &format!("oha {theirs:.1} µs, ours {:.1} µs", ours.firing));
        oha.push(theirs);
        firing.push(ours.firing);
        whole.push(ours.whole);
    }
    fleet.stop().await?;
    for (name, figures, bar) in [(FIRING, firing, Bar::at_most(1.3)), (WITH_VERDICT, whole, None)] {
        report.rows.push(Row::of_pairs(name, "oha", "µs/request", &figures, &oha, bar));
    }
    Ok(())
}

async fn cost_of_oha(fleet: &Fleet, round: u32, time: Duration) -> anyhow::Result<f64> {
    let replica = &fleet.clients()[0];
    let product = Catalogue::create(replica, format!("oha-{round}"), Demand::One).await?;
    let sku = product.skus().next().expect("a catalogue has a product");
    let mut command = Command::new(peers::oha().context("oha is not installed")?);
    command.args(["--no-tui", "--output-format", "json", "-c", CONNECTIONS, "-m", "POST"]);
    command.args(["-z", &format!("{}s", time.as_secs()), "-T", "application/json"]);
    command.args(["-d", &format!(r#"{{"sku":"{sku}","quantity":1,"buyer":"oha"}}"#)]);
    command.arg(format!("{}/v1/orders", replica.base()));
    let (output, cost) = run(command).await?;
    let requests = confirmed_by_oha(&output).context("oha did not say how many orders were confirmed")?;
    Ok(cost.as_secs_f64() * 1e6 / requests as f64)
}

/// How many answers had the status 201, by oha's JSON.
fn confirmed_by_oha(output: &[u8]) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(output).ok()?;
    json["statusCodeDistribution"]["201"].as_u64()
}

async fn cost_of_ours(
    fleet: &Fleet,
    file: &Path,
    time: Duration,
    report: &mut GroupReport,
) -> anyhow::Result<Cost> {
    let program: &PathBuf = &fleet.plan().program;
    let mut command = Command::new(program);
    command.args(["run", "--target", fleet.clients()[0].base(), "--stock", "1000000000"]);
    command.args(["--buyers", CONNECTIONS, "--duration", &format!("{}s", time.as_secs()), "--replays", "0"]);
    command.arg("--json").arg(file).env("STOCKLOCK_ADMIN_TOKEN", fleet.token());
    let (_, cost) = run(command).await?;
    let written = std::fs::read(file).context("our generator left no report")?;
    let written: report::Report = serde_json::from_slice(&written)?;
    let run = written.runs.first().context("our generator's report has no run")?;
    match run.verdict {
        Verdict::Correct => {}
        Verdict::Violated => report.violations.push(format!("our generator's run is {}", run.verdict)),
        Verdict::Inconclusive => {
            report.not_measured.push(format!("our generator's run is {}", run.verdict));
        }
    }
    let each = |seconds: f64| seconds * 1e6 / run.attempts as f64;
    Ok(Cost { firing: each(run.generator_seconds), whole: each(cost.as_secs_f64()) })
}

/// Runs a program to its end, and says what it printed and how much processor time it took. No other child
/// may end meanwhile.
async fn run(mut command: Command) -> anyhow::Result<(Vec<u8>, Duration)> {
    let before = processor_time(UsageWho::RUSAGE_CHILDREN);
    let output = command.kill_on_drop(true).output().await.context("a generator cannot be started")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let spent = processor_time(UsageWho::RUSAGE_CHILDREN) - before;
    ensure!(output.status.success(), "a generator ended with {}: {complaint}", output.status);
    Ok((output.stdout, spent))
}
