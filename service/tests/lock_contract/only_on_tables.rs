//! What the lock table promises beyond the contract.

use lab::{Postgres, Server as _};
use std::sync::Arc;
use std::time::Duration;

use order_service::config::{LeaseTime, StoreSection};
use order_service::lock::{DatabaseLock, Lock as _, Mode};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, timeout};

use crate::backend::{Backend, KEY, LEASE, after};

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_learns_that_its_record_is_gone() {
    for backend in [Backend::new("database on SQLite").await, Backend::new("database on PostgreSQL").await] {
        let store = StoreSection { url: backend.url.clone(), ..StoreSection::default() };
        let lease = LeaseTime::For(LEASE);
        let operator = DatabaseLock::connect(&store, lease, "operator").await.unwrap();
        let holder = backend.participant().await;
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        let record = operator.holders().await.unwrap().remove(0);
        assert!(operator.delete_record(record.token.unwrap()).await.unwrap());
        timeout(LEASE, lease.lost()).await.expect("the holder notices it within a lease");
        assert!(lease.check().is_err());
        // Its release does not touch whoever has the lock now.
        let next = operator.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        lease.release().await;
        assert_eq!(operator.holders().await.unwrap().len(), 1);
        next.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_record_is_taken_over_and_one_without_expiry_is_not() {
    for (lease, taken_over, name) in [
        (LeaseTime::For(LEASE), true, "database on SQLite"),
        (LeaseTime::Never, false, "database on SQLite"),
        (LeaseTime::For(LEASE), true, "database on PostgreSQL"),
        (LeaseTime::Never, false, "database on PostgreSQL"),
    ] {
        let backend = Backend::new(name).await;
        let store = StoreSection { url: backend.url.clone(), ..StoreSection::default() };
        // A runtime that ends takes its renewals with it and releases nothing: a crash, for the table.
        let crashing = store.clone();
        let crash = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let held = runtime.block_on(async {
                let lock = DatabaseLock::connect(&crashing, lease, "crashing").await.unwrap();
                let held = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
                (held, lock)
            });
            runtime.shutdown_background();
            std::mem::forget(held);
        });
        crash.join().unwrap();
        let crashed = Instant::now();
        let next = DatabaseLock::connect(&store, lease, "next").await.unwrap();
        let got = next.acquire(KEY, Mode::Exclusive, crashed + LEASE + Duration::from_secs(1)).await;
        assert_eq!(got.is_ok(), taken_over, "{name}: {lease:?}");
        if let Ok(got) = got {
            assert!(crashed.elapsed() >= LEASE * 9 / 10, "taken over after {:?}", crashed.elapsed());
            assert!(got.token().unwrap().0 > 1);
            got.release().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_holder_gets_a_note_of_what_was_written_before_it_acquired_the_lock() {
    let backend = Backend::new("database on PostgreSQL").await;
    let postgres = backend.server::<Postgres>();
    let lock = backend.participant().await;
    let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    assert_eq!(lease.note(), None, "there is no such product");
    let (other, waits) = (Arc::clone(&lock), after(5_000));
    let waiting = tokio::spawn(async move { other.acquire(KEY, Mode::Exclusive, waits).await });
    while lock.state(KEY).await.expect("the lock state").waiting == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let product = format!("insert into products values ('{KEY}', 'Hair dryer', 3, 4, 5, now())");
    postgres.query(&product).await.expect("it is made");
    lease.release().await;
    let next = waiting.await.expect("it lives").expect("a lease");
    assert_eq!(next.note(), Some("3 4 5"));
    next.release().await;
}

/// What was deleted cannot be cleared away while a transaction elsewhere is open: a backup, or a report.
#[tokio::test(flavor = "multi_thread")]
async fn records_and_tickets_that_are_gone_are_not_looked_at_one_by_one() {
    const TURNS: u64 = 300;
    for participants in [1, 2] {
        let backend = Backend::new("database on PostgreSQL").await;
        let postgres = backend.server::<Postgres>();
        let mut elsewhere = PgConnection::connect(&postgres.url()).await.expect("a connection");
        let open = "begin isolation level repeatable read; select count(*) from products";
        sqlx::raw_sql(open).execute(&mut elsewhere).await.expect("it is open");
        let sessions = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
        let others = postgres.query(sessions).await.expect("an answer");
        let mut locks = Vec::new();
        for _ in 0..participants {
            locks.push(backend.participant().await);
        }
        for round in 0..2 {
            // As many turns for each, with what is left of those before.
            let turns = locks.iter().map(|lock| {
                let lock = Arc::clone(lock);
                tokio::spawn(async move {
                    for _ in 0..TURNS {
                        let lease = lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
                        lease.release().await;
                    }
                })
            });
            for turns in turns.collect::<Vec<_>>() {
                turns.await.expect("all of its turns");
            }
            // The tables are empty, and their statistics say so: all plans cost the same.
            for table in ["locks", "lock_waiters"].iter().filter(|_| round == 0) {
                postgres.query(&format!("vacuum analyze {table}")).await.expect("it is cleared in vain");
            }
        }
        for lock in locks {
            lock.shutdown().await;
        }
        // Sessions have told what they did when they have ended.
        let deadline = after(10_000);
        while postgres.query(sessions).await.expect("an answer") != others {
            assert!(Instant::now() < deadline, "a session of a lock is still there");
        }
        let read =
            "select sum(idx_tup_read) from pg_stat_user_indexes where relname in ('locks', 'lock_waiters')";
        let read: u64 = postgres.query(read).await.expect("an answer").parse().expect("a number");
        let turns = 2 * TURNS * participants;
        assert!(read < 60 * turns, "{read} records and tickets for {turns} turns of {participants}");
        sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("it is over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_with_a_ticket_that_has_lapsed_is_served() {
    let backend = Backend::new("database on PostgreSQL").await;
    let postgres = backend.server::<Postgres>();
    for mode in ["exclusive", "shared"] {
        let lapsed = format!(
            "insert into lock_waiters (lock_key, mode, owner, expires_at)
             values ('{mode}', '{mode}', '00000000-0000-7000-8000-000000000001', now() - interval '1 second')"
        );
        postgres.query(&lapsed).await.expect("it is inserted");
        let take = format!(
            "select owner from stocklock_take(
                array['{mode}'], array['{mode}'], array['00000000-0000-7000-8000-000000000001'::uuid], 'a',
                60000, 1000, array[0], array[0], array[null]::tid[]
             )"
        );
        let served = postgres.query(&take).await.expect("it is no error");
        assert_eq!(served, "00000000-0000-7000-8000-000000000001", "{mode}");
    }
    assert_eq!(postgres.query("select count(*) from lock_waiters").await.expect("an answer"), "0");
}

/// It is known for each key which tokens are gone, until they are given out again.
#[tokio::test(flavor = "multi_thread")]
async fn where_tokens_have_gone_back_nobody_gets_a_lock_that_another_has() {
    let backend = Backend::new("database on PostgreSQL").await;
    let postgres = backend.server::<Postgres>();
    let lock = backend.participant().await;
    for _ in 0..20 {
        lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    }
    postgres.query("truncate locks restart identity").await.expect("it is emptied");
    let other = backend.participant().await;
    let held = other.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    for _ in 0..3 {
        assert!(lock.acquire(KEY, Mode::Exclusive, after(100)).await.is_err(), "another has it");
    }
    held.release().await;
    let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    lease.release().await;
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_be_announced_is_made_all_the_same() {
    let backend = Backend::new("database on PostgreSQL").await;
    let postgres = backend.server::<Postgres>();
    // Superusers may do everything.
    let forbidden = "create role seller login; grant all on all tables in schema public to seller;
        grant all on all sequences in schema public to seller;
        revoke execute on function pg_notify from public";
    postgres.query(forbidden).await.expect("it is forbidden");
    let mut keys = backend.keys();
    for (key, value) in &mut keys {
        if key == "store.url" {
            let user = value.split("//").nth(1).and_then(|rest| rest.split('@').next()).expect("a user");
            *value = value.replace(&format!("//{user}@"), "//seller@");
        }
    }
    let (holder, next) = (backend.connect(&keys).await, backend.connect(&keys).await);
    let held = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
    let waiting = tokio::spawn(async move { next.acquire(KEY, Mode::Exclusive, after(5_000)).await });
    while holder.state(KEY).await.expect("the lock state").waiting == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let released = Instant::now();
    held.release().await;
    let next = waiting.await.expect("it lives").expect("a lease");
    assert!(released.elapsed() < LEASE / 2, "it was left to its expiry: {:?}", released.elapsed());
    next.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_without_an_end_learns_that_its_record_is_gone() {
    for backend in [Backend::new("database on SQLite").await, Backend::new("database on PostgreSQL").await] {
        let store = StoreSection { url: backend.url.clone(), ..StoreSection::default() };
        let holder = DatabaseLock::connect(&store, LeaseTime::Never, "holder").await.unwrap();
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        let record = holder.holders().await.unwrap().remove(0);
        assert!(holder.delete_record(record.token.unwrap()).await.unwrap());
        timeout(Duration::from_secs(3), lease.lost()).await.expect("the holder checks every second");
    }
}
