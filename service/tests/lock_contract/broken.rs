//! Locks that are broken on purpose: what the suite is for is to notice them, each time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lab::{Redis, Server as _, Zookeeper};
use order_service::lock::{
    Acquire, Hold, Lease, Lock, LockError, LockState, Mode, Note, PendingAcquire, Validity,
};
use tokio::time::{Instant, sleep, timeout_at};
use zookeeper_client::{Acls, Client, CreateMode};

use crate::backend::{Backend, KEY, LEASE, after};

/// How often each has to be noticed.
const TIMES: usize = 5;

/// Whether a check of the suite, which panics at what it does not like, passes.
async fn passes(check: impl Future<Output = ()> + Send + 'static) -> bool {
    tokio::spawn(check).await.is_ok()
}

/// Once a lease has ended and another has the lock, the release of the first must not touch it.
async fn a_late_release_touches_no_other_holder(late: Arc<dyn Lock>, next: Arc<dyn Lock>) {
    let ended = late.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let lease = next.acquire(KEY, Mode::Exclusive, after(0) + LEASE * 2).await.expect("a lease");
    ended.release().await;
    let third = next.acquire(KEY, Mode::Exclusive, after(200)).await;
    assert!(third.is_err(), "two have the lock");
    lease.release().await;
}

/// A lease that is held is renewed.
async fn a_lease_lasts_while_it_is_held(holder: Arc<dyn Lock>, other: Arc<dyn Lock>) {
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    assert!(other.acquire(KEY, Mode::Exclusive, after(0) + LEASE * 2).await.is_err(), "two have the lock");
    assert_eq!(lease.check(), Ok(()));
    lease.release().await;
}

