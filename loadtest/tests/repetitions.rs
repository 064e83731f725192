//! Fifteen times over: a replica is killed, one is stopped past its lease and the backend is started again,
//! each while orders go on; and nothing is oversold, lost or left behind.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lab::ServerKind;
use loadtest::faults::{Injector, Schedule};
use loadtest::fleet::{Fleet, StoreKind, server_of};
use loadtest::run::{self, FaultSource};
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::Verdict;
use order_service::config::StrategyName;

/// How often each backend is tried.
const REPETITIONS: u64 = 15;

/// Of all leases and sessions.
const LEASE: &str = "800ms";

async fn repeat(strategy: StrategyName) {
    let lease = strategy.lease_key().expect("its locks have leases");
    let backend = server_of(strategy).unwrap_or(ServerKind::Postgres);
    let mut plan = support::plan(strategy, 3)
        .with(lease, LEASE)
        .with("lock.wait", "4s")
        .with("server.request_timeout", "8s")
        // A holder that is stopped or killed is likely to be in the middle of its work.
        .with("checkout.think_time", "15ms");
    plan.store = StoreKind::Postgres;
    let mut fleet = Fleet::start(plan).await.expect("the replicas start");
    let clients = fleet.clients().to_vec();
    // For all three faults, one after the other.
    let long_enough = Duration::from_millis(if strategy == StrategyName::Zookeeper { 4_500 } else { 2_600 });
    let faults = format!("pause:1.5xlease@100ms,kill@1400ms,restart:{backend}@1500ms");
    let faults = Schedule::parse(&[faults]).expect("faults");
    let (mut stale, mut marks) = (0, 0);
    for seed in 0..REPETITIONS {
        let scenario = Scenario {
            buyers: 24,
            amount: Amount::For(long_enough),
            stock: 100_000,
            quantity: 1..=3,
            replays: 0.3,
            timeout: Duration::from_secs(20),
            seed,
            ..Scenario::default()
        };
        let mut injector = Injector::new(&mut fleet, &faults, seed);
        let run = run::fire(&clients, &scenario, &Arc::default(), FaultSource::Injected(&mut injector)).await;
        let run = run.unwrap_or_else(|error| panic!("{strategy}, seed {seed}: {error:#}"));
        let what =
            format!("{strategy}, seed {seed}: {:#?}\n{:#?}\n{:?}", run.checks, run.faults, run.failures);
        assert_eq!(run.verdict, Verdict::Correct, "{what}");
        assert_eq!(run.oversold_units, Some(0), "{what}");
        assert!(run.accepted > 0, "{what}");
        assert_eq!(run.faults.len(), 3, "{what}");
        stale += run.lock.stale_writes_rejected;
        marks += run.faults.iter().filter(|fault| fault.until_ms.is_some()).count();
    }
    // Every fault had its end, and some who were stopped in the middle of their work had their writes
    // refused.
    assert_eq!(marks as u64, 3 * REPETITIONS, "{strategy}");
    assert!(stale > 0, "{strategy}: no holder was ever stopped between reading and writing");
    println!("{strategy}: {stale} stale writes refused in {REPETITIONS} repetitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_database_oversell_and_lose_nothing() {
    repeat(StrategyName::Database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_redis_oversell_and_lose_nothing() {
    repeat(StrategyName::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_zookeeper_oversell_and_lose_nothing() {
    repeat(StrategyName::Zookeeper).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_etcd_oversell_and_lose_nothing() {
    repeat(StrategyName::Etcd).await;
}

#[test]
fn every_lock_with_a_lease_is_repeated() {
    use StrategyName::{Database, Etcd, Redis, Zookeeper};
    assert_eq!(StrategyName::leased(), [Database, Redis, Zookeeper, Etcd], "each has a test above");
}
