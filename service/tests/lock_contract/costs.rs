//! What acquire and release cost: an uncontended cycle, counted by the backends themselves, and contended
//! hand-overs.

use lab::{Etcd, Postgres, Redis, RedisServers, Zookeeper};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use order_service::config::StrategyName;
use order_service::lock::{Lease, Mode};
use order_service::telemetry::Metrics;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::backend::{Backend, KEY, SEVERAL_REDIS, after};

/// How many cycles are counted.
const CYCLES: usize = 100;

async fn cycles(lock: &dyn order_service::lock::Lock, cycles: usize) {
    for _ in 0..cycles {
        lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    }
}

/// How many scripts a server has run since it was asked to forget it.
async fn scripts_run(redis: &Redis) -> String {
    let stats = redis.command(&["INFO", "commandstats"]).await.expect("an answer");
    let commands = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_eval"));
    let commands: Vec<_> = commands.filter_map(|line| line.split(",usec=").next()).collect();
    commands.join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_two_commands_on_redis() {
    let backend = Backend::new("redis").await;
    let lock = backend.participant().await;
    cycles(&*lock, 1).await; // loads the scripts
    let redis = backend.server::<Redis>();
    redis.command(&["CONFIG", "RESETSTAT"]).await.expect("an answer");
    cycles(&*lock, CYCLES).await;
    assert_eq!(scripts_run(redis).await, format!("sha:calls={}", 2 * CYCLES));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_two_commands_on_each_of_several_redis_servers() {
    let backend = Backend::new(SEVERAL_REDIS).await;
    let metrics = Metrics::new(StrategyName::Redis);
    let lock = backend.connect_counted(&backend.keys(), &metrics).await;
    let servers = backend.server::<RedisServers>().all();
    // A shutdown waits for the servers that were not needed for the majority.
    let cycle = async || {
        cycles(&*lock, 1).await;
        lock.shutdown().await;
    };
    // Loads the scripts, and lets all know the count.
    cycle().await;
    cycle().await;
    for redis in servers {
        redis.command(&["CONFIG", "RESETSTAT"]).await.expect("an answer");
    }
    let before = metrics.lock.round_trips.get();
    for _ in 0..CYCLES {
        cycle().await;
    }
    let counted = metrics.lock.round_trips.get() - before;
    for redis in servers {
        assert_eq!(scripts_run(redis).await, format!("sha:calls={}", 2 * CYCLES), "{}", redis.address());
    }
    assert_eq!(counted, (2 * CYCLES * servers.len()) as u64, "each is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_three_requests_on_zookeeper() {
    let backend = Backend::new("zookeeper").await;
    let mut keys = backend.keys();
    keys.push(("lock.zookeeper.session_timeout".into(), "60s".into())); // so that no heartbeat is counted
    let lock = backend.connect(&keys).await;
    cycles(&*lock, 1).await; // makes the directory
    let server = backend.server::<Zookeeper>();
    let received = async || {
        let monitor = server.monitor().await.expect("an answer");
        monitor["zk_packets_received"].parse::<usize>().expect("a number")
    };
    let before = received().await;
    cycles(&*lock, CYCLES).await;
    let received = received().await - before;
    // Create, list and delete; and what was asked to know it.
    assert!((3 * CYCLES..3 * CYCLES + 5).contains(&received), "{received} requests in {CYCLES} cycles");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_three_requests_on_etcd() {
    let backend = Backend::new("etcd").await;
    let lock = backend.participant().await;
    cycles(&*lock, 1).await; // asks where the tokens are counted
    let etcd = backend.server::<Etcd>();
    let before = etcd.requests().await.expect("an answer");
    cycles(&*lock, CYCLES).await;
    let mut requests = etcd.requests().await.expect("an answer");
    for (method, count) in &mut requests {
        *count -= before.get(method).unwrap_or(&0);
    }
    requests.retain(|_, count| *count > 0);
    let one_each = ["LeaseGrant", "LeaseRevoke", "Txn"].map(|method| (method.to_owned(), CYCLES as u64));
    assert_eq!(requests.into_iter().collect::<Vec<_>>(), one_each);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_two_statements_on_postgresql() {
    let mut backend = Backend::new("database on PostgreSQL").await;
    let lock = backend.participant().await;
    let options: sqlx::postgres::PgConnectOptions = backend.url.parse().expect("a URL");
    let pool = sqlx::PgPool::connect_with(options).await.expect("a connection");
    sqlx::query("alter system set log_statement = 'all'").execute(&pool).await.expect("it is set");
    sqlx::query("select pg_reload_conf()").execute(&pool).await.expect("it is read");
    pool.close().await;
    let log = backend.server_mut::<Postgres>().process().log().to_owned();
    let executed = || {
        let log = std::fs::read_to_string(&log).expect("the log");
        // The listener asks now and then whether its server is there.
        let is_cycle = |line: &&str| line.contains(" LOG:  execute ") && !line.ends_with(": select 1");
        let lines = log.lines().filter(is_cycle);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // Until it is in force.
    while executed().is_empty() {
        cycles(&*lock, 1).await;
    }
    let before = executed().len();
    cycles(&*lock, CYCLES).await;
    let executed = executed();
    assert_eq!(executed.len() - before, 2 * CYCLES, "{:?}", executed.last_chunk::<4>());
}

/// Two participants who hand the locks on so many keys to each other; returns the round trips for each hold.
pub async fn round_trips_per_hold(backend: &Backend, keys: usize) -> f64 {
    const HOLDS: usize = 40;
    let metrics = Metrics::new(StrategyName::None);
    let mut contenders = JoinSet::new();
    for _ in 0..2 {
        let lock = backend.connect_counted(&backend.keys(), &metrics).await;
        for key in 0..keys {
            let lock = Arc::clone(&lock);
            contenders.spawn(async move {
                let key = format!("key-{key}");
                for _ in 0..HOLDS {
                    let lease = lock.acquire(&key, Mode::Exclusive, after(20_000)).await.expect("a lease");
                    // Long enough for the other to be waiting when it is released.
                    sleep(Duration::from_millis(5)).await;
                    lease.release().await;
                }
            });
        }
    }
    contenders.join_all().await;
    metrics.lock.round_trips.get() as f64 / (2 * keys * HOLDS) as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contended_hold_is_three_round_trips_or_four_and_no_more_with_more_products() {
    for name in ["redis", "database on PostgreSQL", "etcd"] {
        let backend = Backend::new(name).await;
        // On etcd, one to have a lease before one to queue; and what the streams of announcements cost.
        let most = if name == "etcd" { 5.1 } else { 4.1 };
        for keys in [1, 4, 16] {
            let round_trips = round_trips_per_hold(&backend, keys).await;
            // One to queue, one when it is woken, and one to release. Another where the announcement of the
            // release before came when it was queueing already.
            assert!(round_trips <= most, "{}: {round_trips} with {keys} keys", backend.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_locks_at_the_same_time_are_few_statements_on_postgresql() {
    const KEYS: usize = 64;
    let backend = Backend::new("database on PostgreSQL").await;
    let metrics = Metrics::new(StrategyName::Database);
    let lock = backend.connect_counted(&backend.keys(), &metrics).await;
    cycles(&*lock, 1).await;
    let before = metrics.lock.round_trips.get();
    let acquires =
        (0..KEYS).map(|key| {
            let lock = Arc::clone(&lock);
            async move {
                lock.acquire(&format!("key-{key}"), Mode::Exclusive, after(5_000)).await.expect("a lease")
            }
        });
    let leases = join_all(acquires).await;
    let tokens: HashSet<_> = leases.iter().map(|lease| lease.token().expect("a token").0).collect();
    assert_eq!(tokens.len(), KEYS);
    join_all(leases.into_iter().map(Lease::release)).await;
    let round_trips = metrics.lock.round_trips.get() - before;
    // As many as may be in flight, and what gathered meanwhile, for each.
    assert!(round_trips <= 8, "{round_trips} statements for {KEYS} locks");
}
