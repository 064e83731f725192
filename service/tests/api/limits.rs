//! What one client, or one request, may take.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use order_service::lock::Mode;
use serde_json::{Value, json};

use crate::helpers::{Replica, SKU, Shop, TOKEN, problem};

async fn put(replica: &Replica, sku: &str) {
    let request = replica.http.put(format!("{}/v1/admin/products/{sku}", replica.url)).bearer_auth(TOKEN);
    let made = request.json(&json!({"name": sku, "stock": 1})).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
}

#[tokio::test]
async fn products_come_in_pages() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    for sku in ["b.2", "a-1", "zebra", "b_1"] {
        put(replica, sku).await;
    }
    let mut skus = Vec::new();
    let mut sizes = Vec::new();
    let mut after = String::new();
    loop {
        let page: Value =
            replica.get(&format!("/v1/products?limit=2{after}")).await.json().await.expect("a page");
        let products = page["products"].as_array().expect("products");
        sizes.push(products.len());
        skus.extend(products.iter().map(|product| product["sku"].as_str().expect("a SKU").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        after = format!("&cursor={cursor}");
    }
    assert_eq!(sizes, [2, 2, 1]);
    skus.sort();
    let mut all = ["a-1", "b.2", "b_1", SKU, "zebra"];
    all.sort_unstable();
    assert_eq!(skus, all);
    // A last page that is full has no next one.
    let page: Value = replica.get("/v1/products?limit=5").await.json().await.expect("a page");
    assert!(page["products"].as_array().is_some_and(|all| all.len() == 5) && page["next_cursor"].is_null());
    // As many as there are if there are few.
    let page: Value = replica.get("/v1/products").await.json().await.expect("a page");
    assert!(page["products"].as_array().is_some_and(|all| all.len() == 5) && page["next_cursor"].is_null());
    let wrong: Value =
        replica.get("/v1/products?limit=1001&cursor=a%20b").await.json().await.expect("a problem");
    let fields: Vec<_> =
        wrong["errors"].as_array().expect("errors").iter().map(|e| e["field"].clone()).collect();
    assert_eq!((wrong["status"].clone(), fields), (json!(422), vec![json!("cursor"), json!("limit")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_reads_wait_for_the_lock_than_there_may_be() {
    let keys = [("server.locked_reads", "2"), ("lock.wait", "30s"), ("server.request_timeout", "30s")];
    let shop = Shop::with(1, "database", 3, &keys).await;
    let replica = shop.replica();
    let stranger = shop.lock().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let lease = stranger.acquire(SKU, Mode::Exclusive, deadline).await.expect("a lease");
    let path = format!("/v1/products/{SKU}/stock?read=locked");
    let mut reads: FuturesUnordered<_> = (0..3).map(|_| replica.get(&path)).collect();
    let first = reads.next().await.expect("an answer");
    assert!(first.headers().contains_key("retry-after"));
    assert_eq!(problem(first).await.1, "overloaded");
    // Whoever waits for no lock is not held up.
    assert_eq!(replica.get(&format!("/v1/products/{SKU}/stock")).await.status(), 200);
    lease.release().await;
    while let Some(read) = reads.next().await {
        assert_eq!(read.status(), 200);
    }
    // Their places are free again.
    for _ in 0..5 {
        assert_eq!(replica.get(&path).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_for_the_lock_longer_than_a_request_may_take() {
    let keys = [("server.locked_reads", "1"), ("lock.wait", "60s"), ("server.request_timeout", "500ms")];
    let shop = Shop::with(1, "database", 3, &keys).await;
    let stranger = shop.lock().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let lease = stranger.acquire(SKU, Mode::Exclusive, deadline).await.expect("a lease");
    let path = format!("/v1/products/{SKU}/stock?read=locked");
    for _ in 0..2 {
        // Those that gave up have left their places.
        let (status, slug, _) = problem(shop.replica().get(&path).await).await;
        assert!(status == 503 && slug != "overloaded", "{slug}");
    }
    lease.release().await;
    assert_eq!(shop.replica().get(&path).await.status(), 200);
}

/// A client that comes from this address.
fn from(address: [u8; 4]) -> reqwest::Client {
    reqwest::Client::builder().local_address(IpAddr::from(address)).build().expect("a client")
}

#[tokio::test]
async fn what_one_address_sends_beyond_its_rate_is_refused_and_not_executed() {
    let keys = [("server.rate_limit", "1"), ("server.rate_burst", "3")];
    let shop = Shop::with(1, "database", 1_000, &keys).await;
    let url = &shop.replica().url;
    let order = async |client: &reqwest::Client| {
        let body = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
        client.post(format!("{url}/v1/orders")).json(&body).send().await.expect("an answer")
    };
    let (greedy, other) = (from([127, 0, 0, 2]), from([127, 0, 0, 3]));
    let begun = Instant::now();
    let mut confirmed = 0;
    for _ in 0..20 {
        let answer = order(&greedy).await;
        if answer.status() == 201 {
            confirmed += 1;
            continue;
        }
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().expect("whole seconds");
        assert!((1..=2).contains(&wait), "{wait}");
        assert_eq!(problem(answer).await, (429, "rate-limited".into(), Some("not_executed".into())));
    }
    let most = 3 + 1 + begun.elapsed().as_secs();
    assert!((3..=most).contains(&confirmed), "{confirmed}, where {most} may be");
    // Whoever watches over the service is not counted, and others are not charged with it.
    for path in ["/livez", "/readyz"] {
        for _ in 0..5 {
            let answer = greedy.get(format!("{url}{path}")).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
        }
    }
    assert_eq!(order(&other).await.status(), 201);
    let audit = other.get(format!("{url}/v1/admin/products/{SKU}/audit")).bearer_auth(TOKEN);
    let audit: Value = audit.send().await.expect("an answer").json().await.expect("an audit");
    assert_eq!(audit["orders"], confirmed + 1);
}
