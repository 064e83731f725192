//! The same idempotency key, sent again.

use futures_util::future::join_all;
use order_service::api::Order;
use reqwest::Method;
use serde_json::{Value, json};

use crate::helpers::{SKU, Shop, count, problem};

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
