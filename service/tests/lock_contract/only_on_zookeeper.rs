//! What the lock in ZooKeeper promises beyond the contract.

use std::time::Duration;

use lab::{Ensemble, Server as _, Zookeeper};
use order_service::app::token_generations;
use order_service::config::{Config, Sources, StrategyName};
use order_service::lock::{self, Mode};
use order_service::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::backend::{Backend, KEY, after};

/// When nothing was counted for so long, nothing is in flight.
const QUIET: Duration = Duration::from_millis(20);

/// Lets so many wait for the lock, each in a session of its own, and pass it on; returns how many listings
/// and announcements that took from the first release on.
async fn herd(waiters: u64, watch: &str) -> (u64, u64) {
    let backend = Backend::new("zookeeper").await;
    let mut keys = backend.keys();
    keys.push(("lock.zookeeper.session_timeout".into(), "30s".into()));
    keys.push(("lock.zookeeper.watch".into(), watch.into()));
    let holder = backend.participant().await;
    let held = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let metrics = Metrics::new(StrategyName::Zookeeper);
    let counts = || (metrics.lock.listings.get(), metrics.lock.watch_notifications.get());
    // Releases that follow each other too closely are noticed as one: the next is when all have taken notice.
    let all_have_noticed = async || {
        let mut before = counts();
        loop {
            sleep(QUIET).await;
            if counts() == before {
                return before;
            }
            before = counts();
        }
    };
    let (won, mut winners) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for _ in 0..waiters {
        let lock = backend.connect_counted(&keys, &metrics).await;
        let won = won.clone();
        waiting.spawn(async move {
            let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
            won.send(lease).expect("the test passes it on");
            lock
        });
    }
    while holder.state(KEY).await.expect("the lock state").waiting < waiters {
        sleep(QUIET).await;
    }
    let (listed, notified) = all_have_noticed().await;
    held.release().await;
    for _ in 0..waiters {
        let lease = winners.recv().await.expect("a winner");
        all_have_noticed().await;
        lease.release().await;
    }
    waiting.join_all().await;
    let (listings, notifications) = counts();
    (listings - listed, notifications - notified)
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_the_predecessor_costs_one_listing_a_hold_and_watching_all_siblings_a_herd_of_them() {
    for waiters in [10, 50, 100] {
        let all_pairs = waiters * (waiters + 1) / 2;
        for (watch, expected) in [("predecessor", waiters), ("siblings", all_pairs)] {
            let (listings, notifications) = herd(waiters, watch).await;
            let about = expected * 9 / 10..=expected * 11 / 10;
            let counted = format!("{waiters} waiters, {watch}: {listings} listings, {notifications} notices");
            assert!(about.contains(&listings) && about.contains(&notifications), "{counted}");
        }
    }
}

fn config(backend: &Backend, keys: &[(&str, &str)]) -> Config {
    let mut all = backend.keys();
    all.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Config::load(&Sources { overrides: all, ..Sources::default() }).expect("a configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chroot_and_a_root_that_are_not_there_are_made() {
    let backend = Backend::new("zookeeper").await;
    let servers = format!("{}/shops/berlin", backend.server::<Zookeeper>().url());
    let metrics = Metrics::new(StrategyName::Zookeeper);
    let inside = config(&backend, &[("lock.zookeeper.servers", &servers)]);
    let inside =
        lock::connect(&inside, token_generations(&backend.store), &metrics).await.expect("it connects");
    let outside = config(&backend, &[("lock.zookeeper.root", "/shops/berlin/stocklock")]);
    let outside =
        lock::connect(&outside, token_generations(&backend.store), &metrics).await.expect("it connects");
    let lease = inside.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    // The same node by another name.
    assert!(outside.acquire(KEY, Mode::Exclusive, after(50)).await.is_err());
    lease.release().await;
    backend.assert_free(&*outside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_password_sees_locks_that_have_one() {
    let backend = Backend::new("zookeeper").await;
    let metrics = Metrics::new(StrategyName::Zookeeper);
    let connect = async |auth: &str| {
        let config = config(&backend, &[("lock.zookeeper.auth", auth)]);
        lock::connect(&config, token_generations(&backend.store), &metrics).await
    };
    let mine = connect("shop:secret").await.expect("it connects");
    let held = mine.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    for other in ["shop:guess", ""] {
        let refused = match connect(other).await {
            Ok(lock) => lock.acquire(KEY, Mode::Exclusive, after(500)).await.map(drop),
            Err(lock::ConnectError::Lock(error)) => Err(error),
            Err(error) => panic!("{error}"),
        };
        let error = refused.expect_err("it has no right to").to_string();
        assert!(error.contains("ZooKeeper") && error.contains("auth"), "{error}");
    }
    assert_eq!(held.check(), Ok(()));
    held.release().await;
    backend.assert_free(&*connect("shop:secret").await.expect("it connects")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_loses_its_leader_and_the_lock_goes_on() {
    let mut ensemble = Ensemble::start(3).await.expect("the ensemble starts");
    let backend = Backend::new("zookeeper").await;
    let metrics = Metrics::new(StrategyName::Zookeeper);
    let servers = ensemble.url();
    let keys = [("lock.zookeeper.servers", servers.as_str()), ("lock.zookeeper.session_timeout", "6s")];
    let config = config(&backend, &keys);
    let connect = async || {
        lock::connect(&config, token_generations(&backend.store), &metrics).await.expect("it connects")
    };
    let (holder, other) = (connect().await, connect().await);
    let lease = holder.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease");
    let token = lease.token();
    let leader = ensemble.leader().await.expect("a leader");
    ensemble.kill(leader).await.expect("the leader is killed");
    // The session outlives the election: still held, and still excluding.
    assert!(other.acquire(KEY, Mode::Exclusive, after(3_000)).await.is_err());
    assert_eq!(lease.check(), Ok(()), "the election took longer than the session");
    lease.release().await;
    let next = other.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
    assert!(next.token() > token, "{:?} after {token:?}", next.token());
    next.release().await;
}
