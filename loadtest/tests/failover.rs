//! A primary is killed under load, and its second takes over: orders go on within ten seconds, and nothing is
//! oversold, lost or doubled.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lab::Setup;
use loadtest::faults::{Injector, Schedule};
use loadtest::fleet::{Fleet, StoreKind};
use loadtest::progress::Progress;
use loadtest::run::{self, FaultSource};
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::Verdict;
use order_service::config::StrategyName;

/// The longest time without a sale.
const GAP: Duration = Duration::from_secs(10);

async fn survives(strategy: StrategyName, faults: &str) {
    let faults = Schedule::parse(&[faults.into()]).expect("faults");
    let mut plan = support::plan(strategy, 2).with("store.timeout", "2s");
    plan.store = StoreKind::Postgres;
    plan.setup = Setup { takes_over: faults.fail_overs(), ..Setup::default() };
    let scenario = Scenario {
        buyers: 32,
        rate: Some(150.0),
        amount: Amount::For(Duration::from_secs(16)),
        stock: 100_000,
        ..Scenario::default()
    };
    let mut fleet = Fleet::start(plan).await.expect("the replicas start");
    let clients = fleet.clients().to_vec();
    let mut injector = Injector::new(&mut fleet, &faults, scenario.seed);
    let progress = Arc::new(Progress::default());
    let run = run::fire(&clients, &scenario, &progress, FaultSource::Injected(&mut injector)).await;
    let run = run.expect("the run comes to an end");
    assert_eq!(run.verdict, Verdict::Correct, "{strategy}: {:#?}", run.checks);
    assert_eq!(run.faults.len(), faults.faults.len(), "{strategy}: {:?}", run.faults);
    let gap = run.availability.longest_gap.ms;
    assert!(gap <= GAP.as_secs_f64() * 1e3, "{strategy}: no sale for {gap:.0} ms: {:?}", run.faults);
    eprintln!("{strategy}: no sale for {gap:.0} ms at the most");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fails_over_under_its_own_lock_table() {
    survives(StrategyName::Database, "failover:postgres@2s,failover:postgres@9s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fails_over_without_a_lock() {
    survives(StrategyName::Optimistic, "failover:postgres@2s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_fails_over_with_the_locks_in_it() {
    survives(StrategyName::Redis, "failover:redis@2s,failover:redis@9s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_zookeeper_is_lost() {
    survives(StrategyName::Zookeeper, "failover:zookeeper@2s,failover:zookeeper@9s").await;
}
