//! What browsers are told.

use reqwest::Response;

use crate::helpers::{SKU, Shop, TOKEN};

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let values: Vec<_> = answer.headers().get_all(name).iter().collect();
    assert_eq!(values.len(), 1, "{} has {name} {} times", answer.url(), values.len());
    values[0].to_str().expect("ASCII")
}

#[tokio::test]
async fn every_answer_says_that_it_is_for_no_other_page_and_not_to_be_kept() {
    let shop = Shop::with(1, "database", 3, &[("server.rate_limit", "1000")]).await;
    let replica = shop.replica();
    let mut answers = Vec::new();
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/info",
        "/v1/products",
        "/v1/orders",
        &format!("/v1/products/{SKU}/stock?read=locked"),
        "/v1/products/none",
        "/v1/orders?limit=0",
        "/v1/orders/no-uuid",
        &format!("/v1/admin/products/{SKU}/audit"),
        "/nowhere",
        "/",
    ] {
        answers.push(replica.get(path).await);
    }
    answers.push(replica.order("A", 1).await);
    answers.push(replica.order("A", 100).await);
    answers.push(replica.post("/livez").await);
    answers.push(replica.admin(reqwest::Method::GET, "/audit", None).await);
    for answer in &answers {
        assert_eq!(header(answer, "cache-control"), "no-store");
        let policy = header(answer, "content-security-policy");
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
    }
    for path in ["/docs", "/docs/", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/none"] {
        let answer = replica.get(path).await;
        let policy = header(&answer, "content-security-policy");
        assert!(
            policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        answers.push(answer);
    }
    for answer in &answers {
        assert_eq!(header(answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(answer, "referrer-policy"), "no-referrer");
        assert_eq!(header(answer, "x-frame-options"), "DENY");
        for told in ["server", "x-powered-by", "via"] {
            assert!(!answer.headers().contains_key(told), "{} says what it is made of: {told}", answer.url());
        }
    }
    let statuses: std::collections::BTreeSet<_> = answers.iter().map(|a| a.status().as_u16()).collect();
    assert!([200, 201, 400, 401, 404, 405, 409, 422].iter().all(|s| statuses.contains(s)), "{statuses:?}");
    assert!(answers.iter().all(|answer| !format!("{:?}", answer.headers()).contains(TOKEN)));
}
