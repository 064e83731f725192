//! The same idempotency key, sent again.

use futures_util::future::join_all;
use order_service::api::Order;
use reqwest::Method;
use serde_json::{Value, json};

use crate::helpers::{Replica, SKU, Shop, count, problem};

fn body(quantity: i64) -> Value {
    json!({"sku": SKU, "quantity": quantity, "buyer": "A"})
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_across_three_replicas_make_one_order() {
    for strategy in ["none", "local", "database", "row", "optimistic"] {
        for round in 0..3 {
            let shop = Shop::with(3, strategy, 100, &[]).await;
            let key = format!("{strategy}-{round}");
            let body = body(2);
            let answers = (0..50).map(|i| shop.replicas[i % 3].order_with(&body, Some(&key)));
            let answers = join_all(answers).await;
            let replayed = |r: &&reqwest::Response| r.headers().contains_key("idempotent-replayed");
            let created = answers.iter().filter(|answer| answer.status() == 201);
            assert_eq!(created.clone().filter(|r| !replayed(r)).count(), 1, "{strategy}");
            assert_eq!(created.filter(replayed).count() + count(&answers, 409), 49, "{strategy}");
            let mut ids = Vec::new();
            for answer in answers {
                if answer.status() == 201 {
                    ids.push(answer.json::<Order>().await.unwrap().id);
                } else {
                    assert_eq!(problem(answer).await.1, "idempotency-in-flight", "{strategy}");
                }
            }
            ids.dedup();
            assert_eq!(ids.len(), 1, "{strategy}");
            let audit = shop.audit().await;
            assert_eq!((audit.orders, audit.units_sold, audit.stock), (1, 2, 98), "{strategy}");
        }
    }
}

#[tokio::test]
async fn another_payload_is_refused() {
    let shop = Shop::open("database", 10).await;
    assert_eq!(shop.replica().order_with(&body(1), Some("k")).await.status(), 201);
    let other = problem(shop.replica().order_with(&body(2), Some("k")).await).await;
    assert_eq!(other, (422, "idempotency-key-reused".into(), Some("not_executed".into())));
    assert_eq!(shop.audit().await.units_sold, 1);
}

#[tokio::test]
async fn the_answer_is_the_same_after_a_restart_on_another_replica_sold_out_and_cancelled() {
    let mut shop = Shop::open("database", 1).await;
    let first = shop.replica().order_with(&body(1), Some("k")).await.text().await.unwrap();
    shop.replicas[0].stop().await.unwrap();
    shop.add_replica("row", &[]).await;
    let replica = &shop.replicas[1];
    let sold_out = replica.order_with(&body(1), Some("other")).await;
    assert_eq!(sold_out.status(), 409, "the stock is gone");
    let again = replica.order_with(&body(1), Some("k")).await;
    assert_eq!(
        (again.status().as_u16(), &again.headers()["idempotent-replayed"]),
        (201, &"true".parse().unwrap())
    );
    assert_eq!(again.text().await.unwrap(), first);
    let id = serde_json::from_str::<Order>(&first).unwrap().id;
    assert_eq!(replica.post(&format!("/v1/orders/{id}/cancel")).await.status(), 200);
    assert_eq!(replica.order_with(&body(1), Some("k")).await.text().await.unwrap(), first);
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let shop = Shop::open("database", 1).await;
    let replica = shop.replica();
    assert_eq!(replica.order_with(&body(2), Some("k")).await.status(), 409);
    let restock = json!({"quantity": 5, "reason": "delivery"});
    assert_eq!(replica.admin(Method::POST, "/restock", Some(restock)).await.status(), 201);
    let second = replica.order_with(&body(2), Some("k")).await;
    assert_eq!(second.status(), 201);
    assert!(!second.headers().contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn others_in_the_batch_are_not_touched_by_a_replay() {
    let shop = Shop::with(1, "database", 1_000, &[("checkout.think_time", "50ms")]).await;
    let replica = shop.replica();
    let again = body(1);
    let others: Vec<_> =
        (0..40).map(|i| json!({"sku": SKU, "quantity": 1, "buyer": format!("b{i}")})).collect();
    assert_eq!(replica.order_with(&again, Some("k")).await.status(), 201);
    let (replays, orders) = tokio::join!(
        join_all((0..5).map(|_| replica.order_with(&again, Some("k")))),
        join_all(others.iter().map(|body| replica.order_with(body, None))),
    );
    assert_eq!((count(&replays, 201), count(&orders, 201)), (5, 40));
    assert_eq!(shop.audit().await.units_sold, 41);
}

/// Whether an answer says that it was given before, its status and its body.
#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_batch_with_keys_that_are_in_flight_elsewhere_is_not_refused_for_them() {
    for strategy in ["database", "row", "optimistic"] {
        let shop = Shop::with(3, strategy, 10_000, &[]).await;
        for round in 0..10 {
            let order = async |replica: &Replica, key: String| replica.order_with(&body(1), Some(&key)).await;
            // Each at all replicas, in another order at each, and so in batches that find some taken again
            // and again.
            let copies = (0..3).flat_map(|at| (0..60).map(move |i| (at, (i + 20 * at) % 60)));
            let copies = copies.map(|(at, i)| order(&shop.replicas[at], format!("copy-{round}-{i}")));
            let alone = (0..60).map(|i| order(&shop.replicas[i % 3], format!("alone-{round}-{i}")));
            let (copies, alone) = tokio::join!(join_all(copies), join_all(alone));
            assert_eq!(count(&alone, 201), 60, "{strategy}, round {round}");
            assert!(count(&copies, 201) >= 60, "{strategy}, round {round}");
        }
        assert_eq!(shop.audit().await.units_sold, 10 * 120, "{strategy}");
    }
}

async fn answer(response: reqwest::Response) -> (u16, bool, String) {
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status().as_u16(), replayed, response.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_stock_is_made_once_per_key() {
    for strategy in ["none", "local", "database", "row", "optimistic"] {
        let shop = Shop::with(3, strategy, 100, &[]).await;
        let order: Value = shop.replica().order("A", 3).await.json().await.expect("an order");
        let id = order["id"].as_str().expect("an id").to_owned();
        let restock = || json!({"quantity": 10, "reason": "delivery"});
        // Many at once, over all replicas: one is the first, and the others are answered as it is, or asked
        // to wait.
        let answers = join_all((0..30).map(|i| {
            shop.replicas[i % 3].admin_with(Method::POST, "/restock", Some(restock()), Some("restock"))
        }));
        let cancels = join_all((0..30).map(|i| shop.replicas[i % 3].cancel_with(&id, Some("cancel"))));
        let (restocks, cancels) = tokio::join!(answers, cancels);
        for (answers, status) in [(restocks, 201), (cancels, 200)] {
            let answers = join_all(answers.into_iter().map(answer)).await;
            let firsts = answers.iter().filter(|(code, replayed, _)| *code == status && !replayed).count();
            assert_eq!(firsts, 1, "{strategy}: {answers:?}");
            for (code, _, body) in &answers {
                assert!(*code == status || body.contains("idempotency-in-flight"), "{strategy}: {body}");
            }
            let mut bodies: Vec<_> =
                answers.iter().filter(|(code, ..)| *code == status).map(|(.., body)| body).collect();
            bodies.dedup();
            assert_eq!(bodies.len(), 1, "{strategy}");
        }
        let audit = shop.audit().await;
        assert_eq!(audit.supply, 110, "{strategy}");
        // Without a lock between replicas, of a restock and a cancellation at once the stock may forget one.
        let is_sound = !["none", "local"].contains(&strategy);
        assert!(!is_sound || (audit.stock == 110 && audit.balanced), "{strategy}: {audit:?}");
        // Under another key it is another one.
        let other = shop.replica().admin_with(Method::POST, "/restock", Some(restock()), Some("other")).await;
        assert_eq!(answer(other).await.0, 201);
        let audit = shop.audit().await;
        assert_eq!((audit.supply, audit.stock == 120 || !is_sound), (120, true), "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_is_sent_again_deletes_nothing_that_came_since() {
    let mut shop = Shop::open("database", 100).await;
    let put = || Some(json!({"name": "Hair dryer", "stock": 50}));
    let first = answer(shop.replica().admin_with(Method::PUT, "", put(), Some("reset")).await).await;
    assert_eq!((first.0, first.1), (200, false));
    assert_eq!(shop.replica().order("A", 1).await.status(), 201);
    // Also on a replica that may not reset any more.
    shop.add_replica("database", &[("admin.allow_reset", "false")]).await;
    for replica in &shop.replicas {
        let again = answer(replica.admin_with(Method::PUT, "", put(), Some("reset")).await).await;
        assert_eq!(again, (200, true, first.2.clone()));
    }
    let audit = shop.audit().await;
    assert_eq!((audit.orders, audit.stock), (1, 49));
    // A reset without a key is another one.
    assert_eq!(shop.replica().admin(Method::PUT, "", put()).await.status(), 200);
    assert_eq!(shop.audit().await.orders, 0);
    let late = answer(shop.replica().admin_with(Method::PUT, "", put(), Some("reset")).await).await;
    assert_eq!(late, (200, true, first.2), "a reset does not forget the keys of resets");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_sent_again_is_no_reset() {
    let shop = Shop::open("database", 1).await;
    let replica = shop.replica();
    let put = async |key: Option<&str>, stock: i64| {
        let url = format!("{}/v1/admin/products/comb", replica.url);
        let mut request = replica.http.put(url).bearer_auth(crate::helpers::TOKEN);
        request = request.json(&json!({"name": "Comb", "stock": stock}));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        answer(request.send().await.expect("an answer")).await
    };
    let first = put(Some("k"), 5).await;
    assert_eq!((first.0, first.1), (201, false), "{}", first.2);
    let sale = json!({"sku": "comb", "quantity": 1, "buyer": "A"});
    assert_eq!(replica.order_with(&sale, None).await.status(), 201);
    assert_eq!(put(Some("k"), 5).await, (201, true, first.2));
    let other = put(Some("k"), 6).await;
    assert_eq!(other.0, 422, "{}", other.2);
    assert!(other.2.contains("idempotency-key-reused"), "{}", other.2);
    let product: Value = replica.get("/v1/products/comb").await.json().await.expect("a product");
    assert_eq!(product["stock"], 4);
}

#[tokio::test]
async fn a_key_is_for_one_request_of_its_kind() {
    let shop = Shop::open("database", 10).await;
    let replica = shop.replica();
    let restock = |quantity: i64| Some(json!({"quantity": quantity, "reason": "delivery"}));
    assert_eq!(replica.admin_with(Method::POST, "/restock", restock(1), Some("k")).await.status(), 201);
    let other = problem(replica.admin_with(Method::POST, "/restock", restock(2), Some("k")).await).await;
    assert_eq!(other, (422, "idempotency-key-reused".into(), Some("not_executed".into())));
    let reset = json!({"name": "Hair dryer", "stock": 5});
    let other = problem(replica.admin_with(Method::PUT, "", Some(reset), Some("k")).await).await;
    assert_eq!(other.1, "idempotency-key-reused");
    // Orders have keys of their own.
    assert_eq!(replica.order_with(&body(1), Some("k")).await.status(), 201);
    let order: Value = replica.order_with(&body(1), Some("k")).await.json().await.expect("an order");
    let id = order["id"].as_str().expect("an id");
    let other = problem(replica.cancel_with(id, Some("k")).await).await;
    assert_eq!(other.1, "idempotency-key-reused");
    assert_eq!(replica.cancel_with(id, Some("l")).await.status(), 200);
    assert_eq!(problem(replica.cancel_with(id, Some("m")).await).await.1, "not-cancellable");
    let bad = problem(replica.cancel_with(id, Some("a b")).await).await;
    assert_eq!((bad.0, bad.1.as_str()), (422, "validation"));
    let bad = problem(replica.admin_with(Method::POST, "/restock", restock(1), Some("a b")).await).await;
    assert_eq!((bad.0, bad.1.as_str()), (422, "validation"));
    let audit = shop.audit().await;
    assert_eq!((audit.supply, audit.stock, audit.orders), (11, 11, 1));
}

/// Time cuts the answer short, not the change.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_by_time_never_says_that_nothing_was_written() {
    let keys = [
        ("failpoints.before_commit", "stall 3s"),
        ("server.request_timeout", "500ms"),
        ("store.timeout", "500ms"),
    ];
    for strategy in ["database", "optimistic", "row"] {
        let mut shop = Shop::open(strategy, 100).await;
        let order: Value = shop.replica().order("A", 1).await.json().await.expect("an order");
        let id = order["id"].as_str().expect("an id").to_owned();
        let restock = json!({"quantity": 10, "reason": "delivery"});
        let reset = json!({"name": "Hair dryer", "stock": 50});
        for (what, supply) in [("restock", 110), ("cancel", 110), ("reset", 50)] {
            let send = async |replica: &Replica| match what {
                "restock" => {
                    replica.admin_with(Method::POST, "/restock", Some(restock.clone()), Some("restock")).await
                }
                "cancel" => replica.cancel_with(&id, Some("cancel")).await,
                _ => replica.admin_with(Method::PUT, "", Some(reset.clone()), Some("reset")).await,
            };
            shop.add_replica(strategy, &keys).await;
            let slow = shop.replicas.last().expect("it was added");
            let answer = problem(send(slow).await).await;
            assert_eq!(answer, (504, "outcome-unknown".into(), Some("unknown".into())), "{strategy}: {what}");
            // What the answer advises works: sent again with the key, it is made once.
            loop {
                let again = send(shop.replica()).await;
                if again.status().is_success() {
                    break;
                }
                let (status, slug, _) = problem(again).await;
                assert_eq!(status, 503, "{strategy}: {what}: {slug}");
            }
            let audit = shop.audit().await;
            assert_eq!((audit.supply, audit.balanced), (supply, true), "{strategy}: {what}");
        }
    }
}
