//! Orders that have to be paid: reserved, paid, expired, and what meets at the same moment.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use order_service::api::{Adjustment, Info, Order, OrderStatus};
use order_service::config::{Config, Sources};
use order_service::lock::Mode;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::helpers::{Replica, SKU, Shop, TOKEN, count, problem};

/// Longer than any test.
const LONG: (&str, &str) = ("checkout.payment_window", "10m");

const BY_PAYMENT: (&str, &str) = ("checkout.decide_by", "payment");

async fn order(replica: &Replica, buyer: &str, quantity: i64) -> Order {
    let response = replica.order(buyer, quantity).await;
    assert_eq!(response.status(), 201);
    response.json().await.expect("an order")
}

async fn pay(replica: &Replica, order: &Order) -> Response {
    replica.pay_with(&order.id.to_string(), None).await
}

async fn now(replica: &Replica, order: &Order) -> Order {
    replica.get(&format!("/v1/orders/{}", order.id)).await.json().await.expect("an order")
}

/// Waits until the order does not await its payment any more.
async fn until_over(replica: &Replica, order: &Order) -> Order {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let order = now(replica, order).await;
        if order.status != OrderStatus::AwaitingPayment {
            return order;
        }
        assert!(Instant::now() < give_up, "it still awaits its payment: {order:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn adjustments(shop: &Shop) -> Vec<Adjustment> {
    let answer = shop.replica().admin(Method::GET, "/adjustments", None).await;
    let list: Value = answer.json().await.expect("adjustments");
    serde_json::from_value(list["adjustments"].clone()).expect("adjustments")
}

/// What the answer says of an order that cannot be changed.
async fn refusal(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("a problem");
    let slug = body["type"].as_str().unwrap_or_default().trim_start_matches("/problems/").to_owned();
    (status, slug, body["order_status"].clone())
}

#[tokio::test]
async fn an_order_reserves_its_units_until_it_is_paid() {
    let shop = Shop::with(2, "database", 3, &[LONG]).await;
    let [replica, other] = &shop.replicas[..] else { unreachable!("there are two") };
    let reserved = order(replica, "A", 2).await;
    assert_eq!(reserved.status, OrderStatus::AwaitingPayment);
    let window = reserved.pay_by.expect("it has to be paid").duration_since(reserved.created_at);
    assert!((595..=605).contains(&window.as_secs()), "{window}");
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.units_reserved), (1, 0, 2));
    assert!(audit.balanced);
    // Nobody else has what is reserved.
    assert_eq!(problem(other.order("B", 2).await).await.1, "insufficient-stock");
    let paid: Order = pay(other, &reserved).await.json().await.expect("an order");
    assert_eq!(paid, Order { status: OrderStatus::Confirmed, ..reserved.clone() });
    assert_eq!(now(replica, &reserved).await, paid);
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.units_reserved, audit.version), (1, 2, 0, 2));
    assert!(audit.balanced);
    let adjustments = adjustments(&shop).await;
    assert_eq!((adjustments.len(), adjustments[0].delta), (1, 0));
    assert_eq!(adjustments[0].reason, format!("paid {}", reserved.id));
    // What is paid can be taken back, once, and not be paid again.
    assert_eq!(refusal(pay(replica, &paid).await).await, (409, "not-payable".into(), json!("confirmed")));
    assert_eq!(other.cancel_with(&paid.id.to_string(), None).await.status(), 200);
    assert_eq!(refusal(pay(replica, &paid).await).await, (409, "not-payable".into(), json!("cancelled")));
    assert_eq!(shop.audit().await.stock, 3);
}

