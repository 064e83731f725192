//! What operators rely on: health, metrics, the stop.

use std::time::Duration;

use futures_util::future::join_all;
use order_service::api::Info;

use crate::helpers::{Shop, count, problem};

#[tokio::test]
async fn a_replica_says_what_it_is_and_that_it_is_ready() {
    let shop = Shop::open("optimistic", 1).await;
    let replica = shop.replica();
    assert_eq!(replica.get("/livez").await.status(), 200);
    assert_eq!(replica.get("/readyz").await.status(), 200);
    let info: Info = replica.get("/v1/info").await.json().await.unwrap();
    assert_eq!(
        (info.strategy.as_str(), info.guard.as_str(), info.store.as_str()),
        ("optimistic", "version", crate::STORE.name())
    );
    assert_eq!((info.replica.as_str(), info.max_batch, info.lease_ms), ("replica-1", 256, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_nothing_that_was_confirmed_and_writes_nothing_that_was_refused() {
    for strategy in ["none", "database", "row", "optimistic"] {
        let keys = [("checkout.max_batch", "4"), ("checkout.think_time", "20ms")];
        let mut shop = Shop::with(2, strategy, 1_000, &keys).await;
        let stopping = shop.replicas.remove(0);
        let (url, http) = (stopping.url.clone(), stopping.http.clone());
        let mut stopping = stopping;
        let orders = join_all((0..64).map(|i| {
            let (url, http) = (url.clone(), http.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(i)).await;
                let body = serde_json::json!({"sku": "hair-dryer", "quantity": 1, "buyer": format!("b{i}")});
                // One that comes too late to be accepted has no connection, and was not executed either.
                http.post(format!("{url}/v1/orders")).json(&body).send().await.ok()
            }
        }));
        let (answers, stopped) = tokio::join!(orders, async {
            // As soon as some are confirmed, and most are still to come.
            while shop.audit().await.orders == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stopping.stop().await
        });
        stopped.unwrap();
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        let confirmed = count(&answers, 201);
        assert!(confirmed > 0, "{strategy}");
        let audit = shop.audit().await;
        assert_eq!(audit.orders, confirmed as i64, "{strategy}");
        for answer in answers.into_iter().filter(|answer| answer.status() != 201) {
            assert_eq!(problem(answer).await, (503, "shutting-down".into(), Some("not_executed".into())));
        }
        // The lock was released: no other waits for its lease to end.
        assert_eq!(shop.replica().order("after", 1).await.status(), 201, "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_a_long_order_ends_in_time_and_releases_a_lock_without_expiry() {
    let keys = [
        ("lock.database.lease", "never"),
        ("checkout.think_time", "20s"),
        ("server.request_timeout", "500ms"),
    ];
    let mut shop = Shop::with(2, "database", 10, &keys).await;
    let mut stopping = shop.replicas.remove(0);
    let (url, http) = (stopping.url.clone(), stopping.http.clone());
    let order = tokio::spawn(async move {
        let body = serde_json::json!({"sku": "hair-dryer", "quantity": 1, "buyer": "A"});
        http.post(format!("{url}/v1/orders")).json(&body).send().await
    });
    shop.replica().until_locked().await;
    let begun = std::time::Instant::now();
    stopping.stop().await.expect("the replica stops");
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
    let answer = order.await.expect("no panic").expect("an answer");
    assert_eq!(problem(answer).await, (504, "outcome-unknown".into(), Some("unknown".into())));
    let state = shop.replica().admin(reqwest::Method::GET, "/lock", None).await;
    let state: serde_json::Value = state.json().await.expect("the lock state");
    assert_eq!(state["holders"], serde_json::json!([]));
    assert_eq!(shop.audit().await.orders, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_replica_says_so_before_it_ends_its_connections() {
    let mut shop = Shop::with(1, "database", 10, &[("server.drain", "2s")]).await;
    let mut stopping = shop.replicas.remove(0);
    let url = stopping.url.clone();
    let http = stopping.http.clone();
    let begun = std::time::Instant::now();
    let stopped = stopping.stop();
    while http.get(format!("{url}/readyz")).send().await.expect("an answer").status() != 503 {}
    let body = serde_json::json!({"sku": "hair-dryer", "quantity": 1, "buyer": "late"});
    let order = http.post(format!("{url}/v1/orders")).json(&body).send().await.expect("an answer");
    assert_eq!(order.status(), 201, "after {:?}", begun.elapsed());
    stopped.await.expect("the replica stops");
    assert!(http.get(format!("{url}/readyz")).send().await.is_err());
}

#[tokio::test]
async fn made_up_methods_count_together() {
    let shop = Shop::open("database", 1).await;
    for i in 0..20 {
        let method = reqwest::Method::from_bytes(format!("MADEUP{i}").as_bytes()).expect("a method");
        let request = shop.replica().http.request(method, format!("{}/v1/orders", shop.replica().url));
        assert_eq!(request.send().await.expect("an answer").status(), 405);
    }
    let metrics = shop.replica().get("/metrics").await.text().await.expect("metrics");
    assert!(
        metrics.contains("strategy=\"database\",method=\"other\",route=\"/v1/orders\",status=\"405\"} 20"),
        "{metrics}"
    );
    assert!(!metrics.contains("MADEUP"));
}
