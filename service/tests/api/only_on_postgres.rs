//! What only a server can suffer: to be gone for a while.

use serde_json::json;
use sqlx::Connection as _;

use crate::helpers::{Shop, problem};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_answered_clearly_and_survived() {
    for strategy in ["database", "row", "optimistic"] {
        let keys = [("store.timeout", "1s"), ("lock.wait", "1s")];
        let mut shop = Shop::on_a_server_of_its_own(1, strategy, 100, &keys).await;
        assert_eq!(shop.replica().order("before", 1).await.status(), 201);
        shop.server().kill().await.expect("the server is killed");
        for buyer in ["first", "second"] {
            let (status, slug, outcome) = problem(shop.replica().order(buyer, 1).await).await;
            // A commit under way when the connection broke would be of unknown outcome; these never got so far.
            assert_eq!((status, outcome.as_deref()), (503, Some("not_executed")), "{strategy}: {slug}");
            assert_eq!(slug, "dependency-down", "{strategy}");
        }
        let (status, slug, _) = problem(shop.replica().get("/readyz").await).await;
        assert_eq!((status, slug.as_str()), (503, "dependency-down"), "{strategy}");
        shop.server().restart().await.expect("the server starts again");
        let again = shop.replica().order("after", 1).await;
        assert_eq!(again.status(), 201, "{strategy}: {}", again.text().await.expect("a body"));
        assert_eq!(shop.replica().get("/readyz").await.status(), 200, "{strategy}");
        let audit = shop.audit().await;
        assert_eq!((audit.orders, audit.balanced), (2, true), "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_keeps_nobody_waiting_for_ever() {
    let keys = [("store.timeout", "500ms"), ("lock.wait", "500ms"), ("server.request_timeout", "1s")];
    let mut shop = Shop::on_a_server_of_its_own(1, "database", 100, &keys).await;
    assert_eq!(shop.replica().order("before", 1).await.status(), 201);
    shop.server().pause().expect("the server is stopped");
    let asked = std::time::Instant::now();
    let (status, _, outcome) = problem(shop.replica().order("during", 1).await).await;
    assert!(asked.elapsed() < std::time::Duration::from_secs(4), "answered after {:?}", asked.elapsed());
    assert!(matches!((status, outcome.as_deref()), (503, Some("not_executed")) | (504, Some("unknown"))));
    shop.server().resume().expect("the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_transaction_has_locked_keep_no_other_product_waiting() {
    for strategy in ["database", "row", "optimistic", "local"] {
        let keys = [("lock.wait", "1s"), ("store.timeout", "1s"), ("server.request_timeout", "2s")];
        let mut shop = Shop::on_a_server_of_its_own(1, strategy, 100, &keys).await;
        // As many as there are commits at a time, and one more.
        for sku in ["second", "third", "other"] {
            let url = format!("{}/v1/admin/products/{sku}", shop.replica().url);
            let created = shop.replica().http.put(url).bearer_auth(crate::helpers::TOKEN);
            let created = created.json(&json!({"name": "Product", "stock": 100})).send().await;
            assert_eq!(created.expect("an answer").status(), 201);
        }
        let server = shop.server().url("postgres");
        let mut stranger = sqlx::PgConnection::connect(&server).await.expect("a connection");
        sqlx::raw_sql("begin; select 1 from products where sku <> 'other' for update")
            .execute(&mut stranger)
            .await
            .expect("the row is locked");
        let replica = shop.replica();
        let body = json!({"sku": "other", "quantity": 1, "buyer": "A"});
        let [second, third] = ["second", "third"].map(|sku| json!({"sku": sku, "quantity": 1, "buyer": "A"}));
        let stuck = async {
            tokio::join!(
                replica.order("A", 1),
                replica.order_with(&second, None),
                replica.order_with(&third, None)
            )
        };
        let (stuck, others) = tokio::join!(stuck, async {
            let begun = std::time::Instant::now();
            for _ in 0..20 {
                assert_eq!(replica.order_with(&body, None).await.status(), 201, "{strategy}");
            }
            begun.elapsed()
        });
        assert!(others < std::time::Duration::from_millis(800), "{strategy}: {others:?}");
        for stuck in [stuck.0, stuck.1, stuck.2] {
            let (status, _, outcome) = problem(stuck).await;
            assert_eq!((status, outcome.as_deref()), (503, Some("not_executed")), "{strategy}");
        }
        sqlx::raw_sql("rollback").execute(&mut stranger).await.expect("the row is free");
        assert_eq!(replica.order("A", 1).await.status(), 201, "{strategy}");
        assert_eq!(shop.audit().await.orders, 1, "{strategy}");
    }
}
