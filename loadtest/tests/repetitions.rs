//! Fifteen times over: a replica is killed, one is stopped past its lease and the backend is started again,
//! each while orders go on; and nothing is oversold, lost or left behind. Orders that have to be paid, too.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lab::ServerKind;
use loadtest::faults::{Injector, Schedule};
use loadtest::fleet::{Fleet, StoreKind, server_of};
use loadtest::payments::Payments;
use loadtest::run::{self, FaultSource};
use loadtest::scenario::{Amount, Scenario};
use loadtest::verdict::Verdict;
use order_service::config::{DecideBy, StrategyName};

/// How often each backend is tried.
const REPETITIONS: u64 = 15;

/// How often each is tried where orders have to be paid.
const PAID_REPETITIONS: u64 = 3;

/// Within which time they have to be.
const WINDOW: &str = "600ms";

/// Of all leases and sessions.
const LEASE: &str = "800ms";

/// What is repeated.
struct Trial {
    strategy: StrategyName,
    repetitions: u64,
    /// How many servers there are, where the lock is on Redis.
    redis_servers: usize,
    /// Whether orders have to be paid, and what takes their units then.
    decide_by: Option<DecideBy>,
}

impl Trial {
    fn of(strategy: StrategyName) -> Self {
        Self { strategy, repetitions: REPETITIONS, redis_servers: 1, decide_by: None }
    }

    fn paid(strategy: StrategyName, decide_by: DecideBy) -> Self {
        Self { repetitions: PAID_REPETITIONS, decide_by: Some(decide_by), ..Self::of(strategy) }
    }
}

async fn repeat(trial: Trial) {
    let Trial { strategy, repetitions, redis_servers, decide_by } = trial;
    let lease = strategy.lease_key().expect("its locks have leases");
    let backend = server_of(strategy).unwrap_or(ServerKind::Postgres);
    let mut plan = support::plan(strategy, 3)
        .with(lease, LEASE)
        .with("lock.wait", "4s")
        .with("server.request_timeout", "8s")
        // A holder that is stopped or killed is likely to be in the middle of its work.
        .with("checkout.think_time", "15ms");
    if let Some(decide_by) = decide_by {
        plan = plan.with("checkout.payment_window", WINDOW).with("checkout.decide_by", decide_by.as_str());
    }
    plan.store = StoreKind::Postgres;
    plan.setup.redis_servers = redis_servers;
    let mut fleet = Fleet::start(plan).await.expect("the replicas start");
    let clients = fleet.clients().to_vec();
    // For all three faults, one after the other.
    let long_enough = Duration::from_millis(if strategy == StrategyName::Zookeeper { 4_500 } else { 2_600 });
    let faults = format!("pause:1.5xlease@100ms,kill@1400ms,restart:{backend}@1500ms");
    let faults = Schedule::parse(&[faults]).expect("faults");
    let (mut stale, mut marks) = (0, 0);
    let mut payments = Payments::default();
    for seed in 0..repetitions {
        let scenario = Scenario {
            buyers: 24,
            amount: Amount::For(long_enough),
            stock: 100_000,
            quantity: 1..=3,
            replays: 0.3,
            cancels: if decide_by.is_some() { 0.1 } else { 0.0 },
            payers: 0.8,
            // Some pay when it is too late.
            pay_within: Duration::from_millis(900),
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
        if let Some(of_run) = run.payments {
            payments.orders += of_run.orders;
            payments.paid += of_run.paid;
            payments.expired += of_run.expired;
            payments.cancelled += of_run.cancelled;
        }
        marks += run.faults.iter().filter(|fault| fault.until_ms.is_some()).count();
    }
    // Every fault had its end, and some who were stopped in the middle of their work had their writes
    // refused.
    assert_eq!(marks as u64, 3 * repetitions, "{strategy}");
    assert!(stale > 0, "{strategy}: no holder was ever stopped between reading and writing");
    println!(
        "{strategy} ({redis_servers}): {stale} stale writes refused in {repetitions} repetitions; {}",
        payments.in_words()
    );
    if decide_by.is_some() {
        let Payments { paid, expired, cancelled, .. } = payments;
        assert!(paid > 0 && expired > 0 && cancelled > 0, "{strategy}: {payments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_database_oversell_and_lose_nothing() {
    repeat(Trial::of(StrategyName::Database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_redis_oversell_and_lose_nothing() {
    repeat(Trial::of(StrategyName::Redis)).await;
}

/// Of three servers one is started again, empty, each time.
#[tokio::test(flavor = "multi_thread")]
async fn faults_under_a_majority_of_redis_servers_oversell_and_lose_nothing() {
    repeat(Trial { redis_servers: 3, ..Trial::of(StrategyName::Redis) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_zookeeper_oversell_and_lose_nothing() {
    repeat(Trial::of(StrategyName::Zookeeper)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_etcd_oversell_and_lose_nothing() {
    repeat(Trial::of(StrategyName::Etcd)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_while_orders_are_paid_and_expire_lose_and_double_nothing() {
    repeat(Trial::paid(StrategyName::Database, DecideBy::Order)).await;
    repeat(Trial::paid(StrategyName::Redis, DecideBy::Payment)).await;
}

#[test]
fn every_lock_with_a_lease_is_repeated() {
    use StrategyName::{Database, Etcd, Redis, Zookeeper};
    assert_eq!(StrategyName::leased(), [Database, Redis, Zookeeper, Etcd], "each has a test above");
}
