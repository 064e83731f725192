//! Orders: placed, read, listed, cancelled.

use futures_util::future::join_all;
use order_service::api::{Order, OrderStatus};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::helpers::{SKU, Shop, count, problem};

#[tokio::test(flavor = "multi_thread")]
async fn sells_exactly_the_stock_under_every_strategy_that_says_so() {
    for (strategy, replicas, keys) in [
        ("local", 1, &[][..]),
        ("database", 3, &[]),
        ("database", 3, &[("checkout.max_batch", "1")]),
        ("row", 3, &[]),
        ("optimistic", 3, &[]),
    ] {
        for _ in 0..3 {
            // However slow the machine is, no order is to be refused for want of time.
            let long_timeouts = [("lock.wait", "60s"), ("server.request_timeout", "60s")];
            let shop = Shop::with(replicas, strategy, 50, &[keys, &long_timeouts].concat()).await;
            let orders = (0..150).map(|i| {
                let replica = &shop.replicas[i % replicas];
                async move { replica.order(&format!("buyer-{i}"), 1).await }
            });
            let answers = join_all(orders).await;
            assert_eq!((count(&answers, 201), count(&answers, 409)), (50, 100), "{strategy} {keys:?}");
            let audit = shop.audit().await;
            assert_eq!(
                (audit.units_sold, audit.stock, audit.balanced),
                (50, 0, true),
                "{strategy}: {audit:?}"
            );
            assert_eq!(audit.duplicate_reads, [], "{strategy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lock_two_buyers_share_the_last_dryer() {
    let shop = Shop::with(2, "none", 1, &[("checkout.think_time", "300ms")]).await;
    let (a, b) = tokio::join!(shop.replicas[0].order("A", 1), shop.replicas[1].order("B", 1));
    assert_eq!((a.status().as_u16(), b.status().as_u16()), (201, 201));
    let audit = shop.audit().await;
    assert_eq!((audit.units_sold, audit.oversold_units, audit.balanced), (2, 1, false));
    assert_eq!(audit.duplicate_reads.len(), 1);
    assert_eq!(audit.duplicate_reads[0].stock_before, 1);
}

#[tokio::test]
async fn first_come_first_served_as_far_as_the_stock_goes() {
    let shop = Shop::open("database", 2).await;
    let replica = shop.replica();
    let first = replica.order("A", 1).await;
    assert_eq!(first.status(), 201);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let order: Order = first.json().await.unwrap();
    assert_eq!((order.stock_before, order.stock_after, order.version), (2, 1, 1));
    assert_eq!(order.lock.strategy, "database");
    assert!(order.lock.fencing_token.is_some_and(|token| token > 0), "{order:?}");
    assert_eq!(location, format!("/v1/orders/{}", order.id));
    assert_eq!(replica.get(&location).await.json::<Order>().await.unwrap(), order);

    let refused = replica.order("B", 2).await;
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["type"], "/problems/insufficient-stock");
    assert_eq!((&refused["requested"], &refused["available"]), (&json!(2), &json!(1)));
    assert_eq!(refused["outcome"], "not_executed");

    assert_eq!(replica.order("C", 1).await.status(), 201);
    assert_eq!(shop.audit().await.stock, 0);
}

#[tokio::test]
async fn a_cancelled_order_puts_its_units_back_once() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    let order: Order = replica.order("A", 2).await.json().await.unwrap();
    let cancel = format!("/v1/orders/{}/cancel", order.id);
    // At the same moment, so that some of them meet in one batch.
    let answers = join_all((0..10).map(|_| replica.post(&cancel))).await;
    assert_eq!((count(&answers, 200), count(&answers, 409)), (1, 9));
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.orders, audit.version), (3, 0, 1, 2));
    assert!(audit.balanced);
    let order: Order = replica.get(&format!("/v1/orders/{}", order.id)).await.json().await.unwrap();
    assert_eq!(order.status, OrderStatus::Cancelled);
    let again = problem(replica.post(&cancel).await).await;
    assert_eq!(again, (409, "not-cancellable".into(), Some("not_executed".into())));
    let adjustments: Value = replica.admin(Method::GET, "/adjustments", None).await.json().await.unwrap();
    assert_eq!(adjustments["adjustments"][0]["delta"], 2);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    let unknown = Uuid::new_v4();
    for (response, slug) in [
        (replica.get(&format!("/v1/orders/{unknown}")).await, "no-such-order"),
        (replica.post(&format!("/v1/orders/{unknown}/cancel")).await, "no-such-order"),
        (replica.get("/v1/products/comb").await, "no-such-product"),
        (replica.get("/v1/products/comb/stock?read=locked").await, "no-such-product"),
        (
            replica.order_with(&json!({"sku": "comb", "quantity": 1, "buyer": "A"}), None).await,
            "no-such-product",
        ),
        (replica.get("/v1/nothing").await, "no-such-route"),
    ] {
        let (status, found, _) = problem(response).await;
        assert_eq!((status, found.as_str()), (404, slug));
    }
}

#[tokio::test]
async fn pages_list_every_order_once_oldest_first() {
    let shop = Shop::open("database", 100).await;
    let replica = shop.replica();
    for i in 0..25 {
        assert_eq!(replica.order(&format!("buyer-{i}"), 1).await.status(), 201);
    }
    let (mut buyers, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Value =
            replica.get(&format!("/v1/orders?sku={SKU}&limit=10{cursor}")).await.json().await.unwrap();
        let orders = page["orders"].as_array().unwrap();
        buyers.extend(orders.iter().map(|order| order["buyer"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(buyers, (0..25).map(|i| format!("buyer-{i}")).collect::<Vec<_>>());
}
