//! A product with a million orders: what is asked of it takes no longer than of one with a hundred thousand.

use std::time::Instant;

use order_service::api::{CountedFrom, OrderTotals};
use order_service::store::bounded_statements;
use reqwest::Response;
use serde_json::{Value, json};

use crate::STORE;
use crate::helpers::{SKU, Shop, StoreKind, TOKEN, problem};

const ORDERS: i64 = 1_000_000;

/// Orders of a product, numbered from `from` on: each of one unit, the last one of the last unit.
fn orders(sku: &str, from: i64, count: i64) -> String {
    let columns = |id: &str, now: &str| {
        format!(
            "insert into orders
             select {id}, '{sku}', 'buyer', 1, 'confirmed', null, {count} + 1 - n, {count} - n, n,
                 'database', n, 'replica-1', {now}, null"
        )
    };
    match STORE {
        StoreKind::Sqlite => {
            let id = format!("printf('00000000-0000-7000-8000-%012x', {from} + n)");
            let numbers =
                format!("with recursive s(n) as (select 1 union all select n + 1 from s where n < {count})");
            columns(&id, "1700000000000000").replace("select printf", &format!("{numbers} select printf"))
                + " from s;"
        }
        StoreKind::Postgres => {
            let id = format!("('00000000-0000-7000-8000-' || lpad(to_hex({from} + n), 12, '0'))::uuid");
            columns(&id, "now()") + &format!(" from generate_series(1, {count}) as n;")
        }
    }
}

/// Adjustments of nothing.
fn adjustments(sku: &str, count: i64) -> String {
    match STORE {
        StoreKind::Sqlite => format!(
            "with recursive s(n) as (select 1 union all select n + 1 from s where n < {count})
             insert into stock_adjustments
             select printf('00000000-0000-7000-8000-%012x', n), '{sku}', 0, 'inventory', n, 1700000000000000
             from s;"
        ),
        StoreKind::Postgres => format!(
            "insert into stock_adjustments
             select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{sku}', 0,
                 'inventory', n, now()
             from generate_series(1, {count}) as n;"
        ),
    }
}

/// A million orders of the product; three of a comb, which come last; a soap that may just be reset; and a
/// brush with too many adjustments.
async fn filled() -> Shop {
    let shop = match STORE {
        StoreKind::Sqlite => Shop::open("database", 0).await,
        // The others' server has enough to do.
        StoreKind::Postgres => Shop::on_a_server_of_its_own(1, "database", 0, &[]).await,
    };
    for sku in ["comb", "soap", "brush"] {
        assert_eq!(put(&shop, sku, None).await.status(), 201);
    }
    // Without what only slows the filling down.
    let quick = match STORE {
        StoreKind::Sqlite => {
            "pragma foreign_keys = off; pragma synchronous = off; pragma cache_size = -200000;"
        }
        StoreKind::Postgres => "set session_replication_role = replica; set synchronous_commit = off;",
    };
    let all = [
        quick.to_owned(),
        orders(SKU, 0, ORDERS),
        orders("soap", ORDERS, 30_000),
        orders("comb", 2 * ORDERS, 3),
        adjustments("brush", 30_001),
        format!(
            "update products set version = {ORDERS}, supply = {ORDERS}, order_count = {ORDERS},
                units_sold = {ORDERS} where sku = '{SKU}';
             update products set version = 3, supply = 3, order_count = 3, units_sold = 3 where sku = 'comb';"
        ),
        // Two of the latest have read the same.
        format!(
            "update orders set version = {ORDERS} - 1, stock_before = 2
             where sku = '{SKU}' and version = {ORDERS};"
        ),
        "analyze;".into(),
    ];
    shop.execute(&all.concat()).await;
    shop
}

async fn put(shop: &Shop, sku: &str, key: Option<&str>) -> Response {
    let replica = shop.replica();
    let put = replica.http.put(format!("{}/v1/admin/products/{sku}", replica.url)).bearer_auth(TOKEN);
    let put = key.iter().fold(put, |put, key| put.header("Idempotency-Key", *key));
    put.json(&json!({"name": "Product", "stock": 0})).send().await.expect("an answer")
}

/// What PostgreSQL does for a statement, and how many rows each step has found.
async fn plan(shop: &Shop, name: &str, statement: &str) -> Vec<String> {
    if STORE == StoreKind::Sqlite {
        let rows = shop.lines(&format!("explain query plan {statement}")).await;
        return rows.iter().map(|row| row.rsplit('|').next().unwrap_or_default().to_owned()).collect();
    }
    let id = "'00000000-0000-7000-8000-000000000000'";
    let parameters = match name {
        "orders" => format!("{id}, 101"),
        "orders of a product" => format!("{id}, 101, 'comb'"),
        "adjustments" => format!("'brush', 7, {id}, 101"),
        "audit" => format!("'{SKU}'"),
        "reset" => format!("array['{SKU}', 'comb', 'brush']"),
        _ => panic!("{name} has unknown parameters"),
    };
    // As the store has them.
    let settings = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off;
        set enable_bitmapscan = off;";
    let explain = "explain (analyze, costs off, timing off, summary off)";
    let all = format!("{settings} prepare asked as {statement}; {explain} execute asked({parameters})");
    shop.lines(&all).await
}

