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

#[test]
fn each_environment_that_the_readme_names_has_the_test_that_it_names() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).expect("the README");
    let mut sections = readme.split("## ");
    let section = sections.find(|section| section.starts_with("Where it runs")).expect("the section");
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let (_, link) = row.rsplit_once("](").expect(row);
        let (file, test) = link.split_once(')').expect(row);
        let test = test.trim_matches([' ', '|', '`']);
        let source = std::fs::read_to_string(format!("{root}/{file}")).expect(row);
        assert!(source.contains(&format!("async fn {test}()")), "{file} has no test {test}");
    }
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let shop = Shop::open("database", 3).await;
    let description: serde_json::Value = shop.replica().get("/openapi.json").await.json().await.unwrap();
    assert!(description["paths"]["/v1/orders"]["post"].is_object());
    let page = shop.replica().get("/docs/").await;
    assert!(page.text().await.unwrap().contains("swagger-ui"));
}
