//! One suite that every lock has to pass, through the same trait. `none` is asserted not to exclude.
//!
//! A participant is a lock of its own with connections of its own; where it matters, it is in a process of
//! its own, which is this program again. Only `local`, which promises nothing between processes, is one lock
//! shared by all.

#[path = "lock_contract/authority.rs"]
mod authority;
#[path = "lock_contract/backend.rs"]
mod backend;
#[path = "lock_contract/broken.rs"]
mod broken;
#[path = "lock_contract/costs.rs"]
mod costs;
#[path = "lock_contract/crashes.rs"]
mod crashes;
#[path = "lock_contract/etcd_tls.rs"]
mod etcd_tls;
#[path = "lock_contract/network.rs"]
mod network;
#[path = "lock_contract/only_on_etcd.rs"]
mod only_on_etcd;
#[path = "lock_contract/only_on_redis.rs"]
mod only_on_redis;
#[path = "lock_contract/only_on_redlock.rs"]
mod only_on_redlock;
#[path = "lock_contract/only_on_tables.rs"]
mod only_on_tables;
#[path = "lock_contract/only_on_zookeeper.rs"]
mod only_on_zookeeper;
#[path = "lock_contract/process.rs"]
mod process;
#[path = "lock_contract/redis_acl.rs"]
mod redis_acl;
#[path = "lock_contract/redis_cluster.rs"]
mod redis_cluster;
#[path = "lock_contract/redis_failover.rs"]
mod redis_failover;
#[path = "lock_contract/redis_tls.rs"]
mod redis_tls;
#[path = "lock_contract/zookeeper_faults.rs"]
mod zookeeper_faults;
#[cfg(feature = "zookeeper-tls")]
#[path = "lock_contract/zookeeper_tls.rs"]
mod zookeeper_tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use order_service::lock::{LockError, Mode};
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, KEY, after};

/// Adds one to a counter in two steps that only a lock can keep together.
async fn add_one_slowly(counter: &AtomicU64) {
    let read = counter.load(Ordering::Relaxed);
    let pause = rand::rng().random_range(0..300);
    sleep(Duration::from_micros(pause)).await;
    counter.store(read + 1, Ordering::Relaxed);
}

/// 32 contenders, in 4 participants, who each count to 10.
async fn count_together(backend: &Backend) -> (u64, Vec<Option<i64>>) {
    count_with(backend, 4, 8).await
}

