//! Holders that are killed or stopped, and backends that are started again.

use std::time::Duration;

use order_service::lock::{LockError, Mode};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::{Backend, KEY, LEASE, after};
use crate::process::{self, Participant};

/// How long after the end of a lease the next holder may come.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn excludes_between_processes_and_counts_up_its_tokens() {
    for mut backend in Backend::between_processes().await {
        let (counted, mut tokens) = process::count_together(&backend.keys(), 4).await;
        assert_eq!(counted, 320, "{}", backend.name);
        // Redis keeps nothing here; that it goes on above the orders is a test of its own.
        if !backend.forgets() {
            backend.restart().await;
            let (counted, more) = process::count_together(&backend.keys(), 1).await;
            assert_eq!(counted, 80, "{}", backend.name);
            tokens.extend(more);
        }
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{}: {tokens:?}", backend.name);
        backend.assert_free(&*backend.participant().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_followed_when_its_lease_ends() {
    for backend in Backend::between_processes().await {
        let next = backend.participant().await;
        let mut holder = Participant::that_holds(&backend.keys()).await;
        holder.process.kill().await.expect("the holder is killed");
        let killed = Instant::now();
        let lease = next.acquire(KEY, Mode::Exclusive, killed + LEASE + GRACE).await;
        let lease = lease.unwrap_or_else(|error| panic!("{}: {error}", backend.name));
        // It renewed three times in its length, so two thirds at least were left.
        assert!(killed.elapsed() >= LEASE / 2, "{}: followed after {:?}", backend.name, killed.elapsed());
        lease.release().await;
        backend.assert_free(&*next).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_paused_past_its_lease_knows_that_it_is_lost() {
    for backend in Backend::between_processes().await {
        let next = backend.participant().await;
        let holder = Participant::that_holds(&backend.keys()).await;
        holder.process.pause().expect("the holder is stopped");
        let lease = next.acquire(KEY, Mode::Exclusive, after(0) + LEASE + GRACE).await;
        let lease = lease.unwrap_or_else(|error| panic!("{}: {error}", backend.name));
        holder.process.resume().expect("the holder goes on");
        holder.until_it_has_lost().await;
        // What it did when it woke up, its release too, has not touched the next one's lease.
        assert!(timeout(LEASE * 2, lease.lost()).await.is_err(), "{}", backend.name);
        let other = backend.participant().await;
        assert!(other.acquire(KEY, Mode::Exclusive, after(50)).await.is_err(), "{}", backend.name);
        lease.release().await;
        backend.assert_free(&*next).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_started_again_lets_no_other_in_while_it_is_held() {
    for mut backend in Backend::over_the_network().await {
        let (holder, waiter) = (backend.participant().await, backend.participant().await);
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        let mut waiting = tokio::spawn(async move {
            let give_up = after(20_000);
            loop {
                match waiter.acquire(KEY, Mode::Exclusive, give_up).await {
                    // The backend is gone: it may ask again.
                    Err(LockError::Unavailable { .. }) => sleep(Duration::from_millis(10)).await,
                    lease => return lease,
                }
            }
        });
        while holder.state(KEY).await.expect("the lock state").waiting == 0 {
            sleep(Duration::from_millis(2)).await;
        }
        backend.restart().await;
        let next = match timeout(LEASE * 4, &mut waiting).await {
            // A Redis without its data knows of no holder, who learns of it by the end of his lease. Until
            // then there are two, and the guard is what the stock relies on.
            Ok(next) if backend.forgets() => {
                timeout(LEASE, lease.lost()).await.expect("the holder learns it");
                next
            }
            Ok(next) => {
                assert!(lease.check().is_err(), "{}: two have the lock", backend.name);
                next
            }
            Err(_) => {
                assert!(lease.check().is_ok(), "{}: no other has the lock, and none gets it", backend.name);
                lease.release().await;
                waiting.await
            }
        };
        let next =
            next.expect("the waiter lives").unwrap_or_else(|error| panic!("{}: {error}", backend.name));
        next.release().await;
        backend.assert_free(&*holder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_comes_too_late_is_not_the_end_of_waiting() {
    for backend in Backend::over_the_network().await {
        let asking = backend.participant().await;
        // The next acquire is not the first, which does more than it has to.
        asking.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
        backend.pause().await;
        let stopped = Instant::now();
        let lease = tokio::spawn(async move {
            let lease = asking.acquire(KEY, Mode::Exclusive, after(20_000)).await;
            let lease = lease.map(|lease| (lease.check(), lease));
            (asking, lease)
        });
        // What is granted now was asked for longer ago than a lease is good for.
        sleep_until(stopped + LEASE + LEASE / 5).await;
        backend.resume();
        let (asking, lease) = lease.await.expect("the participant lives");
        match lease {
            Ok((check, lease)) => {
                assert_eq!(check, Ok(()), "{}", backend.name);
                lease.release().await;
            }
            // It did not wait for so long for an answer.
            Err(LockError::Unavailable { .. }) => {}
            Err(error @ LockError::Timeout) => panic!("{}: {error}", backend.name),
        }
        backend.assert_free(&*asking).await;
    }
}
