//! What the lock in Redis promises beyond the contract.

use lab::{Direction, Redis, Server as _};
use order_service::config::{Config, Sources};
use order_service::lock::{Lock, Mode};
use tokio::time::{Instant, timeout};

use crate::backend::{Backend, KEY, LEASE, after};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_token_counter_is_left_in_redis() {
    let backend = Backend::new("redis").await;
    let (a, b) = (backend.participant().await, backend.participant().await);
    let held = a.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    assert!(b.acquire(KEY, Mode::Exclusive, after(50)).await.is_err());
    assert!(b.acquire(KEY, Mode::Shared, after(50)).await.is_err());
    held.release().await;
    a.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap().release().await;
    backend.assert_free(&*b).await;
    let keys = backend.server::<Redis>().command(&["KEYS", "*"]).await.unwrap();
    assert_eq!(keys, "stocklock:{hair-dryer}:token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_is_for_the_next_holder_alone() {
    let backend = Backend::new("redis").await;
    let mut keys = backend.keys();
    keys.push(("lock.redis.renew".into(), "false".into()));
    let (a, b) = (backend.connect(&keys).await, backend.participant().await);
    let noted = async |lock: &dyn Lock, note: Option<&str>| {
        let lease = lock.acquire(KEY, Mode::Exclusive, after(3_000)).await.unwrap();
        let found = lease.note().map(str::to_owned);
        note.into_iter().for_each(|note| lease.leave_note(note));
        lease.release().await;
        found
    };
    assert_eq!(noted(&*a, Some("one")).await, None);
    // Readers neither get it nor take it away.
    let reader = b.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
    assert_eq!(reader.note(), None);
    reader.release().await;
    assert_eq!(noted(&*b, None).await.as_deref(), Some("one"));
    assert_eq!(noted(&*a, Some("two")).await, None, "it was for another");
    // Who drops its lease has not come to its end, and leaves nothing; nor does who has lost it.
    let dropped = b.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    dropped.leave_note("three");
    drop(dropped);
    backend.assert_free(&*b).await;
    let late = a.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    assert_eq!(late.note(), None);
    late.leave_note("four");
    let next = b.acquire(KEY, Mode::Exclusive, after(3_000)).await.unwrap();
    late.release().await;
    next.release().await;
    assert_eq!(noted(&*a, None).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_lost_its_data_goes_on_counting_above_the_orders() {
    goes_on_counting_after(None).await;
}

/// Came back from an old snapshot, or a failover: it has a counter, but not the latest.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_with_older_data_goes_on_counting_above_the_orders() {
    goes_on_counting_after(Some("1")).await;
}

async fn goes_on_counting_after(counter: Option<&str>) {
    let mut backend = Backend::new("redis").await;
    let sources = [
        ("store.url", backend.url.clone()),
        ("server.listen", "127.0.0.1:0".into()),
        ("lock.strategy", "redis".into()),
        ("lock.redis.url", backend.server::<Redis>().url()),
        ("lock.redis.lease", "1s".into()),
    ];
    let overrides = sources.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
    config.catalog.push(order_service::config::CatalogEntry {
        sku: KEY.into(),
        name: "Hair dryer".into(),
        stock: 100,
    });
    let app = order_service::app::App::build(&config).await.expect("it starts");
    let url = format!("http://{}/v1/orders", app.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stopped.await) }));
    // The client can do TLS, and asks for it although no test does.
    rustls::crypto::ring::default_provider().install_default().ok();
    let order = async || {
        let body = serde_json::json!({"sku": KEY, "quantity": 1, "buyer": "A"});
        let answer = reqwest::Client::new().post(&url).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.expect("JSON"))
    };
    let mut last = 0;
    for _ in 0..3 {
        let (status, order) = order().await;
        assert_eq!(status, 201, "{order}");
        last = order["lock"]["fencing_token"].as_i64().expect("a token");
    }
    assert_eq!(last, 3);
    let redis = backend.server_mut::<Redis>();
    redis.kill().await.expect("Redis is killed");
    let (status, refused) = order().await;
    assert_eq!((status, &refused["outcome"]), (503, &"not_executed".into()), "{refused}");
    redis.restart().await.expect("Redis starts again");
    if let Some(counter) = counter {
        redis.command(&["SET", "stocklock:{hair-dryer}:token", counter]).await.expect("an answer");
    }
    let give_up = after(5_000);
    let order = loop {
        // The connection comes back by itself, in its own time.
        let (status, order) = order().await;
        if status == 201 {
            break order;
        }
        assert_eq!(order["outcome"], "not_executed", "{order}");
        assert!(Instant::now() < give_up, "{order}");
    };
    let token = order["lock"]["fencing_token"].as_i64().expect("a token");
    assert!(token > last, "{token} after {last}");
    drop(stop);
    running.await.expect("it stops");
}

