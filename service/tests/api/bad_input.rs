//! Bad input: a problem that names the field, and nothing written.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::helpers::{SKU, Shop, TOKEN, problem};

async fn post(shop: &Shop, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let replica = shop.replica();
    let request = replica.http.post(format!("{}/v1/orders", replica.url));
    request.header("content-type", content_type).body(body).send().await.expect("an answer")
}

async fn assert_nothing_written(shop: &Shop) {
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.version, audit.orders), (3, 0, 0));
}

#[tokio::test]
async fn an_order_with_wrong_fields_names_them() {
    let shop = Shop::open("database", 3).await;
    let long = "x".repeat(10_000);
    let good = || json!({"sku": SKU, "quantity": 1, "buyer": "A"});
    let with = |field: &str, value: Value| {
        let mut body = good();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = good();
        body.as_object_mut().expect("an object").remove(field);
        body
    };
    for (body, fields) in [
        (with("quantity", json!(0)), &["quantity"][..]),
        (with("quantity", json!(-1)), &["quantity"]),
        (with("quantity", json!(i64::MAX)), &["quantity"]),
        (with("quantity", json!(u64::MAX)), &["quantity"]),
        (with("quantity", json!(1e300)), &["quantity"]),
        (with("quantity", json!(1.5)), &["quantity"]),
        (with("quantity", json!("1")), &["quantity"]),
        (with("quantity", json!(null)), &["quantity"]),
        (with("quantity", json!([1])), &["quantity"]),
        (with("buyer", json!("")), &["buyer"]),
        (with("buyer", json!("   ")), &["buyer"]),
        (with("buyer", json!("A\u{0}B")), &["buyer"]),
        (with("buyer", json!("A\nB")), &["buyer"]),
        (with("buyer", json!(long.as_str())), &["buyer"]),
        (with("buyer", json!(7)), &["buyer"]),
        (with("sku", json!("")), &["sku"]),
        (with("sku", json!("hair dryer")), &["sku"]),
        (with("sku", json!("'; drop table orders; --")), &["sku"]),
        (with("sku", json!(long.as_str())), &["sku"]),
        (with("sku", json!("é")), &["sku"]),
        (with("price", json!(1)), &["price"]),
        (without("sku"), &["sku"]),
        (without("quantity"), &["quantity"]),
        (json!({"quantity": "x", "buyer": 1, "colour": 2}), &["sku", "quantity", "buyer", "colour"]),
        (json!({"sku": "!", "quantity": 0, "buyer": ""}), &["sku", "quantity", "buyer"]),
    ] {
        let response = post(&shop, "application/json", body.to_string()).await;
        assert_eq!(response.status(), 422, "{body}");
        let answer: Value = response.json().await.unwrap();
        let named: Vec<_> =
            answer["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{body}");
        assert_eq!(answer["outcome"], "not_executed");
    }
    assert_nothing_written(&shop).await;
}

#[tokio::test]
async fn what_is_not_a_json_object_is_malformed() {
    let shop = Shop::open("database", 3).await;
    let twice = format!(r#"{{"sku":"{SKU}","quantity":1,"quantity":2,"buyer":"A"}}"#);
    for body in ["", "{", "null", "[]", "7", "\"x\"", "{\"sku\":}", "\u{feff}{}", "{}{}", twice.as_str()] {
        let (status, slug, outcome) = problem(post(&shop, "application/json", body.to_owned()).await).await;
        assert_eq!(
            (status, slug.as_str(), outcome.as_deref()),
            (400, "malformed", Some("not_executed")),
            "{body}"
        );
    }
    let not_utf8 = problem(post(&shop, "application/json", vec![b'"', 0xff, b'"']).await).await;
    assert_eq!(not_utf8.0, 400);
    let deep = "[".repeat(60_000);
    assert_eq!(problem(post(&shop, "application/json", deep).await).await.0, 400);
    assert_nothing_written(&shop).await;
}

#[tokio::test]
async fn other_types_and_sizes_are_refused() {
    let shop = Shop::open("database", 3).await;
    let good = json!({"sku": SKU, "quantity": 1, "buyer": "A"}).to_string();
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "json", "application/jsonp", "\u{e9}"]
    {
        let response = post(&shop, content_type, good.clone()).await;
        assert_eq!(problem(response).await.1, "unsupported-media-type", "{content_type}");
    }
    let huge = problem(post(&shop, "application/json", vec![b' '; 10_000_000]).await).await;
    assert_eq!(huge, (413, "payload-too-large".into(), Some("not_executed".into())));
    assert_nothing_written(&shop).await;
    let with_charset = post(&shop, "application/json; charset=utf-8", good.clone()).await;
    assert_eq!(with_charset.status(), 201);
    assert_eq!(post(&shop, "application/vnd.shop+json", good).await.status(), 201);
}