#[tokio::test]
async fn what_is_not_paid_in_time_expires_once_and_its_units_are_back() {
    for strategy in ["local", "database", "row", "optimistic"] {
        let replicas = if strategy == "local" { 1 } else { 3 };
        let shop = Shop::with(replicas, strategy, 20, &[("checkout.payment_window", "300ms")]).await;
        let orders = (0..10).map(|i| {
            let replica = &shop.replicas[i % replicas];
            async move { order(replica, &format!("buyer-{i}"), 2).await }
        });
        let orders = join_all(orders).await;
        for order in &orders {
            assert_eq!(until_over(shop.replica(), order).await.status, OrderStatus::Expired, "{strategy}");
        }
        let audit = shop.audit().await;
        assert_eq!((audit.stock, audit.units_sold, audit.units_reserved), (20, 0, 0), "{strategy}");
        assert!(audit.balanced && audit.supply == 20 && audit.version == 20, "{strategy}: {audit:?}");
        let adjustments = adjustments(&shop).await;
        assert!(adjustments.iter().all(|a| a.delta == 2 && a.reason.starts_with("expired ")));
        assert_eq!(adjustments.len(), 10, "{strategy}");
        let late = refusal(pay(shop.replica(), &orders[0]).await).await;
        assert_eq!(late, (409, "not-payable".into(), json!("expired")), "{strategy}");
        let late = refusal(shop.replica().cancel_with(&orders[0].id.to_string(), None).await).await;
        assert_eq!(late, (409, "not-cancellable".into(), json!("expired")), "{strategy}");
    }
}

#[tokio::test]
async fn another_replica_ends_the_orders_of_one_that_is_gone_also_where_orders_need_not_be_paid() {
    for keys in [&[("checkout.payment_window", "300ms")][..], &[]] {
        let mut shop = Shop::with(1, "database", 5, &[("checkout.payment_window", "300ms")]).await;
        let reserved = order(shop.replica(), "A", 5).await;
        shop.replicas[0].stop().await.expect("it stops");
        shop.replicas.clear();
        shop.add_replica("database", keys).await;
        // The name is that of the one before: the next one's is not.
        shop.add_replica("database", keys).await;
        let ended = until_over(&shop.replicas[1], &reserved).await;
        assert_eq!(ended.status, OrderStatus::Expired);
        assert_eq!(shop.audit().await.stock, 5);
    }
}

