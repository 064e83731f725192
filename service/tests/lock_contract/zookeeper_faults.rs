//! What the lock in ZooKeeper makes of servers that do not hear each other, of nodes that others delete, and
//! of numbers that come to their end.

use std::sync::Arc;
use std::time::Duration;

use lab::{Direction, Ensemble, Proxy, Server as _, Zookeeper};
use order_service::lock::{Lock, LockError, Mode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use crate::backend::{Backend, KEY, after};

/// Of the sessions here.
const SESSION: Duration = Duration::from_secs(2);

/// A lock on these servers.
async fn connect(backend: &Backend, keys: &[(&str, &str)]) -> Arc<dyn Lock> {
    let mut all = backend.keys();
    all.push(("lock.zookeeper.session_timeout".into(), format!("{}ms", SESSION.as_millis())));
    all.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    backend.connect(&all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_server_does_not_hear_the_leader_knows_that_it_is_lost_before_the_next_one_comes() {
    let ensemble = Ensemble::start_linked(3).await.expect("the ensemble starts");
    let leader = ensemble.leader().await.expect("a leader");
    let follower = (leader + 1) % 3;
    let backend = Backend::new("zookeeper").await;
    let far = connect(&backend, &[("lock.zookeeper.servers", &ensemble.address(follower))]).await;
    let near = connect(&backend, &[("lock.zookeeper.servers", &ensemble.address(leader))]).await;
    let lease = far.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease");
    // It goes on for as long as the ensemble hears of it.
    assert!(timeout(SESSION * 2, lease.lost()).await.is_err(), "it is lost without a reason");
    let link = ensemble.link(follower, leader);
    link.blackhole(Direction::ToServer);
    link.blackhole(Direction::ToClient);
    let next = near.acquire(KEY, Mode::Exclusive, after(8_000)).await.expect("the leader ends the session");
    assert!(lease.check().is_err(), "two have the lock");
    drop(lease);
    next.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_learns_that_its_node_was_deleted() {
    let backend = Backend::new("zookeeper").await;
    let client = client(&backend).await;
    let (holder, other) = (connect(&backend, &[]).await, connect(&backend, &[]).await);
    let kept = holder.acquire("another", Mode::Exclusive, after(1_000)).await.expect("a lease");
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    for name in client.list_children("/stocklock/hair-dryer").await.expect("the directory") {
        client.delete(&format!("/stocklock/hair-dryer/{name}"), None).await.expect("it is deleted");
    }
    timeout(SESSION, lease.lost()).await.expect("the holder checks three times in a time-out");
    assert_eq!(kept.check(), Ok(()), "the other node is there");
    lease.release().await;
    kept.release().await;
    backend.assert_free(&*other).await;
}

async fn client(backend: &Backend) -> Client {
    let servers = backend.server::<Zookeeper>().url();
    Client::connect(&servers).await.expect("a client")
}

/// The last number that a node can have.
const LAST: i32 = i32::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn when_the_numbers_of_a_directory_come_to_their_end_there_is_still_one_holder_at_a_time() {
    let mut backend = Backend::new("zookeeper").await;
    let first = connect(&backend, &[]).await;
    first.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    first.shutdown().await;
    drop(first);
    let server = backend.server_mut::<Zookeeper>();
    server.restart_with_counter("/stocklock/hair-dryer", LAST - 100).await.expect("it starts again");
    let (counter, tokens) =
        (Arc::new(std::sync::atomic::AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(vec![])));
    let mut contenders = JoinSet::new();
    for _ in 0..4 {
        let lock = connect(&backend, &[]).await;
        for _ in 0..4 {
            let (lock, counter, tokens) = (Arc::clone(&lock), Arc::clone(&counter), Arc::clone(&tokens));
            contenders.spawn(async move {
                for _ in 0..25 {
                    let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
                    crate::add_one_slowly(&counter).await;
                    tokens.lock().expect("no task panics").push(lease.token().expect("a token").0);
                    lease.release().await;
                }
            });
        }
    }
    contenders.join_all().await;
    assert_eq!(counter.load(std::sync::atomic::Ordering::Relaxed), 400);
    let tokens = tokens.lock().expect("no task panics").clone();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_creation_was_seen_late_is_found_and_not_made_a_second_time() {
    let ensemble = Ensemble::start_linked(3).await.expect("the ensemble starts");
    let leader = ensemble.leader().await.expect("a leader");
    let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let backend = Backend::new("zookeeper").await;
    // To the leader first; to a follower that lags behind, when that is gone.
    let first = Proxy::start(&ensemble.address(leader)).await.expect("the proxy starts");
    let second = Proxy::start(&ensemble.address(follower)).await.expect("the proxy starts");
    second.refuse();
    let servers = format!("{},{}", first.address(), second.address());
    let long = ("lock.zookeeper.session_timeout", "10s");
    let far = connect(&backend, &[("lock.zookeeper.servers", &servers), long]).await;
    let near = connect(&backend, &[("lock.zookeeper.servers", &ensemble.address(leader)), long]).await;
    far.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease").release().await;
    // The leader has no other to agree with than a follower that hears of everything a second late, and so it
    // hears of the creation after it has taken the session over.
    ensemble.pause(third).expect("it is paused");
    ensemble.link(follower, leader).delay(Direction::ToClient, Duration::from_secs(1));
    first.delay(Direction::ToClient, Duration::from_secs(30));
    let sent = first.chunks(Direction::ToServer);
    let asking = tokio::spawn(async move {
        let lease = far.acquire(KEY, Mode::Exclusive, after(20_000)).await;
        (far, lease)
    });
    while first.chunks(Direction::ToServer) == sent {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(20)).await;
    second.heal();
    first.refuse();
    let (far, lease) = asking.await.expect("the participant lives");
    let lease = lease.expect("it finds its node");
    assert_eq!(near.state(KEY).await.expect("the lock state").waiting, 0, "there is a second node");
    lease.release().await;
    ensemble.link(follower, leader).heal();
    ensemble.resume(third).expect("it goes on");
    backend.assert_free(&*near).await;
    drop(far);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_was_prepared_under_a_parent_of_others_is_used() {
    let backend = Backend::new("zookeeper").await;
    let admin = client(&backend).await;
    let persistent = |acls| CreateMode::Persistent.with_acls(acls);
    admin.create("/team", b"", &persistent(Acls::anyone_all())).await.expect("a node");
    admin.create("/team/stocklock", b"", &persistent(Acls::anyone_all())).await.expect("a node");
    let read_only = [Acl::new(Permission::READ, AuthId::anyone())];
    admin.set_acl("/team", &read_only, None).await.expect("read-only");
    let lock = connect(&backend, &[("lock.zookeeper.root", "/team/stocklock")]).await;
    lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_what_the_ensemble_grants() {
    let backend = Backend::new("zookeeper").await;
    // The most that this server grants is a minute.
    let lock = connect(&backend, &[("lock.zookeeper.session_timeout", "90s")]).await;
    assert_eq!(lock.lease(), Some(Duration::from_secs(60)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_interrupted_is_used_again_when_the_ensemble_has_heard_of_it() {
    let mut server = Zookeeper::start().await.expect("ZooKeeper starts");
    let backend = Backend::new("zookeeper").await;
    let lock = connect(&backend, &[("lock.zookeeper.servers", &server.url())]).await;
    for _ in 0..3 {
        lock.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("a lease").release().await;
        server.kill().await.expect("it is killed");
        let refused = lock.acquire(KEY, Mode::Exclusive, after(300)).await;
        assert!(matches!(refused, Err(LockError::Unavailable { .. })), "{refused:?}");
        server.restart().await.expect("it starts again");
        let back = Instant::now();
        lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease").release().await;
        assert!(back.elapsed() < SESSION * 2, "it took {:?}", back.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
}