#[tokio::test]
async fn a_bad_idempotency_key_is_refused() {
    let shop = Shop::open("database", 3).await;
    let long = "k".repeat(256);
    let body = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
    for key in ["a b", long.as_str(), ""] {
        let (status, slug, _) = problem(shop.replica().order_with(&body, Some(key)).await).await;
        assert_eq!((status, slug.as_str()), (422, "validation"), "{key}");
    }
    assert_nothing_written(&shop).await;
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    for (path, status, named) in [
        ("/v1/orders?cursor=nonsense", 422, "cursor"),
        ("/v1/orders?limit=0", 422, "limit"),
        ("/v1/orders?limit=1001", 422, "limit"),
        ("/v1/orders?limit=-1", 422, "limit"),
        ("/v1/orders?limit=ten", 422, "limit"),
        ("/v1/orders?sku=a%20b", 422, "sku"),
        ("/v1/orders?colour=red", 400, "colour"),
        ("/v1/orders?limit=1&limit=2", 400, "limit"),
        ("/v1/orders/7", 400, "id"),
        ("/v1/orders/%ff", 400, "UTF-8"),
        ("/v1/products/a%20b", 422, "sku"),
        ("/v1/products/hair-dryer/stock?read=never", 422, "read"),
    ] {
        let response = replica.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        let detail: Value = response.json().await.unwrap();
        assert!(detail["detail"].as_str().unwrap().contains(named), "{path}: {detail}");
    }
}

#[tokio::test]
async fn bad_products_are_refused() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    for (method, path, body, field) in [
        (Method::PUT, "/v1/admin/products/a%20b", json!({"name": "x", "stock": 1}), "sku"),
        (Method::PUT, "/v1/admin/products/x", json!({"name": "x", "stock": -1}), "stock"),
        (Method::PUT, "/v1/admin/products/x", json!({"name": "x", "stock": 1_000_000_001}), "stock"),
        (Method::PUT, "/v1/admin/products/x", json!({"name": "", "stock": 1}), "name"),
        (Method::PUT, "/v1/admin/products/x", json!({"name": "\u{7f}", "stock": 1}), "name"),
        (
            Method::POST,
            "/v1/admin/products/hair-dryer/restock",
            json!({"quantity": 0, "reason": "x"}),
            "quantity",
        ),
        (Method::POST, "/v1/admin/products/hair-dryer/restock", json!({"quantity": 1}), "reason"),
    ] {
        let request = replica.http.request(method, format!("{}{path}", replica.url)).bearer_auth(TOKEN);
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), 422, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(replica.get("/v1/products/x").await.status(), 404);
    assert_nothing_written(&shop).await;
}

#[tokio::test]
async fn a_method_that_is_not_known_is_told_which_are() {
    let shop = Shop::open("database", 3).await;
    let replica = shop.replica();
    let response = replica.http.delete(format!("{}/v1/orders", replica.url)).send().await.unwrap();
    assert!(response.headers()["allow"].to_str().unwrap().contains("POST"));
    assert_eq!(problem(response).await.1, "method-not-allowed");
}
