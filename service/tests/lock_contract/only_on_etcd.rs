//! What the lock in etcd promises beyond the contract.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lab::{Direction, Etcd, Proxy};
use order_service::config::StrategyName;
use order_service::lock::{Lock, LockError, Mode};
use order_service::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, KEY, LEASE, after};

/// All keys, in etcd's words: from the smallest on.
const ALL: &str = r#"{"key":"AA==","range_end":"AA==","keys_only":true}"#;

/// The locks' keys: `/stocklock/` and up to `/stocklock0`.
const LOCKS: &str = r#"{"key":"L3N0b2NrbG9jay8=","range_end":"L3N0b2NrbG9jazA="}"#;

/// `/stocklock`, the mark of the data.
const MARK: &str = "L3N0b2NrbG9jaw==";

/// A lock on this server with leases of so long.
async fn with_lease(backend: &Backend, lease: &str) -> Arc<dyn Lock> {
    let mut keys = backend.keys();
    keys.push(("lock.etcd.lease".into(), lease.into()));
    backend.connect(&keys).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_mark_is_left_in_etcd() {
    let backend = Backend::new("etcd").await;
    let (a, b) = (backend.participant().await, backend.participant().await);
    let held = a.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    assert!(b.acquire(KEY, Mode::Exclusive, after(50)).await.is_err());
    assert!(b.acquire(KEY, Mode::Shared, after(50)).await.is_err());
    held.release().await;
    a.acquire(KEY, Mode::Shared, after(1_000)).await.expect("a lease").release().await;
    backend.assert_free(&*b).await;
    let etcd = backend.server::<Etcd>();
    let keys: serde_json::Value =
        serde_json::from_str(&etcd.call("/v3/kv/range", ALL).await.expect("an answer")).expect("JSON");
    assert_eq!((&keys["count"], &keys["kvs"][0]["key"]), (&"1".into(), &MARK.into()), "{keys}");
    let leases = etcd.call("/v3/lease/leases", "{}").await.expect("an answer");
    assert!(!leases.contains("ID"), "{leases}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_learns_that_its_key_was_deleted() {
    let backend = Backend::new("etcd").await;
    let (holder, other) = (backend.participant().await, backend.participant().await);
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    backend.server::<Etcd>().call("/v3/kv/deleterange", LOCKS).await.expect("they are deleted");
    let kept = holder.acquire("another", Mode::Exclusive, after(1_000)).await.expect("a lease");
    timeout(LEASE, lease.lost()).await.expect("the holder checks three times in a lease");
    assert_eq!(kept.check(), Ok(()), "the other key is there");
    lease.release().await;
    kept.release().await;
    backend.assert_free(&*other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_what_the_server_grants() {
    let backend = Backend::new("etcd").await;
    // It counts whole seconds.
    for (asked, granted) in [("100ms", 1), ("2s", 2), ("2001ms", 3)] {
        assert_eq!(with_lease(&backend, asked).await.lease(), Some(Duration::from_secs(granted)));
    }
}

/// Lets so many wait for the lock and pass it on; returns the round trips that this took from the first
/// release on, and the longest time from a release to the next one's lease.
async fn passed_on(backend: &Backend, waiters: u64) -> (u64, Duration) {
    let mut keys = backend.keys();
    // So long that nobody looks without a reason.
    keys.push(("lock.etcd.lease".into(), "60s".into()));
    let metrics = Metrics::new(StrategyName::Etcd);
    let holder = with_lease(backend, "60s").await;
    let held = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let (won, mut winners) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for _ in 0..waiters {
        let lock = backend.connect_counted(&keys, &metrics).await;
        let won = won.clone();
        waiting.spawn(async move {
            let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
            won.send((lease, Instant::now())).expect("the test passes it on");
            lock
        });
    }
    let give_up = after(20_000);
    let mut before = 0;
    // Until all wait, and all have looked for the last time.
    while holder.state(KEY).await.expect("the lock state").waiting < waiters
        || metrics.lock.round_trips.get() != std::mem::replace(&mut before, metrics.lock.round_trips.get())
    {
        assert!(Instant::now() < give_up, "they do not wait");
        sleep(Duration::from_millis(200)).await;
    }
    let mut released = Instant::now();
    held.release().await;
    let mut longest = Duration::ZERO;
    for _ in 0..waiters {
        let (lease, had) = winners.recv().await.expect("a winner");
        longest = longest.max(had - released);
        released = Instant::now();
        lease.release().await;
    }
    waiting.join_all().await;
    (metrics.lock.round_trips.get() - before, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_wakes_one_waiter_who_looks_once() {
    let backend = Backend::new("etcd").await;
    for waiters in [10, 40] {
        let (round_trips, longest) = passed_on(&backend, waiters).await;
        // Each looks and releases. A stream may have to be opened again.
        assert!((2 * waiters..=2 * waiters + 2).contains(&round_trips), "{waiters}: {round_trips}");
        assert!(longest < Duration::from_secs(2), "{waiters}: {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_announcements_do_not_come_is_told_when_they_do() {
    let backend = Backend::new("etcd").await;
    let (proxy, mut keys) = backend.proxied().await;
    keys.push(("lock.etcd.lease".into(), "60s".into()));
    let (near, far) = (with_lease(&backend, "60s").await, backend.connect(&keys).await);
    for _ in 0..3 {
        let held = near.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        let asking = Arc::clone(&far);
        let waiting = tokio::spawn(async move { asking.acquire(KEY, Mode::Exclusive, after(8_000)).await });
        while near.state(KEY).await.expect("the lock state").waiting == 0 {
            sleep(Duration::from_millis(2)).await;
        }
        proxy.refuse();
        held.release().await;
        // It was told of nothing when it began to wait, and looks again by itself after ten seconds.
        sleep(Duration::from_millis(300)).await;
        proxy.heal();
        match waiting.await.expect("it lives") {
            Ok(lease) => lease.release().await,
            // The stream was not open yet, so it looked, and there was no server.
            Err(LockError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    backend.assert_free(&*near).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_server_does_not_answer_the_next_one_is_asked() {
    let backend = Backend::new("etcd").await;
    let address = backend.server::<Etcd>().address();
    let proxies =
        [Proxy::start(&address).await.expect("a proxy"), Proxy::start(&address).await.expect("a proxy")];
    let urls = proxies.each_ref().map(|proxy| format!("http://{}", proxy.address()));
    let mut keys = backend.keys();
    keys.push(("lock.etcd.url".into(), urls.join(",")));
    proxies[0].refuse();
    let lock = backend.connect(&keys).await;
    for round in 0..4 {
        let lease = lock.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease");
        let (gone, back) = (&proxies[(round + 1) % 2], &proxies[round % 2]);
        back.heal();
        gone.refuse();
        assert!(timeout(LEASE * 2, lease.lost()).await.is_err(), "it is renewed by the other one");
        lease.release().await;
    }
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_that_fall_silent_are_heard_from_the_next_server() {
    let backend = Backend::new("etcd").await;
    let address = backend.server::<Etcd>().address();
    let proxies =
        [Proxy::start(&address).await.expect("a proxy"), Proxy::start(&address).await.expect("a proxy")];
    let urls = proxies.each_ref().map(|proxy| format!("http://{}", proxy.address()));
    let mut keys = backend.keys();
    keys.push(("lock.etcd.url".into(), urls.join(",")));
    // Who is not told looks after five seconds at the earliest.
    keys.push(("lock.etcd.lease".into(), "30s".into()));
    let (near, far) = (with_lease(&backend, "30s").await, backend.connect(&keys).await);
    for round in 0..4 {
        let held = near.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        let asking = Arc::clone(&far);
        let waiting = tokio::spawn(async move { asking.acquire(KEY, Mode::Exclusive, after(20_000)).await });
        while near.state(KEY).await.expect("the lock state").waiting == 0 {
            sleep(Duration::from_millis(2)).await;
        }
        if round == 1 {
            proxies[0].blackhole(Direction::ToClient);
        }
        let released = Instant::now();
        held.release().await;
        waiting.await.expect("it lives").expect("a lease").release().await;
        let took = released.elapsed();
        // It is noticed by who has to look for itself: the first one, or, if that did not know yet for whom
        // it had to wait, the next one.
        let is_told = round == 0 || round == 3;
        assert!(!is_told || took < Duration::from_secs(4), "round {round}: after {took:?}");
    }
}

/// Takes and releases the lock; answers the token.
async fn token(lock: &dyn Lock) -> i64 {
    let lease = lock.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease");
    let token = lease.token().expect("a token").0;
    lease.release().await;
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_when_etcd_has_lost_its_data() {
    let mut backend = Backend::new("etcd").await;
    let locks = [backend.participant().await, backend.participant().await];
    let mut last = 0;
    for generation in 0..3 {
        for lock in &locks {
            for _ in 0..5 {
                let token = token(&**lock).await;
                assert!(token > last, "{token} after {last}");
                last = token;
            }
        }
        assert_eq!(last >> 32, generation, "one generation for each loss");
        let etcd = backend.server_mut::<Etcd>();
        etcd.kill().await.expect("it is killed");
        std::fs::remove_dir_all(etcd.data()).expect("its data are lost");
        etcd.restart().await.expect("it starts again");
    }
    // One that knows of no loss goes on from where the others are.
    let token = token(&*backend.participant().await).await;
    assert!(token > last, "{token} after {last}");
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_when_etcd_has_come_back_with_older_data() {
    let mut backend = Backend::new("etcd").await;
    let kept = tempfile::tempdir().expect("a directory");
    let (older, lock) = (kept.path().join("data"), backend.participant().await);
    let mut last = token(&*lock).await;
    let etcd = backend.server_mut::<Etcd>();
    etcd.kill().await.expect("it is killed");
    copy(&etcd.data(), &older);
    etcd.restart().await.expect("it starts again");
    for _ in 0..2 {
        for _ in 0..10 {
            let token = token(&*lock).await;
            assert!(token > last, "{token} after {last}");
            last = token;
        }
        let etcd = backend.server_mut::<Etcd>();
        etcd.kill().await.expect("it is killed");
        std::fs::remove_dir_all(etcd.data()).expect("its data are lost");
        copy(&older, &etcd.data());
        etcd.restart().await.expect("it starts again");
        // Who has seen the later data tells the others.
        let next = token(&*lock).await;
        assert!(next > last, "{next} after {last}");
        last = token(&*backend.participant().await).await;
        assert!(last > next, "{last} after {next}");
    }
}
