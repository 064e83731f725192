//! Redis Cluster: each key on the node that has its slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use lab::{Redis, RedisCluster, Server as _};
use order_service::lock::{LockError, Mode};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::backend::{Backend, KEY, LEASE, after};

async fn backend_of(cluster: &RedisCluster) -> Backend {
    let url = cluster.url();
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.cluster", "true")];
    Backend::of_redis("redis cluster", &keys).await
}

/// The slot of a product's lock, and the node that has it.
async fn place_of(cluster: &RedisCluster, key: &str) -> (u16, usize) {
    let slot = cluster.slot_of(&format!("stocklock:{{{key}}}:lock")).await.expect("a slot");
    (slot, cluster.owner_of(slot).await.expect("a node"))
}

/// Moves a slot with its keys, at once.
async fn move_slot(cluster: &RedisCluster, slot: u16, from: usize, to: usize) {
    cluster.begin_move(slot, from, to).await.expect("the move begins");
    cluster.move_keys(slot, from, to).await.expect("the keys are moved");
    cluster.end_move(slot, to).await.expect("the move ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_excludes_counts_and_announces() {
    let cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let (counted, tokens) = crate::count_together(&backend).await;
    assert_eq!(counted, 320);
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    let lock = backend.participant().await;
    backend.assert_free(&*lock).await;
    let mut nodes = [0; 3];
    for number in 0..24 {
        let key = format!("key-{number}");
        let lease = lock.acquire(&key, Mode::Exclusive, after(2_000)).await.expect("a lease");
        let (_, node) = place_of(&cluster, &key).await;
        let held = cluster.nodes()[node].command(&["EXISTS", &format!("stocklock:{{{key}}}:lock")]).await;
        assert_eq!(held.expect("an answer"), "1", "{key} on node {node}");
        nodes[node] += 1;
        lease.release().await;
    }
    assert!(nodes.iter().all(|locks| *locks > 0), "{nodes:?}");
    // Each node announces to each participant.
    for node in cluster.nodes() {
        let listeners = node.command(&["PUBSUB", "NUMSUB", "stocklock:released"]).await.expect("an answer");
        let listeners: u32 = listeners.lines().last().and_then(|count| count.parse().ok()).expect("a number");
        assert!(listeners >= 1, "{listeners}");
    }
    for keys in [1, 16] {
        let round_trips = crate::costs::round_trips_per_hold(&backend, keys).await;
        assert!(round_trips <= 4.1, "{round_trips} with {keys} keys");
    }
}

/// Without announcements, whoever waits asks again after 50 ms at the earliest.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_wakes_who_waits_whichever_node_has_the_key() {
    const HOLDS: u32 = 60;
    let cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let (a, b) = (backend.participant().await, backend.participant().await);
    let mut nodes = [false; 3];
    for key in (0..).map(|number| format!("key-{number}")) {
        let (_, node) = place_of(&cluster, &key).await;
        if std::mem::replace(&mut nodes[node], true) {
            continue;
        }
        let mut contenders = JoinSet::new();
        let begun = tokio::time::Instant::now();
        for lock in [&a, &b] {
            let (lock, key) = (Arc::clone(lock), key.clone());
            contenders.spawn(async move {
                for _ in 0..HOLDS {
                    let lease = lock.acquire(&key, Mode::Exclusive, after(20_000)).await.expect("a lease");
                    // Long enough for the other to be waiting when it is released.
                    sleep(Duration::from_millis(5)).await;
                    lease.release().await;
                }
            });
        }
        contenders.join_all().await;
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(50) * (2 * HOLDS - 2), "{key} on node {node}: {took:?}");
        if nodes == [true; 3] {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leases_on_all_nodes_are_renewed() {
    let cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let lock = backend.participant().await;
    let mut leases = Vec::new();
    for number in 0..24 {
        let mode = if number % 2 == 0 { Mode::Exclusive } else { Mode::Shared };
        leases.push(lock.acquire(&format!("key-{number}"), mode, after(2_000)).await.expect("a lease"));
    }
    // A lease that was not renewed would have ended.
    sleep(LEASE * 2).await;
    for lease in leases {
        assert_eq!(lease.check(), Ok(()));
        lease.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_keeps_its_lock_while_the_slot_is_moved_and_tokens_grow() {
    let cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let (holder, other) = (backend.participant().await, backend.participant().await);
    let mut last = 0;
    for mode in [Mode::Exclusive, Mode::Shared, Mode::Exclusive] {
        let lease = holder.acquire(KEY, mode, after(2_000)).await.expect("a lease");
        let (slot, from) = place_of(&cluster, KEY).await;
        let to = (from + 1) % 3;
        cluster.begin_move(slot, from, to).await.expect("the move begins");
        cluster.move_keys(slot, from, to).await.expect("the keys are moved");
        // Neither node grants it to another, and the holder renews on the one that has the key.
        let refused = other.acquire(KEY, Mode::Exclusive, after(2_000)).await;
        assert!(refused.is_err(), "two have the lock");
        sleep(LEASE).await;
        assert_eq!(lease.check(), Ok(()), "it was lost while the slot was moved");
        cluster.end_move(slot, to).await.expect("the move ends");
        assert!(other.acquire(KEY, Mode::Exclusive, after(100)).await.is_err(), "two have the lock");
        lease.release().await;
        let next = other.acquire(KEY, Mode::Exclusive, after(2_000)).await.expect("a lease");
        let token = next.token().expect("a token").0;
        assert!(token > last, "{token} after {last}");
        last = token;
        next.release().await;
    }
    backend.assert_free(&*other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_taken_while_their_slot_is_moved_around() {
    let cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let (is_over, last) = (Arc::<AtomicBool>::default(), Arc::<AtomicI64>::default());
    let mut contenders = JoinSet::new();
    for _ in 0..4 {
        let (lock, is_over, last) = (backend.participant().await, Arc::clone(&is_over), Arc::clone(&last));
        contenders.spawn(async move {
            let mut holds = 0;
            while !is_over.load(Ordering::Relaxed) {
                let lease = lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
                let token = lease.token().expect("a token").0;
                // Read and written in two steps, which the lock alone keeps together.
                let before = last.load(Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
                assert!(token > before, "{token} after {before}");
                assert_eq!(last.swap(token, Ordering::Relaxed), before, "two had the lock");
                lease.release().await;
                holds += 1;
            }
            holds
        });
    }
    for round in 0..6 {
        let (slot, from) = place_of(&cluster, KEY).await;
        move_slot(&cluster, slot, from, (from + 1 + round % 2) % 3).await;
        // The next one may have been granted before; the one after it was not.
        let mut seen = last.load(Ordering::Relaxed);
        let give_up = after(10_000);
        for _ in 0..2 {
            while last.load(Ordering::Relaxed) <= seen {
                assert!(tokio::time::Instant::now() < give_up, "nobody gets the lock after move {round}");
                sleep(Duration::from_millis(1)).await;
            }
            seen = last.load(Ordering::Relaxed);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let holds = contenders.join_all().await;
    assert!(holds.iter().all(|holds| *holds > 0), "{holds:?}");
    assert!(last.load(Ordering::Relaxed) >> 32 >= 1, "another node, another generation");
    backend.assert_free(&*backend.participant().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_to_be_called_one_and_nothing_else_has() {
    let (cluster, redis) =
        (RedisCluster::start().await.expect("it starts"), Redis::start().await.expect("it starts"));
    let backend = backend_of(&cluster).await;
    let node = cluster.nodes()[0].url();
    let refused = backend.refused(&[("lock.redis.url", &node), ("lock.redis.cluster", "false")]).await;
    assert!(refused.starts_with("lock.redis.cluster: ") && refused.contains("must be true"), "{refused}");
    let urls = cluster.url();
    let majority = backend.refused(&[("lock.redis.url", &urls), ("lock.redis.cluster", "false")]).await;
    assert!(majority.starts_with("lock.redis.cluster: "), "{majority}");
    let refused = backend.refused(&[("lock.redis.url", &redis.url())]).await;
    assert!(refused.starts_with("lock.redis.cluster: "), "{refused}");
    let seed = [("lock.redis.url", node.as_str()), ("lock.redis.cluster", "true")];
    let backend = Backend::of_redis("redis cluster", &seed).await;
    // The others are found.
    let lock = backend.participant().await;
    for number in 0..8 {
        let key = format!("key-{number}");
        lock.acquire(&key, Mode::Exclusive, after(2_000)).await.expect("a lease").release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_named_and_used_again_when_it_is_back() {
    let mut cluster = RedisCluster::start().await.expect("it starts");
    let backend = backend_of(&cluster).await;
    let lock = backend.participant().await;
    lock.acquire(KEY, Mode::Exclusive, after(2_000)).await.expect("a lease").release().await;
    let (_, node) = place_of(&cluster, KEY).await;
    cluster.nodes_mut()[node].kill().await.expect("it is killed");
    let error = lock.acquire(KEY, Mode::Exclusive, after(4_000)).await.expect_err("its node is gone");
    assert!(matches!(error, LockError::Unavailable { .. }), "{error}");
    let address = cluster.nodes()[node].address();
    assert!(error.to_string().contains(&address), "{error}");
    // Whatever key it is that lies there.
    let unready = lock.try_out(after(4_000)).await.expect_err("its node is gone").to_string();
    assert!(unready.contains(&address), "{unready}");
    cluster.nodes_mut()[node].restart().await.expect("it starts again");
    let give_up = after(20_000);
    // It has lost its count, as it has lost all.
    let lease = loop {
        match lock.acquire(KEY, Mode::Exclusive, after(1_000)).await {
            Ok(lease) => break lease,
            Err(error) => assert!(tokio::time::Instant::now() < give_up, "{error}"),
        }
    };
    assert!(lease.token().expect("a token").0 > 1 << 32);
    lease.release().await;
}