/// Also above the tokens of holders that have written nothing, which no other knows.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_whatever_redis_loses() {
    let backend = Backend::new("redis").await;
    let redis = backend.server::<Redis>();
    let locks = [backend.participant().await, backend.participant().await, backend.participant().await];
    let counter = "stocklock:{hair-dryer}:token";
    let losses: [&[&str]; 4] = [&["FLUSHALL"], &["FLUSHALL"], &["DEL", counter], &["SET", counter, "1"]];
    let mut held = Vec::new();
    let mut last = 0;
    for loss in losses {
        for lock in &locks {
            // Each is lost while it is held, so that no other has to wait for it.
            let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
            let token = lease.token().expect("a token").0;
            assert!(token > last, "{token} after {last}");
            last = token;
            held.push(lease);
            redis.command(&["DEL", "stocklock:{hair-dryer}:lock"]).await.expect("an answer");
        }
        redis.command(loss).await.expect("an answer");
    }
    assert_eq!(last >> 32, 3, "one generation for each loss that was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_tokens_are_small_and_a_new_participant_goes_on_with_them() {
    let backend = Backend::new("redis").await;
    for expected in 1..=5 {
        let lock = backend.participant().await;
        let lease = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease");
        assert_eq!(lease.token().expect("a token").0, expected);
        lease.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_asked_for_again_begins_again() {
    let backend = Backend::new("redis").await;
    let (proxy, mut keys) = backend.proxied().await;
    keys.push(("lock.redis.renew".into(), "false".into()));
    let (far, near) = (backend.connect(&keys).await, backend.participant().await);
    far.acquire(KEY, Mode::Exclusive, after(1_000)).await.expect("a lease").release().await;
    proxy.delay(Direction::ToClient, LEASE);
    let asking = tokio::spawn(async move { far.acquire(KEY, Mode::Exclusive, after(6_000)).await });
    backend.until_held_by(&*near, 1).await;
    // The reply is lost when most of the lease is over.
    tokio::time::sleep(LEASE * 3 / 4).await;
    proxy.cut();
    proxy.heal();
    let lease = asking.await.expect("the participant lives").expect("it asks again");
    let next = near.acquire(KEY, Mode::Exclusive, after(5_000)).await.expect("the lease ends");
    assert!(lease.check().is_err(), "two have the lock");
    next.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_in_a_redis_that_lost_its_data_learns_it() {
    let mut backend = Backend::new("redis").await;
    let (holder, other) = (backend.participant().await, backend.participant().await);
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    let waiting = tokio::spawn(async move { other.acquire(KEY, Mode::Exclusive, after(20_000)).await });
    let redis = backend.server_mut::<Redis>();
    redis.kill().await.unwrap();
    redis.restart().await.unwrap();
    timeout(LEASE * 2, lease.lost()).await.expect("the holder learns it by the end of its lease");
    lease.release().await;
    // Who waited meanwhile either failed since Redis was gone, or has the lock now.
    if let Ok(next) = waiting.await.unwrap() {
        next.release().await;
    }
}
