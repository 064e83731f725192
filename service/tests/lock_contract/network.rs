//! Networks that lose replies, and backends that are out of reach.

use std::time::Duration;

use lab::Direction;
use order_service::lock::{LockError, Mode};
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, KEY, LEASE, Proxies, after};

/// How late a deadline may be kept.
const LATE: Duration = Duration::from_millis(500);

/// How long replies are on their way that are going to be lost: longer than it takes to see that the request
/// has been carried out.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Loses all replies that are on their way, with their connections.
fn lose_replies(proxy: &Proxies) {
    proxy.cut();
    proxy.heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_an_acquire_leaves_no_lock_behind() {
    for backend in Backend::over_the_network().await {
        let (proxy, keys) = backend.proxied().await;
        let (far, near) = (backend.connect(&keys).await, backend.participant().await);
        // The next acquire is not the first, which does more than it has to.
        far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
        proxy.delay(Direction::ToClient, ON_ITS_WAY);
        let asking = tokio::spawn(async move {
            let lease = far.acquire(KEY, Mode::Exclusive, after(6_000)).await;
            (far, lease)
        });
        backend.until_held_by(&*near, 1).await;
        lose_replies(&proxy);
        let (far, lease) = asking.await.expect("the participant lives");
        match lease {
            // It asked again, and is the only one.
            Ok(lease) => {
                assert_eq!(lease.check(), Ok(()), "{}", backend.name);
                let other = near.acquire(KEY, Mode::Exclusive, after(100)).await;
                assert!(matches!(other, Err(LockError::Timeout)), "{}", backend.name);
                lease.release().await;
            }
            // Its outcome is unknown; what it has is given back all the same.
            Err(LockError::Unavailable { .. }) => {}
            Err(error) => panic!("{}: {error}", backend.name),
        }
        let freed = Instant::now();
        backend.assert_free(&*near).await;
        // Not by the end of a lease that is not renewed.
        assert!(freed.elapsed() < LEASE, "{}: free after {:?}", backend.name, freed.elapsed());
        backend.assert_free(&*far).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_a_release_does_not_release_the_next_one_s_lock() {
    for backend in Backend::over_the_network().await {
        let (proxy, keys) = backend.proxied().await;
        let (far, near) = (backend.connect(&keys).await, backend.participant().await);
        // PostgreSQL is asked to prepare a statement before the first of its kind.
        far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
        let lease = far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        proxy.delay(Direction::ToClient, ON_ITS_WAY);
        let releasing = tokio::spawn(lease.release());
        backend.until_held_by(&*near, 0).await;
        let next = near.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        lose_replies(&proxy);
        // It releases again, what is another's by now.
        releasing.await.expect("the participant lives");
        far.shutdown().await;
        assert!(
            timeout(LEASE * 2, next.lost()).await.is_err(),
            "{}: it was not its to release",
            backend.name
        );
        assert_eq!(near.state(KEY).await.expect("the lock state").holders.len(), 1, "{}", backend.name);
        next.release().await;
        backend.assert_free(&*near).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_out_of_reach_is_named_in_time_and_used_again_when_it_is_back() {
    for backend in Backend::over_the_network().await {
        let (proxy, keys) = backend.proxied().await;
        let (far, near) = (backend.connect(&keys).await, backend.participant().await);
        far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.blackhole(direction);
            for limit in [Duration::from_millis(1_000), Duration::from_millis(1_500)] {
                let asked = Instant::now();
                let refused = far.acquire(KEY, Mode::Exclusive, asked + limit).await;
                let late = asked.elapsed().saturating_sub(limit);
                assert!(late <= LATE, "{}: {late:?} late", backend.name);
                let error = refused.expect_err("no answer comes");
                assert!(matches!(error, LockError::Unavailable { .. }), "{}: {error}", backend.name);
            }
            proxy.heal();
            let give_up = after(10_000);
            let lease = loop {
                match far.acquire(KEY, Mode::Exclusive, after(1_000)).await {
                    Ok(lease) => break lease,
                    Err(error) => assert!(Instant::now() < give_up, "{}: {error}", backend.name),
                }
            };
            lease.release().await;
            backend.assert_free(&*near).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_out_of_reach_knows_that_it_is_lost_before_the_next_one_comes() {
    for backend in Backend::over_the_network().await {
        let (proxy, keys) = backend.proxied().await;
        let (far, near) = (backend.connect(&keys).await, backend.participant().await);
        let lease = far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        proxy.blackhole(Direction::ToServer);
        proxy.delay(Direction::ToClient, ON_ITS_WAY);
        let gone = Instant::now();
        let next = near.acquire(KEY, Mode::Exclusive, gone + LEASE + Duration::from_secs(1)).await;
        assert!(lease.check().is_err(), "{}: two have the lock", backend.name);
        next.unwrap_or_else(|error| panic!("{}: {error}", backend.name)).release().await;
        proxy.heal();
        lease.release().await;
        backend.assert_free(&*near).await;
        let give_up = after(10_000);
        while far.try_out(after(1_000)).await.is_err() {
            assert!(Instant::now() < give_up, "{}: it does not come back", backend.name);
            sleep(Duration::from_millis(20)).await;
        }
        backend.assert_free(&*far).await;
    }
}
