//! The counters in a product's row: they say what its orders do, whatever happens at the same time, and where
//! they do not, the audit says so.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use order_service::api::{Audit, CountedFrom, Order, OrderStatus, OrderTotals};
use reqwest::Method;
use serde_json::{Value, json};

use crate::STORE;
use crate::helpers::{SKU, Shop, StoreKind};

/// What sets the counters of all products right, as the documentation has it.
fn recount() -> String {
    let statements = match STORE {
        StoreKind::Sqlite => include_str!("../../../migrations/sqlite/0007_count_orders.sql"),
        StoreKind::Postgres => include_str!("../../../migrations/postgres/0009_count_orders.sql"),
    };
    format!("begin;\n{statements}\ncommit;")
}

/// The audit, which has to find the counters right; and so have the orders, as they are listed.
async fn agreed(shop: &Shop, what: &str) -> Audit {
    let audit = shop.audit().await;
    let orders = shop.orders().await;
    let units = |status: OrderStatus, units: fn(&Order) -> i64| -> i64 {
        orders.iter().filter(|order| order.status == status).map(units).sum()
    };
    let listed = OrderTotals {
        orders: orders.len() as i64,
        units_sold: units(OrderStatus::Confirmed, |order| order.quantity),
        units_reserved: units(OrderStatus::AwaitingPayment, |order| order.stock_before - order.stock_after),
    };
    assert_eq!((audit.counters, audit.counters_agree), (Some(listed), Some(true)), "{what}: {audit:?}");
    assert_eq!((audit.counted_from, audit.orders_read), (CountedFrom::Orders, listed.orders), "{what}");
    audit
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_exact_whatever_is_written_at_the_same_time() {
    // `none` writes blindly over what others have written: units are lost track of, and no order is.
    for (strategy, guard, batch) in
        [("none", "off", "1"), ("none", "off", "64"), ("database", "version", "64"), ("row", "version", "1")]
    {
        let what = format!("{strategy}, guard {guard}, batches of {batch}");
        let keys = [("checkout.guard", guard), ("checkout.max_batch", batch)];
        let keys = if strategy == "none" { &keys[..] } else { &keys[1..] };
        let shop = Shop::with(2, strategy, 1_000, keys).await;
        let orders = (0..60).map(|number| {
            let replica = &shop.replicas[number % 2];
            // Every third key comes twice, perhaps on another replica.
            let attempt = number - number % 3 / 2;
            let key = format!("key-{attempt}");
            let body = json!({"sku": SKU, "quantity": 1 + attempt % 4, "buyer": "A"});
            async move {
                let placed = replica.order_with(&body, Some(&key)).await;
                let is_new = placed.status() == 201 && !placed.headers().contains_key("idempotent-replayed");
                let order: Option<Order> = if is_new { placed.json().await.ok() } else { None };
                // Some are cancelled while others are placed.
                if let Some(order) = order.filter(|_| number % 5 == 0) {
                    replica.cancel_with(&order.id.to_string(), None).await;
                }
            }
        });
        join_all(orders).await;
        let audit = agreed(&shop, &what).await;
        assert!(audit.orders > 20 && audit.units_sold > 20, "{what}: {audit:?}");
        // A reset and orders, at the same time: each order is there and counted, or neither.
        let orders = join_all((0..20).map(|number| shop.replicas[number % 2].order("B", 1)));
        let body = json!({"name": "Hair dryer", "stock": 500});
        let reset = shop.replicas[0].admin(Method::PUT, "", Some(body));
        let (reset, _) = tokio::join!(reset, orders);
        agreed(&shop, &format!("{what}, {} reset", reset.status())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_follow_what_becomes_of_orders_that_have_to_be_paid() {
    for decided_by in ["order", "payment"] {
        let keys = [("checkout.payment_window", "1500ms"), ("checkout.decide_by", decided_by)];
        let shop = Shop::with(2, "database", 100, &keys).await;
        let placed = (0..30).map(|number| {
            let replica = &shop.replicas[number % 2];
            async { replica.order("A", 2).await.json::<Order>().await.expect("an order") }
        });
        let orders = join_all(placed).await;
        let audit = agreed(&shop, decided_by).await;
        assert_eq!(audit.orders, 30);
        let reserved = if decided_by == "order" { 60 } else { 0 };
        assert_eq!((audit.units_reserved, audit.units_sold), (reserved, 0), "{decided_by}");
        join_all(orders.iter().enumerate().map(|(number, order)| {
            let (replica, id) = (&shop.replicas[number % 2], order.id.to_string());
            async move {
                match number % 3 {
                    0 => drop(replica.pay_with(&id, None).await),
                    1 => drop(replica.cancel_with(&id, None).await),
                    _ => {}
                }
            }
        }))
        .await;
        agreed(&shop, decided_by).await;
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while shop.orders().await.iter().any(|order| order.status == OrderStatus::AwaitingPayment) {
            assert!(std::time::Instant::now() < give_up, "{decided_by}: they do not expire");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let audit = agreed(&shop, decided_by).await;
        let now = shop.orders().await;
        let paid = now.iter().filter(|order| order.status == OrderStatus::Confirmed).count() as i64;
        assert_eq!((audit.units_sold, audit.units_reserved, audit.balanced), (2 * paid, 0, true));
        assert!(paid > 0 && now.iter().any(|order| order.status == OrderStatus::Expired), "{now:?}");
    }
}

#[tokio::test]
async fn an_audit_says_that_counters_are_wrong_and_a_recount_sets_them_right() {
    let shop = Shop::open("database", 10).await;
    for quantity in [1, 2, 3] {
        assert_eq!(shop.replica().order("A", quantity).await.status(), 201);
    }
    let miscounts = "stocklock_audit_miscounts_total";
    agreed(&shop, "as it was").await;
    assert_eq!(shop.replica().metric(miscounts).await, 0.0);
    for (number, falsified) in ["order_count = 4", "units_sold = 5", "units_reserved = 1"].iter().enumerate()
    {
        shop.execute(&format!("update products set {falsified}")).await;
        let audit = shop.audit().await;
        assert_eq!(audit.counters_agree, Some(false), "{falsified}: {audit:?}");
        // The orders count nevertheless.
        assert_eq!((audit.orders, audit.units_sold, audit.units_reserved), (3, 6, 0), "{falsified}");
        assert!(audit.balanced);
        assert_eq!(shop.replica().metric(miscounts).await, number as f64 + 1.0);
        shop.execute(&recount()).await;
        assert_eq!(agreed(&shop, falsified).await.units_sold, 6);
    }
    // A replica of a version before counters, in the middle of an upgrade.
    let id = match STORE {
        StoreKind::Sqlite => "'00000000-0000-7000-8000-000000000001'",
        StoreKind::Postgres => "uuid '00000000-0000-7000-8000-000000000001'",
    };
    let order = format!(
        "insert into orders
         select {id}, sku, buyer, quantity, status, 'old', stock_before, stock_after, version, lock_strategy,
             fencing_token, replica, created_at, pay_by
         from orders where quantity = 2"
    );
    shop.execute(&order).await;
    assert_eq!(shop.audit().await.counters_agree, Some(false));
    shop.execute(&recount()).await;
    assert_eq!(agreed(&shop, "recounted").await.units_sold, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_stops_no_order_and_no_cancellation_that_goes_on_beside_it() {
    // Under `row` an order locks the product's row before it writes; so does each cancellation.
    let shop = Shop::with(2, "row", 100_000, &[]).await;
    let is_over = AtomicBool::new(false);
    let buyers = (0..8).map(|number| {
        let (replica, is_over) = (&shop.replicas[number % 2], &is_over);
        async move {
            while !is_over.load(Ordering::Relaxed) {
                let placed = replica.order("A", 1).await;
                assert_eq!(placed.status(), 201);
                let order: Order = placed.json().await.expect("an order");
                assert_eq!(replica.cancel_with(&order.id.to_string(), None).await.status(), 200);
            }
        }
    });
    let recounts = async {
        for _ in 0..30 {
            shop.execute("update products set order_count = order_count + 1").await;
            shop.execute(&recount()).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(buyers), recounts);
    let audit = shop.audit().await;
    assert!(audit.counters_agree == Some(true) && audit.balanced && audit.orders > 30, "{audit:?}");
}

#[tokio::test]
async fn adjustments_come_in_pages() {
    let shop = Shop::open("database", 10).await;
    let replica = shop.replica();
    for number in 0..7 {
        let restock = json!({"quantity": 1, "reason": format!("delivery {number}")});
        assert_eq!(replica.admin(Method::POST, "/restock", Some(restock)).await.status(), 201);
    }
    // Two at one version, as without the guard.
    shop.execute("update stock_adjustments set version = 3 where version = 4").await;
    let mut seen = Vec::new();
    let mut after = String::new();
    for pages in 0.. {
        assert!(pages < 9, "{seen:?}");
        let page = replica.admin(Method::GET, &format!("/adjustments?limit=1{after}"), None).await;
        let page: Value = page.json().await.expect("a page");
        let adjustments = page["adjustments"].as_array().expect("a list");
        assert_eq!(adjustments.len(), 1);
        seen.push(adjustments[0]["reason"].as_str().expect("a reason").to_owned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        after = format!("&cursor={next}");
    }
    seen.sort();
    assert!(seen.iter().enumerate().all(|(number, reason)| *reason == format!("delivery {number}")));
    assert_eq!(seen.len(), 7);
    for query in ["cursor=7", "cursor=x_00000000-0000-7000-8000-000000000001", "limit=1001", "skip=1"] {
        let refused = replica.admin(Method::GET, &format!("/adjustments?{query}"), None).await;
        assert!(matches!(refused.status().as_u16(), 400 | 422), "{query}");
    }
}