/// The same with so many participants, and contenders in each.
async fn count_with(
    backend: &Backend,
    participants: u32,
    contenders_in_each: u32,
) -> (u64, Vec<Option<i64>>) {
    let counter = Arc::new(AtomicU64::new(0));
    let tokens = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut contenders = JoinSet::new();
    for _ in 0..participants {
        let lock = backend.participant().await;
        for _ in 0..contenders_in_each {
            let (lock, counter, tokens) = (Arc::clone(&lock), Arc::clone(&counter), Arc::clone(&tokens));
            contenders.spawn(async move {
                for _ in 0..10 {
                    let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
                    add_one_slowly(&counter).await;
                    tokens.lock().expect("no task panics").push(lease.token().map(|token| token.0));
                    lease.release().await;
                }
            });
        }
    }
    contenders.join_all().await;
    let tokens = tokens.lock().expect("no task panics").clone();
    (counter.load(Ordering::Relaxed), tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn excludes_and_counts_up_its_tokens() {
    for backend in Backend::all().await {
        let (counted, tokens) = count_together(&backend).await;
        assert_eq!(counted, 320, "{}", backend.name);
        if tokens[0].is_some() {
            assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{}: {tokens:?}", backend.name);
        }
        backend.assert_free(&*backend.participant().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lock_does_not_exclude() {
    let backend = Backend::new("none").await;
    assert!(count_together(&backend).await.0 < 320);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_and_writers_do_not() {
    for backend in Backend::all().await {
        let (a, b) = (backend.participant().await, backend.participant().await);
        let reader = a.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
        let beside = b.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
        let writer = b.acquire(KEY, Mode::Exclusive, after(100)).await;
        assert!(matches!(writer, Err(LockError::Timeout)), "{}", backend.name);
        reader.release().await;
        beside.release().await;
        let writer = b.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        assert!(matches!(a.acquire(KEY, Mode::Shared, after(100)).await, Err(LockError::Timeout)));
        writer.release().await;
        backend.assert_free(&*a).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_writer_is_not_starved_by_readers() {
    for backend in Backend::all().await {
        let mut readers = JoinSet::new();
        let reads = Arc::new(AtomicI64::new(0));
        for _ in 0..4 {
            let (lock, reads) = (backend.participant().await, Arc::clone(&reads));
            readers.spawn(async move {
                loop {
                    let lease = lock.acquire(KEY, Mode::Shared, after(10_000)).await.expect("a lease");
                    reads.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20)).await;
                    lease.release().await;
                }
            });
        }
        while reads.load(Ordering::Relaxed) < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        let writer = backend.participant().await;
        let lease = writer.acquire(KEY, Mode::Exclusive, after(2_000)).await;
        assert!(lease.is_ok(), "{}: the readers kept the writer out", backend.name);
        readers.shutdown().await;
        lease.unwrap().release().await;
        backend.assert_free(&*writer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_pass_a_waiting_writer() {
    for backend in Backend::all().await {
        let (a, b) = (backend.participant().await, backend.participant().await);
        let reader = a.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
        let writer = Arc::clone(&b);
        let writer =
            tokio::spawn(async move { writer.acquire(KEY, Mode::Exclusive, after(10_000)).await.unwrap() });
        let give_up = after(5_000);
        while a.state(KEY).await.unwrap().waiting == 0 {
            assert!(Instant::now() < give_up, "{}: the writer does not wait", backend.name);
            sleep(Duration::from_millis(2)).await;
        }
        for lock in [&a, &b] {
            let later = lock.acquire(KEY, Mode::Shared, after(100)).await;
            assert!(matches!(later, Err(LockError::Timeout)), "{}: it passed the writer", backend.name);
        }
        reader.release().await;
        writer.await.unwrap().release().await;
        backend.assert_free(&*a).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_deadline() {
    for backend in Backend::all().await {
        let (holder, waiter) = (backend.participant().await, backend.participant().await);
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        for ms in [0, 50, 300, 1_500] {
            let asked = Instant::now();
            let refused = waiter.acquire(KEY, Mode::Exclusive, after(ms)).await;
            let off = asked.elapsed().as_millis().abs_diff(u128::from(ms));
            match refused.expect_err("another has it") {
                LockError::Timeout => {}
                // A busy machine may need so long for an answer that it looks like none.
                LockError::Unavailable { .. } if ms >= 500 => {}
                error => panic!("{}: {error}", backend.name),
            }
            assert!(off <= 300, "{}: {off} ms off a deadline of {ms} ms", backend.name);
        }
        // The lease was renewed all the while.
        assert_eq!(lease.check(), Ok(()), "{}", backend.name);
        lease.release().await;
        backend.assert_free(&*waiter).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_waiters_leave_nothing_behind() {
    for backend in Backend::all().await {
        let lock = backend.participant().await;
        let mut cancelled = JoinSet::new();
        for i in 0..500 {
            let lock = Arc::clone(&lock);
            let (pause, limit) = (rand::rng().random_range(0..500), rand::rng().random_range(0..20_000));
            let mode = if i % 3 == 0 { Mode::Shared } else { Mode::Exclusive };
            cancelled.spawn(async move {
                sleep(Duration::from_millis(pause)).await;
                let attempt = lock.acquire(KEY, mode, after(10_000));
                // A lease that was got in time is dropped, too: that releases it.
                drop(timeout(Duration::from_micros(limit), attempt).await);
            });
        }
        cancelled.join_all().await;
        backend.assert_free(&*lock).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_entered_again_ends_with_its_last_handle() {
    for backend in Backend::all().await {
        let (holder, other) = (backend.participant().await, backend.participant().await);
        let outer = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        let inner = outer.enter();
        outer.release().await;
        assert!(other.acquire(KEY, Mode::Exclusive, after(50)).await.is_err(), "{}", backend.name);
        drop(inner);
        backend.assert_free(&*other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_participant_starves() {
    for backend in Backend::all().await {
        let mut participants = JoinSet::new();
        let until = after(3_000);
        for _ in 0..4 {
            let lock = backend.participant().await;
            participants.spawn(async move {
                let mut holds = 0_u32;
                while Instant::now() < until {
                    let lease = lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
                    holds += 1;
                    sleep(Duration::from_millis(2)).await;
                    lease.release().await;
                }
                holds
            });
        }
        let holds = participants.join_all().await;
        let (least, most) = (holds.iter().min().unwrap(), holds.iter().max().unwrap());
        assert!(*most <= 2 * least, "{}: {holds:?}", backend.name);
    }
}