/// A waiter that gives up does not let in the one behind it.
async fn a_waiter_that_gives_up_lets_no_other_in(
    holder: Arc<dyn Lock>,
    gives_up: Arc<dyn Lock>,
    stays: Arc<dyn Lock>,
) {
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let until_waiting = async |waiting: u64| {
        let give_up = after(5_000);
        while holder.state(KEY).await.expect("the lock state").waiting < waiting {
            assert!(Instant::now() < give_up, "{waiting} do not wait");
            sleep(Duration::from_millis(2)).await;
        }
    };
    let given_up = tokio::spawn(async move { gives_up.acquire(KEY, Mode::Exclusive, after(1_500)).await });
    until_waiting(1).await;
    let mut waits = tokio::spawn(async move { stays.acquire(KEY, Mode::Exclusive, after(10_000)).await });
    until_waiting(2).await;
    assert!(given_up.await.expect("it lives").is_err());
    assert!(timeout_at(after(500), &mut waits).await.is_err(), "two have the lock");
    lease.release().await;
    waits.await.expect("it lives").expect("a lease").release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_release_is_harmless_and_one_without_an_owner_check_is_noticed() {
    let backend = Backend::new("redis").await;
    let mut without_renewal = backend.keys();
    without_renewal.push(("lock.redis.renew".into(), "false".into()));
    let redis = Arc::new(Redis::start().await.expect("Redis starts"));
    for _ in 0..TIMES {
        let late = backend.connect(&without_renewal).await;
        let next = backend.participant().await;
        assert!(passes(a_late_release_touches_no_other_holder(late, next)).await);
    }
    let mut elsewhere = without_renewal;
    elsewhere.push(("lock.redis.url".into(), redis.url()));
    for _ in 0..TIMES {
        let late = backend.connect(&elsewhere).await;
        let broken = Arc::new(ReleasesOthers { inner: late, redis: Arc::clone(&redis) });
        let mut keys = backend.keys();
        keys.push(("lock.redis.url".into(), redis.url()));
        let next = backend.connect(&keys).await;
        assert!(!passes(a_late_release_touches_no_other_holder(broken, next)).await, "it was not noticed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_and_a_forgotten_renewal_is_noticed() {
    for backend in Backend::all().await {
        let (holder, other) = (backend.participant().await, backend.participant().await);
        assert!(passes(a_lease_lasts_while_it_is_held(holder, other)).await, "{}", backend.name);
    }
    let backend = Backend::new("redis").await;
    let mut forgetful = backend.keys();
    forgetful.push(("lock.redis.renew".into(), "false".into()));
    for _ in 0..TIMES {
        let (holder, other) = (backend.connect(&forgetful).await, backend.participant().await);
        assert!(!passes(a_lease_lasts_while_it_is_held(holder, other)).await, "it was not noticed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_gives_up_is_passed_over_and_a_watch_without_a_second_listing_is_noticed() {
    for backend in Backend::all().await {
        let (a, b, c) =
            (backend.participant().await, backend.participant().await, backend.participant().await);
        assert!(passes(a_waiter_that_gives_up_lets_no_other_in(a, b, c)).await, "{}", backend.name);
    }
    let backend = Backend::new("zookeeper").await;
    for _ in 0..TIMES {
        let (a, b) = (backend.participant().await, backend.participant().await);
        let servers = backend.server::<Zookeeper>().url();
        let client = Client::connect(&servers).await.expect("a session");
        let broken = Arc::new(LooksOnce { client, state: Arc::clone(&a) });
        assert!(!passes(a_waiter_that_gives_up_lets_no_other_in(a, b, broken)).await, "it was not noticed");
    }
}

/// A lock in Redis whose release deletes the key, whoever has it.
struct ReleasesOthers {
    inner: Arc<dyn Lock>,
    redis: Arc<Redis>,
}

struct OthersHold {
    inner: Lease,
    redis: Arc<Redis>,
}

#[async_trait]
impl Hold for OthersHold {
    async fn release(self: Box<Self>, _: Option<Note>) {
        self.inner.release().await;
        let deleted = self.redis.command(&["DEL", &format!("stocklock:{{{KEY}}}:lock")]).await;
        deleted.expect("Redis answers");
    }
}

#[async_trait]
impl Lock for ReleasesOthers {
    fn begin(&self, key: &str, mode: Mode) -> Box<dyn Acquire> {
        let (inner, redis, key) = (Arc::clone(&self.inner), Arc::clone(&self.redis), key.to_owned());
        let acquisition = async move {
            let inner = inner.acquire(&key, mode, after(60_000)).await?;
            let hold = OthersHold { inner, redis };
            Ok(Lease::new(None, Validity::unlimited(), Box::new(hold)))
        };
        Box::new(PendingAcquire::new(acquisition, || LockError::Timeout))
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        self.inner.state(key).await
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

/// A lock in ZooKeeper that takes the end of its predecessor for its own turn.
struct LooksOnce {
    client: Client,
    state: Arc<dyn Lock>,
}

struct Node {
    client: Client,
    path: String,
}

#[async_trait]
impl Hold for Node {
    async fn release(self: Box<Self>, _: Option<Note>) {
        self.client.delete(&self.path, None).await.expect("ZooKeeper answers");
    }
}

#[async_trait]
impl Lock for LooksOnce {
    fn begin(&self, key: &str, _: Mode) -> Box<dyn Acquire> {
        let (client, key) = (self.client.clone(), key.to_owned());
        let acquisition = async move {
            let directory = format!("/stocklock/{key}");
            let prefix = format!("{directory}/00000000-write-");
            let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
            let (_, number) = client.create(&prefix, b"", &options).await.expect("ZooKeeper answers");
            let path = format!("{prefix}{number}");
            let number_of = |name: &str| name.rsplit('-').next().expect("a number").to_owned();
            let mut names = client.list_children(&directory).await.expect("ZooKeeper answers");
            names.sort_by_key(|name| number_of(name));
            let own = names.iter().position(|name| path.ends_with(name.as_str())).expect("it is there");
            if let Some(predecessor) = own.checked_sub(1) {
                let predecessor = format!("{directory}/{}", names[predecessor]);
                let (_, watcher) =
                    client.check_and_watch_stat(&predecessor).await.expect("ZooKeeper answers");
                watcher.changed().await;
            }
            let hold = Node { client: client.clone(), path };
            Ok(Lease::new(None, Validity::unlimited(), Box::new(hold)))
        };
        Box::new(PendingAcquire::new(acquisition, || LockError::Timeout))
    }

    async fn state(&self, key: &str) -> Result<LockState, LockError> {
        self.state.state(key).await
    }

    async fn shutdown(&self) {}
}
