//! Who may list and cancel orders, and where the admin's calls are.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::helpers::{Replica, SKU, Shop, TOKEN, problem};

const SERVER_TOKEN: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A listing of the orders, or a cancellation of this one.
async fn call(replica: &Replica, cancel: Option<&str>, token: Option<&str>) -> Response {
    let request = match cancel {
        None => replica.http.get(format!("{}/v1/orders", replica.url)),
        Some(id) => replica.http.post(format!("{}/v1/orders/{id}/cancel", replica.url)),
    };
    let request = match token {
        None => request,
        Some(token) => request.bearer_auth(token),
    };
    request.send().await.expect("an answer")
}

async fn place(replica: &Replica) -> String {
    let order: Value = replica.order("A", 1).await.json().await.expect("an order");
    order["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn where_there_is_a_token_orders_are_listed_and_cancelled_with_it_only() {
    let keys = [("server.token", SERVER_TOKEN), ("checkout.payment_window", "10m")];
    let shop = Shop::with(1, "database", 5, &keys).await;
    let replica = shop.replica();
    let id = place(replica).await;
    for cancel in [None, Some(id.as_str())] {
        for wrong in [None, Some("wrong"), Some(""), Some(&SERVER_TOKEN[1..])] {
            let refused = call(replica, cancel, wrong).await;
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            let outcome = cancel.map(|_| "not_executed".to_owned());
            assert_eq!(problem(refused).await, (401, "unauthorized".into(), outcome), "{wrong:?}");
        }
    }
    // Whoever knows an order may see it and pay it.
    assert_eq!(replica.get(&format!("/v1/orders/{id}")).await.status(), 200);
    assert_eq!(replica.pay_with(&id, None).await.status(), 200);
    for token in [SERVER_TOKEN, TOKEN] {
        let listed: Value = call(replica, None, Some(token)).await.json().await.expect("a page");
        assert_eq!(listed["orders"][0]["id"], id);
    }
    assert_eq!(call(replica, Some(&id), Some(SERVER_TOKEN)).await.status(), 200);
    assert_eq!(call(replica, Some(&place(replica).await), Some(TOKEN)).await.status(), 200);
    // It is no admin token.
    let audit = format!("{}/v1/admin/products/{SKU}/audit", replica.url);
    let audit = replica.http.get(audit).bearer_auth(SERVER_TOKEN).send().await.expect("an answer");
    assert_eq!(problem(audit).await.0, 401);
}

#[tokio::test]
async fn without_a_token_that_is_open_on_this_machine_and_forbidden_elsewhere() {
    let mut shop = Shop::open("database", 5).await;
    let id = place(shop.replica()).await;
    assert_eq!(call(shop.replica(), None, None).await.status(), 200);
    assert_eq!(call(shop.replica(), Some(&id), None).await.status(), 200);

    // A page of another site, and a name that another has pointed to this machine.
    for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("host", "evil.example")] {
        let replica = shop.replica();
        let asked = replica.http.get(format!("{}/v1/orders", replica.url)).header(name, value);
        let refused = asked.send().await.expect("an answer");
        assert_eq!(refused.status(), 403, "{name}: {value}");
    }
    let own = shop.replica().http.get(format!("{}/v1/orders", shop.replica().url));
    let own = own.header("origin", &shop.replica().url).header("host", "localhost:1").send().await;
    assert_eq!(own.expect("an answer").status(), 200);

    shop.add_replica("database", &[("server.listen", "0.0.0.0:0")]).await;
    let public = &shop.replicas[1];
    let id = place(public).await;
    for cancel in [None, Some(id.as_str())] {
        for token in [None, Some("wrong"), Some("")] {
            let refused = call(public, cancel, token).await;
            let outcome = cancel.map(|_| "not_executed".to_owned());
            assert_eq!(problem(refused).await, (403, "order-desk-disabled".into(), outcome));
        }
    }
    let detail: Value = call(public, None, None).await.json().await.expect("a problem");
    assert!(detail["detail"].as_str().is_some_and(|detail| detail.contains("server.token")), "{detail}");
    assert_eq!(shop.audit().await.units_sold, 1, "the order is confirmed");
    assert_eq!(call(public, None, Some(TOKEN)).await.status(), 200);
    assert_eq!(call(public, Some(&id), Some(TOKEN)).await.status(), 200);
}

#[tokio::test]
async fn the_admins_calls_are_at_their_own_address_only() {
    let shop = Shop::with(1, "database", 5, &[("admin.listen", "127.0.0.1:0")]).await;
    let replica = shop.replica();
    assert_ne!(replica.url, replica.admin_url);
    let get = |base: &str, path: &str| {
        let request = replica.http.get(format!("{base}{path}")).bearer_auth(TOKEN);
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    let audit = format!("/v1/admin/products/{SKU}/audit");
    for (path, public, admin) in [
        (audit.as_str(), 404, 200),
        ("/metrics", 404, 200),
        ("/v1/orders", 200, 404),
        ("/v1/products", 200, 404),
        ("/v1/info", 200, 404),
        ("/docs/", 200, 404),
        ("/openapi.json", 200, 404),
        ("/livez", 200, 200),
        ("/readyz", 200, 200),
    ] {
        let seen = (get(&replica.url, path).await, get(&replica.admin_url, path).await);
        assert_eq!(seen, (public, admin), "{path}");
    }
    let description: Value = replica.get("/openapi.json").await.json().await.expect("a description");
    assert!(description["paths"]["/v1/admin/products/{sku}/audit"].is_object(), "it is described");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_admins_calls_at_their_own_address() {
    let keys = [("admin.listen", "127.0.0.1:0"), ("checkout.think_time", "500ms"), ("server.drain", "1s")];
    let mut shop = Shop::with(1, "database", 5, &keys).await;
    let mut stopping = shop.replicas.remove(0);
    let (url, http) = (stopping.admin_url.clone(), stopping.http.clone());
    let stopped = stopping.stop();
    while http.get(format!("{url}/readyz")).send().await.expect("an answer").status() != 503 {}
    let restock = http.post(format!("{url}/v1/admin/products/{SKU}/restock")).bearer_auth(TOKEN);
    let restock = restock.json(&json!({"quantity": 4, "reason": "late"})).send().await.expect("an answer");
    assert_eq!(restock.status(), 201);
    stopped.await.expect("the replica stops");
    assert!(http.get(format!("{url}/livez")).send().await.is_err(), "nobody listens any more");
    shop.add_replica("database", &[]).await;
    let audit = shop.replica().admin(Method::GET, "/audit", None).await;
    let audit: Value = audit.json().await.expect("an audit");
    assert_eq!(audit["stock"], 9);
}