async fn statements_are_ranges_of_indices(shop: &Shop) {
    for (name, statement) in bounded_statements(STORE.name()) {
        let plan = plan(shop, name, statement).await;
        let text = plan.join("\n");
        let is_of_table = |line: &&String| {
            ["orders", "stock_adjustments"].iter().any(|table| {
                line.contains(&format!("on {table} "))
                    || line.contains(&format!(" {table} USING"))
                    || line.ends_with(&format!("SCAN {table}"))
            })
        };
        assert!(plan.iter().any(|line| is_of_table(&line)), "{name} reads no table:\n{text}");
        for line in plan.iter().filter(is_of_table) {
            let is_range = ["SEARCH", "Index Scan", "Index Only Scan"].iter().any(|way| line.contains(way));
            assert!(is_range, "{name} reads a whole table: {line}\n{text}");
            let most = if *name == "reset" { 30_001 } else { 100_000 };
            let rows = line.split("rows=").nth(1).and_then(|rest| rest.split(' ').next());
            let rows = rows.map_or(0, |rows| rows.parse::<u64>().expect("a number"));
            assert!(rows <= most, "{name} reads too much: {line}\n{text}");
        }
        // No order is read to be left out, and nothing is sorted by more than its last column.
        assert!(!name.starts_with("orders") || !text.contains("Rows Removed"), "{name}:\n{text}");
        assert!(!text.contains("TEMP B-TREE FOR ORDER BY"), "{name}:\n{text}");
    }
}

async fn the_audit_believes_the_counters(shop: &Shop) {
    let begun = Instant::now();
    let audit = shop.audit().await;
    eprintln!("audited after {:?}", begun.elapsed());
    let totals = OrderTotals { orders: ORDERS, units_sold: ORDERS, units_reserved: 0 };
    assert_eq!((audit.counted_from, audit.orders_read), (CountedFrom::Counters, 100_000));
    assert_eq!((audit.counters, audit.counters_agree), (Some(totals), None));
    assert_eq!((audit.orders, audit.units_sold, audit.stock, audit.balanced), (ORDERS, ORDERS, 0, true));
    let [duplicate] = &audit.duplicate_reads[..] else { panic!("{audit:?}") };
    assert_eq!((duplicate.version, duplicate.stock_before, duplicate.orders.len()), (ORDERS - 1, 2, 2));
    // Fewer than were read: that cannot be.
    shop.execute(&format!("update products set order_count = 99999 where sku = '{SKU}'")).await;
    assert_eq!(shop.audit().await.counters_agree, Some(false));
    shop.execute(&format!("update products set order_count = {ORDERS} where sku = '{SKU}'")).await;
}

async fn lists_come_in_pages(shop: &Shop) {
    let replica = shop.replica();
    let last = format!("/v1/orders?sku={SKU}&cursor=00000000-0000-7000-8000-0000000f423c");
    for (path, on_page, has_next) in [
        ("/v1/orders?limit=1000", 1_000, true),
        ("/v1/orders?sku=hair-dryer&limit=1000", 1_000, true),
        (last.as_str(), 4, false),
        ("/v1/orders?sku=comb", 3, false),
    ] {
        let page: Value = replica.get(path).await.json().await.expect("a page");
        let seen = (page["orders"].as_array().expect(path).len(), page["next_cursor"].is_string());
        assert_eq!(seen, (on_page, has_next), "{path}");
    }
}

async fn a_reset_is_refused_before_anything_is_written_or_made_in_time(shop: &Shop) {
    for sku in [SKU, "brush"] {
        let before = shop.lines("select * from products order by sku").await;
        for _ in 0..2 {
            let refused = problem(put(shop, sku, Some(&format!("reset-{sku}"))).await).await;
            assert_eq!(refused, (409, "too-many-orders".into(), Some("not_executed".into())), "{sku}");
        }
        assert_eq!(shop.lines("select * from products order by sku").await, before);
        let kept = shop.lines("select count(*) from kept_answers").await;
        assert_eq!(kept, ["0"], "nothing is answered to it the next time");
    }
    let begun = Instant::now();
    assert_eq!(put(shop, "soap", None).await.status(), 200);
    eprintln!("30,000 orders were deleted after {:?}", begun.elapsed());
    assert_eq!(put(shop, "comb", None).await.status(), 200);
    let left = shop.lines("select count(*) from orders").await;
    assert_eq!(left, [ORDERS.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_with_a_million_orders_is_read_and_reset_in_bounded_time() {
    let shop = filled().await;
    statements_are_ranges_of_indices(&shop).await;
    the_audit_believes_the_counters(&shop).await;
    lists_come_in_pages(&shop).await;
    a_reset_is_refused_before_anything_is_written_or_made_in_time(&shop).await;
    let audit = shop.audit().await;
    assert_eq!((audit.orders, audit.balanced), (ORDERS, true));
}
