//! Clients who have connections and are no use: what they cost those who order.

use std::time::Duration;

use anyhow::ensure;
use lab::{Postgres, Server as _};
use order_service::config::StrategyName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ours;
use super::report::GroupReport;
use super::row::{Bar, Row};
use super::testbed::Deployment;
use super::{Plan, note};
use crate::attempt::OutcomeGroup;
use crate::client::Client;
use crate::fleet::Fleet;
use crate::metrics::Latencies;

/// Normal orders per second, far below the capacity, so that a latency is not that of a queue.
const RATE: f64 = 500.0;

/// Buyers of the normal orders.
const BUYERS: usize = 64;

/// Connections on which nothing is sent.
const IDLE: usize = 200;

/// Connections on which the head of a request comes byte by byte.
const TRICKLING: usize = 200;

/// Connections on which pages of orders are asked for, and not read.
const DEAF: usize = 20;

/// Between two bytes of a head that comes byte by byte.
const TRICKLE: Duration = Duration::from_millis(100);

/// How long they have to come.
const GATHER: Duration = Duration::from_secs(2);

const NAME: &str = "clients/redis-p99";

/// The names of the rows.
pub(super) fn rows() -> Vec<String> {
    vec![NAME.into()]
}

/// Measures the p99 of normal orders beside the crowd, and without it.
pub(super) async fn measure(plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let deployment = Deployment::of(StrategyName::Redis).plan()?.with("store.url", &postgres.url());
    let fleet = Fleet::start(deployment).await?;
    let replica = fleet.clients()[0].clone();
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        alone.push(p99_ms(&replica, &format!("alone-{round}"), plan, report).await?);
        let mut crowd = Crowd::gather(&replica, fleet.token());
        sleep(GATHER).await;
        beside.push(p99_ms(&replica, &format!("beside-{round}"), plan, report).await?);
        ensure!(crowd.is_there(), "the crowd of idle and slow clients went away");
        let (with, without) = (beside[beside.len() - 1], alone[alone.len() - 1]);
        note(round, plan, &format!("p99 {with:.1} ms beside the crowd, {without:.1} ms without"));
    }
    fleet.stop().await?;
    report.rows.push(Row::of_pairs(NAME, "without them", "ms", &beside, &alone, Bar::at_most(2.0)));
    Ok(())
}

/// The response time that 99 of 100 normal orders keep.
async fn p99_ms(
    replica: &Client,
    product: &str,
    plan: &Plan,
    report: &mut GroupReport,
) -> anyhow::Result<f64> {
    let mut product = ours::product(replica, product).await?;
    let scenario = ours::scenario(BUYERS, Some(RATE), Duration::from_secs(plan.seconds));
    let (record, violations) = ours::fire(replica, &mut product, &scenario).await?;
    report.violations.extend(violations);
    let latencies = Latencies::of(&record.attempts);
    let all: u64 = latencies.by_outcome.values().map(|latency| latency.attempts).sum();
    let accepted = latencies.by_outcome.get(&OutcomeGroup::Accepted).map_or(0, |latency| latency.attempts);
    if accepted < all || (all as f64) < 0.9 * RATE * plan.seconds as f64 {
        let why =
            format!("of {all} normal orders {accepted} were accepted, at {RATE}/s for {} s", plan.seconds);
        report.not_measured.push(why);
    }
    Ok(latencies.accepted().p99)
}

/// Clients who are no use. They go when the value is dropped.
struct Crowd(JoinSet<()>);

impl Crowd {
    fn gather(replica: &Client, token: &str) -> Self {
        let mut tasks = JoinSet::new();
        let address = replica.base().trim_start_matches("http://").to_owned();
        let list = format!(
            "GET /v1/orders?limit=1000 HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        for _ in 0..IDLE {
            tasks.spawn(again_and_again(address.clone(), idle));
        }
        for _ in 0..TRICKLING {
            tasks.spawn(again_and_again(address.clone(), trickle));
        }
        for _ in 0..DEAF {
            let list = list.clone();
            tasks.spawn(again_and_again(address.clone(), move |stream| {
                ask_and_not_read(stream, list.clone())
            }));
        }
        Self(tasks)
    }

    /// Whether none has given up.
    fn is_there(&mut self) -> bool {
        self.0.try_join_next().is_none()
    }
}

/// Connects, and again whenever the service has closed the connection.
async fn again_and_again<F: Future<Output = ()>>(address: String, behave: impl Fn(TcpStream) -> F) {
    while let Ok(stream) = TcpStream::connect(&address).await {
        behave(stream).await;
        sleep(TRICKLE).await;
    }
}

/// Sends nothing, until the connection is closed.
async fn idle(mut stream: TcpStream) {
    stream.read_exact(&mut [0; 1]).await.ok();
}

/// Sends a head byte by byte, until the connection is closed.
async fn trickle(mut stream: TcpStream) {
    let head = b"POST /v1/orders HTTP/1.1\r\nhost: a\r\nx-slow: ";
    for byte in head.iter().chain(std::iter::repeat(&b'.')) {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(TRICKLE).await;
    }
}

/// Asks for one page after the other and reads none, until the connection is closed.
async fn ask_and_not_read(mut stream: TcpStream, request: String) {
    while stream.write_all(request.as_bytes()).await.is_ok() {
        sleep(TRICKLE).await;
    }
}