#[tokio::test]
async fn a_product_whose_lock_is_stuck_keeps_only_its_own_orders_from_ending() {
    let keys = [("checkout.payment_window", "4s"), ("lock.wait", "60s"), ("server.request_timeout", "60s")];
    let shop = Shop::with(1, "database", 600, &keys).await;
    let replica = shop.replica();
    let comb = json!({"name": "Comb", "stock": 5});
    let url = format!("{}/v1/admin/products/comb", replica.url);
    let made = replica.http.put(url).bearer_auth(TOKEN).json(&comb).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
    // More than are looked at together.
    let stuck = join_all((0..520).map(|_| order(replica, "A", 1))).await;
    let lock = shop.lock().await;
    let give_up = tokio::time::Instant::now() + Duration::from_secs(10);
    let lease = lock.acquire(SKU, Mode::Exclusive, give_up).await.expect("the lock");
    let awaits = |order: &Order| order.status == OrderStatus::AwaitingPayment;
    let stuck_now: Vec<_> = shop.orders().await.into_iter().filter(awaits).collect();
    let body = json!({"sku": "comb", "quantity": 1, "buyer": "A"});
    let other: Order = replica.order_with(&body, None).await.json().await.expect("an order");
    assert_eq!(until_over(replica, &other).await.status, OrderStatus::Expired);
    assert!(!stuck_now.is_empty(), "all had expired before the lock was held");
    for order in &stuck_now {
        assert!(awaits(&now(replica, order).await), "{order:?}");
    }
    lease.release().await;
    for order in &stuck {
        assert_eq!(until_over(replica, order).await.status, OrderStatus::Expired);
    }
    assert_eq!(shop.audit().await.stock, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_payment_cancellation_and_expiry_at_the_same_moment_there_is_one() {
    for (strategy, by) in
        [("database", "order"), ("database", "payment"), ("row", "order"), ("optimistic", "payment")]
    {
        let keys = [
            ("checkout.payment_window", "2s"),
            ("checkout.decide_by", by),
            ("lock.wait", "60s"),
            ("server.request_timeout", "60s"),
        ];
        let shop = Shop::with(3, strategy, 1_000, &keys).await;
        let race = |i: usize| {
            let replicas = &shop.replicas;
            async move {
                let order = order(&replicas[i % 3], &format!("buyer-{i}"), 1).await;
                let id = order.id.to_string();
                // Some at once, and the others around the end of the window.
                if i >= 5 {
                    let end = order.pay_by.expect("it has to be paid").as_millisecond();
                    let moment = end + 5 * (i as i64 - 22) - Timestamp::now().as_millisecond();
                    tokio::time::sleep(Duration::from_millis(u64::try_from(moment).unwrap_or(0))).await;
                }
                let (paid, again, cancelled) = tokio::join!(
                    replicas[i % 3].pay_with(&id, None),
                    replicas[(i + 1) % 3].pay_with(&id, None),
                    async {
                        match i % 2 {
                            0 => Some(replicas[(i + 2) % 3].cancel_with(&id, None).await),
                            _ => None,
                        }
                    }
                );
                let paid = count(&[paid, again], 200);
                let cancelled = cancelled.is_some_and(|answer| answer.status() == 200);
                assert!(paid <= 1, "{id} was paid twice");
                let status = until_over(&replicas[0], &order).await.status;
                let expected = match (paid, cancelled) {
                    // What is paid may be cancelled.
                    (_, true) => OrderStatus::Cancelled,
                    (1, false) => OrderStatus::Confirmed,
                    _ => OrderStatus::Expired,
                };
                assert_eq!(status, expected, "{strategy} by {by}: {id}");
                status
            }
        };
        let statuses = join_all((0..40).map(race)).await;
        let number = |status| statuses.iter().filter(|other| **other == status).count() as i64;
        let audit = shop.audit().await;
        assert_eq!(audit.units_sold, number(OrderStatus::Confirmed), "{strategy} by {by}");
        assert_eq!((audit.units_reserved, audit.balanced), (0, true), "{strategy} by {by}: {audit:?}");
        assert!(number(OrderStatus::Expired) > 0 && number(OrderStatus::Confirmed) > 0, "{statuses:?}");
    }
}

#[tokio::test]
async fn by_payment_whoever_pays_first_has_the_units() {
    let shop = Shop::with(2, "database", 1, &[LONG, BY_PAYMENT]).await;
    let replica = shop.replica();
    let (a, b) = (order(replica, "A", 1).await, order(&shop.replicas[1], "B", 1).await);
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_reserved, audit.version), (1, 0, 2));
    let (one, other) = tokio::join!(pay(replica, &a), pay(&shop.replicas[1], &b));
    let mut statuses = [one.status().as_u16(), other.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let (first, second, refused) = if one.status() == 200 { (a, b, other) } else { (b, a, one) };
    let refused: Value = refused.json().await.expect("a problem");
    assert_eq!(refused["type"], "/problems/insufficient-stock");
    assert_eq!((&refused["requested"], &refused["available"]), (&json!(1), &json!(0)));
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.balanced), (0, 1, true));
    // An order that cannot be paid now is not lost; a new one is not taken while nothing is there.
    assert_eq!(now(replica, &second).await.status, OrderStatus::AwaitingPayment);
    assert_eq!(problem(replica.order("C", 1).await).await.1, "insufficient-stock");
    assert_eq!(replica.cancel_with(&first.id.to_string(), None).await.status(), 200);
    assert_eq!(pay(replica, &second).await.status(), 200);
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.balanced), (0, 1, true));
    let reasons: Vec<_> = adjustments(&shop).await.into_iter().map(|a| (a.delta, a.reason)).collect();
    assert_eq!(
        reasons,
        [
            (-1, format!("paid {}", first.id)),
            (1, format!("cancelled {}", first.id)),
            (-1, format!("paid {}", second.id)),
        ]
    );
}

