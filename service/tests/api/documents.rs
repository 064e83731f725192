//! The OpenAPI description.

use crate::helpers::Shop;

#[test]
fn openapi_yaml_is_what_the_service_says_of_itself() {
    let kept =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml")).unwrap_or_default();
    assert!(
        kept == order_service::http::openapi_yaml(),
        "openapi.yaml has drifted: run `cargo run -p order-service -- openapi > openapi.yaml`"
    );
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let shop = Shop::open("database", 3).await;
    let description: serde_json::Value = shop.replica().get("/openapi.json").await.json().await.unwrap();
    assert!(description["paths"]["/v1/orders"]["post"].is_object());
    let page = shop.replica().get("/docs/").await;
    assert!(page.text().await.unwrap().contains("swagger-ui"));
}
