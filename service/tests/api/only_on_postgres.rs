//! What only a server can suffer: to be gone for a while.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use lab::{Postgres, Server as _};
use serde_json::json;
use sqlx::Connection as _;

use crate::helpers::{Shop, problem};

/// A server whose database has these defaults.
async fn server_with(defaults: &[&str]) -> Postgres {
    let server = Postgres::start().await.expect("PostgreSQL starts");
    let set = defaults.iter().map(|default| format!("alter database postgres set {default};"));
    server.query(&set.collect::<String>()).await.expect("they are set");
    server
}

/// A server that confirms before anything is on the disk loses the last moments in a crash.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_survives_a_crash_whatever_the_defaults_of_the_database() {
    for strategy in ["database", "row", "optimistic"] {
        for round in 0..3 {
            let server = server_with(&["synchronous_commit = off"]).await;
            // So that nothing gets onto the disk in time by chance.
            server.query("alter system set wal_writer_delay = '10s'").await.expect("it is set");
            server.query("select pg_reload_conf()").await.expect("it is read");
            let mut shop = Shop::on_server(server, 1, strategy, 1_000, &[("store.timeout", "1s")]).await;
            let orders =
                join_all((0..20).map(|_| async { shop.replica().order("A", 1).await.status() })).await;
            let confirmed = orders.iter().filter(|status| **status == 201).count();
            assert_eq!(confirmed, 20, "{strategy}: {orders:?}");
            shop.server().kill().await.expect("the server is killed");
            shop.server().restart().await.expect("the server starts again");
            let audit = shop.audit().await;
            assert_eq!((audit.orders, audit.balanced), (20, true), "{strategy}, round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_of_the_database_change_nothing() {
    let defaults = [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "lock_timeout = '1ms'",
        "statement_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "plan_cache_mode = 'force_custom_plan'",
        "datestyle = 'German'",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = -10",
        "intervalstyle = 'sql_standard'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
    ];
    for strategy in ["database", "row", "optimistic"] {
        let shop = Shop::on_server(server_with(&defaults).await, 2, strategy, 1_000, &[]).await;
        let answers = join_all((0..200).map(|i| shop.replicas[i % 2].order("A", 1))).await;
        for answer in answers {
            let status = answer.status();
            assert_eq!(status, 201, "{strategy}: {:?}", answer.text().await);
        }
        let audit = shop.audit().await;
        assert_eq!((audit.orders, audit.stock, audit.balanced), (200, 800, true), "{strategy}");
    }
}

/// What was replaced or deleted cannot be cleared away meanwhile: a backup, or a report.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_transaction_that_stays_open_no_order_looks_at_all_that_was_sold_since() {
    const ORDERS: usize = 500;
    let textbook = [("checkout.max_batch", "1")];
    let mut shop = Shop::on_a_server_of_its_own(2, "database", 10_000, &textbook).await;
    let mut elsewhere = sqlx::PgConnection::connect(&shop.server().url()).await.expect("a connection");
    let open = "begin isolation level repeatable read; select count(*) from products";
    sqlx::raw_sql(open).execute(&mut elsewhere).await.expect("it is open");
    for _ in 0..2 {
        let orders = stream::iter(0..ORDERS).map(|order| shop.replicas[order % 2].order("A", 1));
        let orders: Vec<_> = orders.buffer_unordered(16).collect().await;
        assert_eq!(orders.iter().filter(|order| order.status() == 201).count(), ORDERS);
        // Tables that are empty, or nearly, and statistics that say so: all plans cost the same.
        for table in ["locks", "lock_waiters", "products"] {
            shop.server().query(&format!("vacuum analyze {table}")).await.expect("it is cleared in vain");
        }
    }
    // Sessions have told what they did when they have ended.
    for replica in &mut shop.replicas {
        replica.stop().await.expect("it stops");
    }
    let sessions = "select count(*) from pg_stat_activity where application_name = 'order-service'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while shop.server().query(sessions).await.expect("an answer") != "0" {
        assert!(Instant::now() < deadline, "a session of a replica is still there");
    }
    // How often a product is looked for by its key, and how many records and tickets are looked at.
    let read = "select relname, case relname when 'products' then sum(idx_scan) else sum(idx_tup_read) end
        from pg_stat_user_indexes group by relname";
    let read = shop.server().query(read).await.expect("an answer");
    for (table, most) in [("locks", 80 * ORDERS), ("lock_waiters", 80 * ORDERS), ("products", ORDERS / 4)] {
        let looks = read.lines().find_map(|line| line.strip_prefix(&format!("{table}|"))).expect(&read);
        let looks: usize = looks.parse().expect("a number");
        assert!(looks < most, "{looks} looks at {table} for {} orders", 2 * ORDERS);
    }
    sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_has_orders_cannot_be_deleted_or_named_otherwise() {
    let mut shop = Shop::on_a_server_of_its_own(1, "database", 10, &[]).await;
    let others = "insert into products (sku, name, stock, version, supply, created_at)
        values ('other', 'Other', 1, 0, 1, now())";
    shop.server().query(others).await.expect("it is inserted");
    assert_eq!(shop.replica().order("A", 1).await.status(), 201);
    for statement in ["delete from products", "update products set sku = 'dryer' where sku = 'hair-dryer'"] {
        let refused = shop.server().query(statement).await.expect_err("it has an order");
        assert!(refused.to_string().contains("product \"hair-dryer\" has orders"), "{refused}");
    }
    shop.server().query("update products set sku = 'sold' where sku = 'other'").await.expect("it has none");
    shop.server().query("delete from products where sku = 'sold'").await.expect("it has none");
}

/// The next version's columns are added while this one is running.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_added_while_it_runs_stop_no_replica() {
    for strategy in ["database", "row", "optimistic", "none"] {
        let mut shop = Shop::on_a_server_of_its_own(2, strategy, 1_000, &[]).await;
        let paths =
            ["/v1/products", "/v1/products/hair-dryer", "/v1/products/hair-dryer/stock", "/v1/orders"];
        let all = async |shop: &Shop, when: &str| {
            for replica in &shop.replicas {
                for _ in 0..4 {
                    let order = replica.order("A", 1).await;
                    assert_eq!(order.status(), 201, "{strategy}, {when}");
                    let order: serde_json::Value = order.json().await.expect("an order");
                    let id = order["id"].as_str().expect("an id");
                    let cancelled = replica.post(&format!("/v1/orders/{id}/cancel")).await;
                    assert_eq!(cancelled.status(), 200, "{strategy}, {when}");
                    assert_eq!(
                        replica.get(&format!("/v1/orders/{id}")).await.status(),
                        200,
                        "{strategy}, {when}"
                    );
                    for path in paths {
                        assert_eq!(replica.get(path).await.status(), 200, "{strategy}, {when}: {path}");
                    }
                    for path in ["/adjustments", "/audit", "/lock", "/holds"] {
                        let answer = replica.admin(reqwest::Method::GET, path, None).await;
                        assert_eq!(answer.status(), 200, "{strategy}, {when}: {path}");
                    }
                }
            }
        };
        all(&shop, "before").await;
        for table in ["products", "orders", "stock_adjustments", "locks", "lock_waiters"] {
            let add = format!("alter table {table} add column note text not null default 'none'");
            shop.server().query(&add).await.expect("the column is added");
        }
        all(&shop, "after").await;
        assert!(shop.audit().await.balanced);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_answered_clearly_and_survived() {
    for strategy in ["database", "row", "optimistic"] {
        let keys = [("store.timeout", "1s"), ("lock.wait", "1s")];
        let mut shop = Shop::on_a_server_of_its_own(1, strategy, 100, &keys).await;
        assert_eq!(shop.replica().order("before", 1).await.status(), 201);
        shop.server().kill().await.expect("the server is killed");
        for buyer in ["first", "second"] {
            let (status, slug, outcome) = problem(shop.replica().order(buyer, 1).await).await;
            // A commit in flight when the connection broke would be of unknown outcome; these never got so
            // far.
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
async fn a_stopped_server_keeps_no_request_waiting_for_ever() {
    let keys = [("store.timeout", "500ms"), ("lock.wait", "500ms"), ("server.request_timeout", "1s")];
    let mut shop = Shop::on_a_server_of_its_own(1, "database", 100, &keys).await;
    assert_eq!(shop.replica().order("before", 1).await.status(), 201);
    shop.server().pause().expect("the server is stopped");
    let asked = std::time::Instant::now();
    let (status, _, outcome) = problem(shop.replica().order("during", 1).await).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "answered after {:?}", asked.elapsed());
    assert!(matches!((status, outcome.as_deref()), (503, Some("not_executed")) | (504, Some("unknown"))));
    // Nor does a product's creation, which says of itself what is known, too.
    let url = format!("{}/v1/admin/products/comb", shop.replica().url);
    let creation = shop.replica().http.put(url).bearer_auth(crate::helpers::TOKEN);
    let creation = creation.json(&json!({"name": "Comb", "stock": 1})).send().await.expect("an answer");
    let (status, _, outcome) = problem(creation).await;
    assert!(matches!((status, outcome.as_deref()), (503, Some("not_executed")) | (504, Some("unknown"))));
    shop.server().resume().expect("the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_transaction_has_locked_keep_no_other_product_waiting() {
    for strategy in ["database", "row", "optimistic", "local"] {
        let keys = [("lock.wait", "3s"), ("store.timeout", "3s"), ("server.request_timeout", "6s")];
        let mut shop = Shop::on_a_server_of_its_own(1, strategy, 100, &keys).await;
        // As many as there are commits at a time, and one more.
        for sku in ["second", "third", "other"] {
            let url = format!("{}/v1/admin/products/{sku}", shop.replica().url);
            let created = shop.replica().http.put(url).bearer_auth(crate::helpers::TOKEN);
            let created = created.json(&json!({"name": "Product", "stock": 100})).send().await;
            assert_eq!(created.expect("an answer").status(), 201);
        }
        let server = shop.server().url();
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
        let others = async {
            for _ in 0..20 {
                assert_eq!(replica.order_with(&body, None).await.status(), 201, "{strategy}");
            }
        };
        let (mut stuck, mut others) = (pin!(stuck), pin!(others));
        tokio::select! {
            _ = &mut stuck => panic!("{strategy}: the other product had to wait"),
            () = &mut others => {}
        }
        let stuck = stuck.await;
        for stuck in [stuck.0, stuck.1, stuck.2] {
            let (status, _, outcome) = problem(stuck).await;
            assert_eq!((status, outcome.as_deref()), (503, Some("not_executed")), "{strategy}");
        }
        sqlx::raw_sql("rollback").execute(&mut stranger).await.expect("the row is free");
        assert_eq!(replica.order("A", 1).await.status(), 201, "{strategy}");
        assert_eq!(shop.audit().await.orders, 1, "{strategy}");
    }
}
