//! Products: read, restocked, reset, audited; and who may.

use reqwest::Method;
use serde_json::{Value, json};

use crate::helpers::{SKU, Shop, problem};

#[tokio::test]
async fn a_restock_is_supply() {
    let shop = Shop::open("database", 1).await;
    let restock = json!({"quantity": 4, "reason": "delivery"});
    let response = shop.replica().admin(Method::POST, "/restock", Some(restock)).await;
    assert_eq!(response.status(), 201);
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.supply, audit.version, audit.balanced), (5, 5, 1, true));
    assert_eq!(shop.replica().order("A", 5).await.status(), 201);
}

#[tokio::test]
async fn a_reset_deletes_the_orders_and_goes_on_counting_versions() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    assert_eq!(replica.order("A", 2).await.status(), 201);
    let body = json!({"name": "Better hair dryer", "stock": 7});
    let reset = replica.admin(Method::PUT, "", Some(body)).await;
    assert_eq!(reset.status(), 200);
    let reset: Value = reset.json().await.unwrap();
    let product: Value = replica.get(&format!("/v1/products/{SKU}")).await.json().await.unwrap();
    assert_eq!(product, reset);
    assert_eq!(
        (&product["stock"], &product["supply"], &product["version"]),
        (&json!(7), &json!(7), &json!(2))
    );
    assert_eq!(product["name"], "Better hair dryer");
    assert_eq!(shop.audit().await.orders, 0);
}

#[tokio::test]
async fn a_reset_needs_permission() {
    let shop = Shop::with(1, "database", 3, &[("admin.allow_reset", "false")]).await;
    let reset = shop.replica().admin(Method::PUT, "", Some(json!({"name": "x", "stock": 7}))).await;
    assert_eq!(problem(reset).await.1, "reset-not-allowed");
    assert_eq!(shop.audit().await.stock, 3);
}

#[tokio::test]
async fn admin_calls_need_the_token() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    let url = format!("{}/v1/admin/products/{SKU}/audit", replica.url);
    let without = replica.http.get(&url).send().await.unwrap();
    assert_eq!(without.headers()["www-authenticate"], "Bearer");
    assert_eq!(problem(without).await.0, 401);
    let wrong = replica.http.get(&url).bearer_auth("secre").send().await.unwrap();
    assert_eq!(problem(wrong).await.1, "unauthorized");

    let mut closed = Shop::open("database", 3).await;
    closed.add_replica("database", &[("admin.token", "")]).await;
    let disabled = closed.replicas[1].admin(Method::GET, "/audit", None).await;
    assert_eq!(problem(disabled).await, (403, "admin-disabled".into(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_read_waits_for_the_writer_and_a_latest_one_does_not() {
    let shop = Shop::with(2, "database", 3, &[("checkout.think_time", "300ms")]).await;
    let stock = |read: &'static str| {
        let replica = &shop.replicas[1];
        async move {
            replica.until_locked().await;
            let answer = replica.get(&format!("/v1/products/{SKU}/stock?read={read}")).await;
            answer.json::<Value>().await.unwrap()["stock"].as_i64().unwrap()
        }
    };
    let (order, locked, latest) =
        tokio::join!(shop.replica().order("A", 1), stock("locked"), stock("latest"));
    assert_eq!(order.status(), 201);
    assert_eq!((locked, latest), (2, 3));
}
