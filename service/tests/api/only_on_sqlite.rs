//! What only a file can suffer.

use crate::helpers::{Shop, problem};

#[tokio::test]
async fn readiness_names_the_dependency_that_is_gone() {
    let shop = Shop::open("database", 1).await;
    let file = shop.directory().join("shop.db");
    std::fs::write(&file, b"this is no database").unwrap();
    std::fs::remove_file(file.with_extension("db-wal")).unwrap();
    let (status, slug, _) = problem(shop.replica().get("/readyz").await).await;
    assert_eq!((status, slug.as_str()), (503, "dependency-down"));
    assert_eq!(shop.replica().get("/livez").await.status(), 200);
}
