//! What the lock of a majority of Redis servers promises beyond the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab::{Direction, Redis, RedisServers};
use order_service::app::token_generations;
use order_service::config::{Config, Sources, StrategyName};
use order_service::lock::{self, ConnectError, Lock, LockError, Mode};
use order_service::telemetry::Metrics;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::add_one_slowly;
use crate::backend::{Backend, KEY, LEASE, SEVERAL_REDIS, after};

fn servers(backend: &mut Backend) -> &mut [Redis] {
    backend.server_mut::<RedisServers>().all_mut()
}

/// Acquires, as soon as enough servers are heard again, and releases; returns the token.
async fn hold_once(lock: &dyn Lock) -> i64 {
    let give_up = after(10_000);
    loop {
        match lock.acquire(KEY, Mode::Exclusive, after(2_000)).await {
            Ok(lease) => {
                let token = lease.token().expect("a token").0;
                lease.release().await;
                return token;
            }
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_servers_may_be_gone_and_three_may_not() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let lock = backend.participant().await;
    let mut last = hold_once(&*lock).await;
    for server in 0..2 {
        servers(&mut backend)[server].kill().await.expect("it is killed");
        let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a majority is there");
        let token = lease.token().expect("a token").0;
        assert!(token > last, "{token} after {last}");
        last = token;
        lease.release().await;
        lock.try_out(after(1_000)).await.expect("it is ready");
    }
    // Whoever starts now finds a majority.
    hold_once(&*backend.participant().await).await;
    servers(&mut backend)[2].kill().await.expect("it is killed");
    let asked = Instant::now();
    let refused = lock.acquire(KEY, Mode::Exclusive, after(3_000)).await;
    assert!(matches!(refused, Err(LockError::Unavailable { .. })), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_millis(1_500), "refused after {:?}", asked.elapsed());
    let unready = lock.try_out(after(1_000)).await.expect_err("two are no majority").to_string();
    let address = servers(&mut backend)[2].address();
    assert!(unready.contains("no majority of 5 servers") && unready.contains(&address), "{unready}");
    assert!(lock.state(KEY).await.is_err(), "two cannot say who holds");
    for server in 0..3 {
        servers(&mut backend)[server].restart().await.expect("it starts again");
    }
    let token = hold_once(&*lock).await;
    assert!(token > last, "{token} after {last}");
    lock.try_out(after(1_000)).await.expect("it is ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_stopped_hold_nobody_up() {
    const HOLDS: u32 = 40;
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let lock = backend.participant().await;
    hold_once(&*lock).await;
    for server in 1..3 {
        servers(&mut backend)[server].pause().expect("it is stopped");
    }
    let begun = Instant::now();
    for _ in 0..HOLDS {
        hold_once(&*lock).await;
    }
    let took = begun.elapsed();
    // Each of them has a tenth of a lease to answer, and is waited for once at the most.
    assert!(took < LEASE * HOLDS / 10 / 2, "{HOLDS} holds took {took:?}");
    for server in 1..3 {
        servers(&mut backend)[server].resume().expect("it goes on");
    }
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_when_servers_forget_one_after_the_other_and_when_all_do() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let locks = [backend.participant().await, backend.participant().await];
    let mut last = 0;
    for round in 0..10 {
        let token = hold_once(&*locks[round % 2]).await;
        assert!(token > last, "{token} after {last}, round {round}");
        last = token;
        let forgets = &mut servers(&mut backend)[round % 5];
        forgets.kill().await.expect("it is killed");
        forgets.restart().await.expect("it starts again");
        // It has to be told what was counted before the next one may forget.
        let counter = format!("stocklock:{{{KEY}}}:count");
        let give_up = after(10_000);
        while servers(&mut backend)[round % 5].command(&["EXISTS", &counter]).await.expect("an answer") == "0"
        {
            last = hold_once(&*locks[0]).await.max(last);
            assert!(Instant::now() < give_up, "it is not told");
        }
    }
    assert_eq!(last >> 32, 0, "a majority has remembered all the time");
    for server in servers(&mut backend) {
        server.command(&["FLUSHALL"]).await.expect("an answer");
    }
    let token = hold_once(&*locks[1]).await;
    assert_eq!(token >> 32, 1, "a new generation begins, and {token} is its first token");
    assert!(hold_once(&*locks[0]).await > token);
}

/// What it came back with was true once: here, what it had before it went.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_with_older_data_does_not_count() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let lock = backend.participant().await;
    let counter = format!("stocklock:{{{KEY}}}:count");
    // Twice, so that also those know the count that were not needed for the majority.
    for _ in 0..2 {
        hold_once(&*lock).await;
        lock.shutdown().await;
    }
    let mut kept = Vec::new();
    for server in &mut servers(&mut backend)[..3] {
        let fields = server.command(&["HGETALL", &counter]).await.expect("an answer");
        kept.push(fields.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    let mut last = 0;
    for _ in 0..20 {
        last = hold_once(&*lock).await;
    }
    for (server, fields) in servers(&mut backend)[..3].iter_mut().zip(kept) {
        server.kill().await.expect("it is killed");
        server.restart().await.expect("it starts again");
        let words: Vec<&str> =
            ["HSET", &counter].into_iter().chain(fields.iter().map(String::as_str)).collect();
        server.command(&words).await.expect("an answer");
    }
    // The two that remember are gone as well.
    for server in &mut servers(&mut backend)[3..] {
        server.kill().await.expect("it is killed");
    }
    let token = hold_once(&*lock).await;
    assert!(token > last, "{token} after {last}");
}

/// Rounds that came to nothing leave different counts behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_majority_knows_the_token_before_the_lock_counts_as_acquired() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let (proxies, keys) = backend.proxied().await;
    let lock = backend.connect(&keys).await;
    let counter = format!("stocklock:{{{KEY}}}:count");
    hold_once(&*lock).await;
    lock.shutdown().await;
    for (number, server) in servers(&mut backend).iter().enumerate() {
        let count = (10 * (number + 1)).to_string();
        server.command(&["HSET", &counter, "count", &count]).await.expect("an answer");
    }
    // What is sent after the lock was acquired comes later than it is asked for here.
    for proxy in proxies.each() {
        proxy.delay(Direction::ToServer, Duration::from_millis(40));
    }
    let lease = lock.acquire(KEY, Mode::Exclusive, after(2_000)).await.expect("a lease");
    let token = lease.token().expect("a token").0;
    let mut known = 0;
    for server in servers(&mut backend) {
        let count = server.command(&["HGET", &counter, "count"]).await.expect("an answer");
        known += usize::from(count.parse::<i64>().expect("a number") >= token);
    }
    assert!(token > 30 && known >= 3, "{known} servers know {token}");
    lease.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_count_is_left_on_any_server() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let (proxies, keys) = backend.proxied().await;
    let (far, near) = (backend.connect(&keys).await, backend.participant().await);
    hold_once(&*far).await;
    // One server's reply is lost, of the acquire and of whatever else comes.
    proxies.each()[4].blackhole(Direction::ToClient);
    let lease = far.acquire(KEY, Mode::Exclusive, after(2_000)).await.expect("four are there");
    assert!(near.acquire(KEY, Mode::Exclusive, after(100)).await.is_err());
    assert!(near.acquire(KEY, Mode::Shared, after(100)).await.is_err());
    lease.release().await;
    hold_once(&*near).await;
    proxies.each()[4].cut();
    proxies.each()[4].heal();
    backend.assert_free(&*near).await;
    let give_up = Instant::now() + LEASE / 2;
    for server in servers(&mut backend) {
        loop {
            let left = server.command(&["KEYS", "*"]).await.expect("an answer");
            if left == format!("stocklock:{{{KEY}}}:count") {
                break;
            }
            assert!(Instant::now() < give_up, "{left} are left on {}", server.address());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_keeps_its_lock_without_two_servers_and_learns_that_a_majority_has_forgotten_it() {
    let mut backend = Backend::new(SEVERAL_REDIS).await;
    let lock = backend.participant().await;
    let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let forget = async |server: &mut Redis| server.command(&["FLUSHALL"]).await.expect("an answer");
    for server in 0..2 {
        forget(&mut servers(&mut backend)[server]).await;
    }
    assert!(timeout(LEASE * 2, lease.lost()).await.is_err(), "three servers know it");
    forget(&mut servers(&mut backend)[2]).await;
    timeout(LEASE, lease.lost()).await.expect("two are no majority");
    lease.release().await;
    backend.assert_free(&*lock).await;
}

/// Servers that hear of those who contend in different orders agree in the end.
#[tokio::test(flavor = "multi_thread")]
async fn votes_are_not_split_for_ever() {
    const CONTENDERS: usize = 3;
    const HOLDS: u64 = 15;
    let backend = Backend::new("redis (3 servers)").await;
    let (counter, start) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(CONTENDERS)));
    let (mut contenders, mut ways) = (JoinSet::new(), Vec::new());
    for contender in 0..CONTENDERS {
        let (proxies, keys) = backend.proxied().await;
        for (server, proxy) in proxies.each().iter().enumerate() {
            let late = ((server + contender) % CONTENDERS) as u64 * 8;
            proxy.delay(Direction::ToServer, Duration::from_millis(late));
        }
        ways.push(proxies);
        let (lock, counter) = (backend.connect(&keys).await, Arc::clone(&counter));
        let start = Arc::clone(&start);
        contenders.spawn(async move {
            for _ in 0..HOLDS {
                // All ask for a lock that is free, and each is the first that one of the servers hears.
                start.wait().await;
                let lease = lock.acquire(KEY, Mode::Exclusive, after(20_000)).await.expect("a lease");
                add_one_slowly(&counter).await;
                lease.release().await;
            }
        });
    }
    let begun = Instant::now();
    contenders.join_all().await;
    assert_eq!(counter.load(Ordering::Relaxed), CONTENDERS as u64 * HOLDS);
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    backend.assert_free(&*backend.participant().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_under_two_names_has_one_vote_and_is_refused() {
    let mut backend = Backend::new("redis (3 servers)").await;
    let addresses: Vec<_> = servers(&mut backend).iter().map(Redis::address).collect();
    let again = addresses[0].replace("127.0.0.1", "localhost");
    let url = format!("redis://{},redis://{},redis://{again}", addresses[0], addresses[1]);
    let refused = connect(&backend, &url).await;
    let Err(ConnectError::Config(error)) = refused else { panic!("it has two votes") };
    assert_eq!(error.key, "lock.redis.url");
    assert!(error.why.contains(&again), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_any_server_is_said_at_the_start_without_a_password() {
    let mut backend = Backend::new("redis (3 servers)").await;
    let addresses: Vec<_> = servers(&mut backend).iter().map(Redis::address).collect();
    let of = |addresses: &[String]| {
        let urls: Vec<_> = addresses.iter().map(|address| format!("redis://:hunter2@{address}")).collect();
        urls.join(",")
    };
    for (number, server) in servers(&mut backend).iter().enumerate() {
        let password = if number == 1 { "another" } else { "hunter2" };
        server.command(&["CONFIG", "SET", "requirepass", password]).await.expect("an answer");
    }
    // Two would be enough, if the third did not answer; but it does.
    let Err(refused) = connect(&backend, &of(&addresses)).await else {
        panic!("it cannot work with one of them")
    };
    let refused = refused.to_string();
    assert!(refused.contains(&addresses[1]) && !refused.contains("hunter2"), "{refused}");
    let nowhere = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned(), addresses[0].clone()];
    let Err(refused) = connect(&backend, &of(&nowhere)).await else { panic!("one is no majority") };
    let refused = refused.to_string();
    assert!(refused.contains("no majority of 3") && refused.contains("127.0.0.1:2"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

async fn connect(backend: &Backend, url: &str) -> Result<Arc<dyn Lock>, ConnectError> {
    let mut overrides = backend.keys();
    overrides.push(("lock.redis.url".into(), url.into()));
    let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
    lock::connect(&config, token_generations(&backend.store), &Metrics::new(StrategyName::Redis)).await
}
