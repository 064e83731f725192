//! Two deployments of different strategies on one database, as in the middle of a rolling change of
//! configuration: the locks know nothing of each other, and the guard is what is left.

mod support;

use std::sync::Arc;

use lab::{Postgres, Server as _};
use loadtest::collector::{self, Circumstances};
use loadtest::evidence::FaultEvidence;
use loadtest::fleet::{Fleet, StoreKind};
use loadtest::runner;
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::{Check, CheckName, Status, checks};
use order_service::config::StrategyName;

/// A strategy, and on how many Redis servers.
type Deployed = (StrategyName, usize);

/// Fires at replicas of both deployments at once. Answers the checks, and how many writes the guard refused.
async fn change(from: Deployed, to: Deployed, guard: &str) -> (Vec<Check>, u64) {
    let postgres = Postgres::start().await.expect("PostgreSQL starts");
    let url = postgres.url();
    let mut fleets = Vec::new();
    for (strategy, redis_servers) in [from, to] {
        let mut plan = support::plan(strategy, 2)
            .with("store.url", &url)
            .with("checkout.guard", guard)
            .with("lock.wait", "4s");
        plan.store = StoreKind::Postgres;
        plan.setup.redis_servers = redis_servers;
        fleets.push(Fleet::start(plan).await.expect("the replicas start"));
    }
    let clients: Vec<_> = fleets.iter().flat_map(|fleet| fleet.clients().to_vec()).collect();
    clients[0].create_product("comb", "Comb", 1_000).await.expect("a product");
    let scenario = Scenario { amount: Amount::Orders(2_000), stock: 1_000, ..Scenario::default() };
    let record = runner::run(&clients, "comb", &scenario, &Arc::default()).await;
    let circumstances = Circumstances {
        sku: "comb".into(),
        initial_stock: 1_000,
        timeout: scenario.timeout,
        lease: None,
        faults: FaultEvidence::Unknown,
        of_killed: Vec::new(),
        payment_window: None,
        killed_unread: 0,
    };
    let evidence = collector::collect(&clients, circumstances, record).await;
    let mut refused = 0;
    for client in &clients {
        let metrics = client.metrics().await.expect("metrics");
        let counted =
            metrics.lines().find(|line| line.starts_with("stocklock_checkout_stale_writes_rejected_total"));
        let counted = counted.and_then(|line| line.rsplit(' ').next()).expect("the counter");
        refused += counted.parse::<u64>().expect("a number");
    }
    (checks(&evidence), refused)
}

fn failed(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|check| check.status == Status::Fail).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_strategy_does_not_oversell_thanks_to_the_guard() {
    use StrategyName::{Database, Etcd, Redis, Row, Zookeeper};
    // The last two: from one Redis server to a majority of three, and from there to no lock of its own.
    for (from, to) in [
        ((Database, 1), (Redis, 1)),
        ((Redis, 1), (Zookeeper, 1)),
        ((Zookeeper, 1), (Etcd, 1)),
        ((Row, 1), (Database, 1)),
        ((Redis, 1), (Redis, 3)),
        ((Redis, 3), (Row, 1)),
    ] {
        let (checks, refused) = change(from, to, "version").await;
        let mut failed = failed(&checks);
        // Tokens of two locks cannot be compared, and here the orders do not say that these are two.
        failed.retain(|check| from.0 != to.0 || check.name != CheckName::TokensIncrease);
        assert!(failed.is_empty(), "{from:?} to {to:?}: {failed:#?}");
        assert!(refused > 0, "{from:?} to {to:?}: the two never met");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_strategy_without_the_guard_oversells() {
    let (checks, _) = change((StrategyName::Database, 1), (StrategyName::Redis, 1), "off").await;
    assert!(failed(&checks).iter().any(|check| check.name == CheckName::NotOversold), "{checks:#?}");
}