#[tokio::test]
async fn by_payment_an_order_that_expires_or_is_cancelled_had_no_units() {
    let keys = [("checkout.payment_window", "300ms"), BY_PAYMENT];
    let shop = Shop::with(1, "database", 2, &keys).await;
    let replica = shop.replica();
    let (late, taken_back) = (order(replica, "A", 1).await, order(replica, "B", 2).await);
    assert_eq!(replica.cancel_with(&taken_back.id.to_string(), None).await.status(), 200);
    assert_eq!(until_over(replica, &late).await.status, OrderStatus::Expired);
    let audit = shop.audit().await;
    assert_eq!((audit.stock, audit.units_sold, audit.balanced, audit.version), (2, 0, true, 4));
    assert!(adjustments(&shop).await.iter().all(|adjustment| adjustment.delta == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_unit_that_is_paid_for_twice_is_not_called_sold_out() {
    let keys = [LONG, BY_PAYMENT, ("lock.wait", "60s"), ("server.request_timeout", "60s")];
    let shop = Shop::with(3, "database", 10, &keys).await;
    for i in 0..10 {
        let order = order(&shop.replicas[i % 3], "A", 1).await;
        let answers = join_all(shop.replicas.iter().map(|replica| pay(replica, &order))).await;
        assert_eq!(count(&answers, 200), 1);
        for refused in answers.into_iter().filter(|answer| answer.status() != 200) {
            assert_eq!(refusal(refused).await, (409, "not-payable".into(), json!("confirmed")));
        }
    }
    assert_eq!(shop.audit().await.stock, 0);
}

#[tokio::test]
async fn without_a_window_orders_are_confirmed_and_need_not_be_paid() {
    let shop = Shop::open("database", 2).await;
    let replica = shop.replica();
    let confirmed = order(replica, "A", 1).await;
    assert_eq!((confirmed.status, confirmed.pay_by), (OrderStatus::Confirmed, None));
    let body: Value = replica.get(&format!("/v1/orders/{}", confirmed.id)).await.json().await.unwrap();
    assert!(body.get("pay_by").is_none(), "{body}");
    let refused = refusal(pay(replica, &confirmed).await).await;
    assert_eq!(refused, (409, "not-payable".into(), json!("confirmed")));
    let unknown = replica.pay_with("00000000-0000-0000-0000-000000000000", None).await;
    assert_eq!(problem(unknown).await.1, "no-such-order");
    assert_eq!(problem(replica.pay_with("hair-dryer", None).await).await.1, "malformed");
    let info: Info = replica.get("/v1/info").await.json().await.unwrap();
    assert_eq!((info.decide_by.as_str(), info.payment_window_ms), ("order", None));
}

#[tokio::test]
async fn a_payment_is_made_once_per_key_and_an_order_is_answered_as_it_was_placed() {
    let shop = Shop::with(2, "database", 5, &[LONG]).await;
    let [replica, other] = &shop.replicas[..] else { unreachable!("there are two") };
    let body = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
    let placed: Order = replica.order_with(&body, Some("order")).await.json().await.unwrap();
    let id = placed.id.to_string();
    let first = replica.pay_with(&id, Some("pay")).await;
    assert!(first.status() == 200 && !first.headers().contains_key("idempotent-replayed"));
    let first: Order = first.json().await.unwrap();
    let again = other.pay_with(&id, Some("pay")).await;
    assert!(again.status() == 200 && again.headers().contains_key("idempotent-replayed"));
    assert_eq!(again.json::<Order>().await.unwrap(), first);
    // Whatever becomes of it.
    assert_eq!(replica.cancel_with(&id, Some("cancel")).await.status(), 200);
    assert_eq!(replica.pay_with(&id, Some("pay")).await.json::<Order>().await.unwrap(), first);
    assert_eq!(other.order_with(&body, Some("order")).await.json::<Order>().await.unwrap(), placed);
    // The key of one thing is not good for another.
    let two = order(replica, "B", 1).await.id.to_string();
    assert_eq!(problem(replica.pay_with(&two, Some("pay")).await).await.1, "idempotency-key-reused");
    assert_eq!(problem(replica.pay_with(&two, Some("cancel")).await).await.1, "idempotency-key-reused");
    assert_eq!(problem(replica.pay_with(&two, Some("a b")).await).await.1, "validation");
}

#[test]
fn what_cannot_be_decided_by_is_refused_by_name() {
    let error = |keys: &[(&str, &str)]| {
        let overrides = keys.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Config::load(&Sources { overrides, ..Sources::default() })
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(error(&[LONG, BY_PAYMENT]), Ok(()));
    for (keys, what) in [
        (&[BY_PAYMENT][..], "checkout.payment_window"),
        (&[LONG, ("checkout.decide_by", "delivery")], "checkout.decide_by"),
        (&[("checkout.payment_window", "1ms")], "checkout.payment_window"),
        (&[("checkout.payment_window", "31days")], "checkout.payment_window"),
        (&[("checkout.payment_window", "soon")], "checkout.payment_window"),
    ] {
        let error = error(keys).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}
