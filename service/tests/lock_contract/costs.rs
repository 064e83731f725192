//! What an uncontended cycle of acquire and release costs, counted by the backends themselves.

use order_service::lock::Mode;

use crate::backend::{Backend, KEY, after};

/// How many cycles are counted.
const CYCLES: usize = 100;

async fn cycles(lock: &dyn order_service::lock::Lock, cycles: usize) {
    for _ in 0..cycles {
        lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_two_commands_on_redis() {
    let backend = Backend::new("redis").await;
    let lock = backend.participant().await;
    cycles(&*lock, 1).await; // loads the scripts
    let redis = backend.redis.as_ref().expect("the server");
    redis.command(&["CONFIG", "RESETSTAT"]).await.expect("an answer");
    cycles(&*lock, CYCLES).await;
    let stats = redis.command(&["INFO", "commandstats"]).await.expect("an answer");
    let commands = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_eval"));
    let commands: Vec<_> = commands.filter_map(|line| line.split(",usec=").next()).collect();
    assert_eq!(commands, [format!("sha:calls={}", 2 * CYCLES)], "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_three_requests_on_zookeeper() {
    let backend = Backend::new("zookeeper").await;
    let mut keys = backend.keys();
    keys.push(("lock.zookeeper.session_timeout".into(), "60s".into())); // so that no heartbeat is counted
    let lock = backend.connect(&keys).await;
    cycles(&*lock, 1).await; // makes the directory
    let server = backend.zookeeper.as_ref().expect("the server");
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
async fn an_uncontended_cycle_is_two_statements_on_postgresql() {
    let mut backend = Backend::new("database on PostgreSQL").await;
    let lock = backend.participant().await;
    let options: sqlx::postgres::PgConnectOptions = backend.url.parse().expect("a URL");
    let pool = sqlx::PgPool::connect_with(options).await.expect("a connection");
    sqlx::query("alter system set log_statement = 'all'").execute(&pool).await.expect("it is set");
    sqlx::query("select pg_reload_conf()").execute(&pool).await.expect("it is read");
    pool.close().await;
    let log = backend.postgres.as_mut().expect("the server").process().log().to_owned();
    let executed = || {
        let log = std::fs::read_to_string(&log).expect("the log");
        let lines = log.lines().filter(|line| line.contains(" LOG:  execute "));
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
