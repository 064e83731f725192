//! The queue of a product: batches, its bounds, and those who do not wait.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use order_service::lock::Mode;
use serde_json::json;
use tokio::time::timeout;

use crate::helpers::{SKU, Shop, TOKEN, count, problem};

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_wait_are_made_in_one_batch() {
    let shop = Shop::with(1, "database", 100, &[("checkout.think_time", "200ms")]).await;
    let answers = join_all((0..41).map(|_| shop.replica().order("A", 1))).await;
    assert_eq!(count(&answers, 201), 41);
    let batches = shop.replica().metric("stocklock_checkout_batch_size_count").await;
    assert!(batches < 10.0, "{batches} batches for 41 orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn textbook_mode_makes_one_order_per_lock_hold() {
    let shop = Shop::with(1, "database", 100, &[("checkout.max_batch", "1")]).await;
    let answers = join_all((0..20).map(|_| shop.replica().order("A", 1))).await;
    assert_eq!(count(&answers, 201), 20);
    assert_eq!(shop.replica().metric("stocklock_checkout_batch_size_count").await, 20.0);
    assert_eq!(shop.replica().metric("stocklock_lock_holds_total").await, 20.0);
    let mut tokens: Vec<_> = shop.orders().await.iter().map(|order| order.lock.fencing_token).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    for strategy in ["none", "database"] {
        let keys = [("checkout.queue", "2"), ("checkout.max_batch", "1"), ("checkout.think_time", "400ms")];
        let shop = Shop::with(1, strategy, 100, &keys).await;
        let begun = Instant::now();
        let refused = async {
            let mut refused = Vec::new();
            for answer in join_all((0..20).map(|_| async {
                let answer = shop.replica().order("A", 1).await;
                (begun.elapsed(), answer)
            }))
            .await
            {
                if answer.1.status() == 503 {
                    refused.push(answer);
                } else {
                    assert_eq!(answer.1.status(), 201);
                }
            }
            refused
        };
        let refused = refused.await;
        // Two in the queue, and those with whom the worker was busy meanwhile.
        assert!((15..=18).contains(&refused.len()), "{strategy}: {} refused", refused.len());
        for (after, answer) in refused {
            assert!(after < Duration::from_millis(400), "{strategy}: refused after {after:?}");
            assert!(answer.headers().contains_key("retry-after"));
            assert_eq!(problem(answer).await, (503, "overloaded".into(), Some("not_executed".into())));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_client_has_gone_is_not_executed() {
    let keys = [("checkout.max_batch", "1"), ("checkout.think_time", "400ms")];
    let shop = Shop::with(1, "database", 100, &keys).await;
    let replica = shop.replica();
    let (first, ()) = tokio::join!(replica.order("A", 1), async {
        replica.until_locked().await;
        let request = replica.http.post(format!("{}/v1/orders", replica.url));
        let body = json!({"sku": SKU, "quantity": 1, "buyer": "B"});
        let gone = request.json(&body).timeout(Duration::from_millis(100)).send().await;
        assert!(gone.unwrap_err().is_timeout());
    });
    assert_eq!(first.status(), 201);
    // C comes after B in the queue: when it is served, B has been passed over.
    assert_eq!(replica.order("C", 1).await.status(), 201);
    let buyers: Vec<_> = shop.orders().await.into_iter().map(|order| order.buyer).collect();
    assert_eq!(buyers, ["A", "C"]);
    assert_eq!(replica.metric("stocklock_checkout_abandoned_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_too_long_is_refused_and_not_written() {
    let keys =
        [("checkout.max_batch", "1"), ("checkout.think_time", "700ms"), ("server.request_timeout", "300ms")];
    let shop = Shop::with(1, "database", 100, &keys).await;
    let (a, b) = tokio::join!(shop.replica().order("A", 1), async {
        shop.replica().until_locked().await;
        shop.replica().order("B", 1).await
    });
    // A's batch had begun when its time was over: its answer is late, and true.
    assert_eq!(a.status(), 201);
    assert_eq!(problem(b).await, (503, "lock-timeout".into(), Some("not_executed".into())));
    assert_eq!(shop.audit().await.orders, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_others_keep_is_waited_for_only_so_long() {
    let keys = [("lock.wait", "200ms"), ("checkout.think_time", "800ms")];
    let shop = Shop::with(2, "database", 100, &keys).await;
    let (a, (b, waited)) = tokio::join!(shop.replicas[0].order("A", 1), async {
        shop.replica().until_locked().await;
        let asked = Instant::now();
        (shop.replicas[1].order("B", 1).await, asked.elapsed())
    });
    assert_eq!(a.status(), 201);
    assert_eq!(problem(b).await.1, "lock-timeout");
    assert!(
        (200..800).contains(&waited.as_millis()),
        "waited {waited:?}, and the holder's order takes 800 ms"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_key_are_one_order_whatever_their_number() {
    for max_batch in ["1", "256"] {
        let keys = [("checkout.max_batch", max_batch), ("checkout.think_time", "100ms")];
        let shop = Shop::with(1, "database", 1_000, &keys).await;
        let copy = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
        let begun = Instant::now();
        let (copies, others) = tokio::join!(
            join_all((0..300).map(|_| shop.replica().order_with(&copy, Some("k")))),
            join_all((0..3).map(|_| shop.replica().order("B", 1))),
        );
        // One order at a time would take 30 s.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((count(&copies, 201), count(&others, 201)), (300, 3));
        let replayed = copies.iter().filter(|answer| answer.headers().contains_key("idempotent-replayed"));
        assert_eq!(replayed.count(), 299);
        assert_eq!(shop.audit().await.units_sold, 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_keeps_its_place_while_overdue_orders_are_refused() {
    let shop = Shop::with(2, "database", 1_000, &[("lock.wait", "1s")]).await;
    let stranger = shop.lock().await;
    let lease = stranger.acquire(SKU, Mode::Exclusive, in_a_second()).await.expect("a lease");
    let replica = shop.replica();
    let mut orders = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (http, url) = (replica.http.clone(), format!("{}/v1/orders", replica.url));
        orders.spawn(async move {
            tokio::time::sleep(Duration::from_millis(300 * number)).await;
            let body = json!({"sku": SKU, "quantity": 1, "buyer": "A"});
            http.post(url).json(&body).send().await.expect("an answer")
        });
    }
    tokio::time::sleep(Duration::from_millis(2_550)).await;
    // However many were refused, one acquire waits, and it has waited from the beginning.
    assert_eq!(stranger.state(SKU).await.expect("the lock state").waiting, 1);
    let second = shop.replicas[1].order("B", 1);
    let (answers, second, ()) = tokio::join!(orders.join_all(), second, async {
        let both_wait = async {
            while stranger.state(SKU).await.expect("the lock state").waiting < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), both_wait).await.expect("the second replica asks, too");
        lease.release().await;
    });
    let refused = count(&answers, 503);
    // How many came after them depends on how long all this took.
    assert!((4..12).contains(&refused), "{refused} refused");
    assert_eq!(count(&answers, 201), 12 - refused);
    // The first replica asked before the second did.
    assert_eq!(second.status(), 201);
    let orders = shop.orders().await;
    assert_eq!(orders.iter().min_by_key(|order| order.version).map(|order| &*order.buyer), Some("A"));
}

#[tokio::test(flavor = "multi_thread")]
async fn products_that_sell_out_together_are_answered_at_once() {
    for strategy in ["database", "row", "optimistic"] {
        let shop = Shop::open(strategy, 1).await;
        let replica = shop.replica();
        for number in 0..30 {
            let url = format!("{}/v1/admin/products/p{number}", replica.url);
            let created = replica.http.put(url).bearer_auth(TOKEN);
            let created = created.json(&json!({"name": "Product", "stock": 1})).send().await;
            assert_eq!(created.expect("an answer").status(), 201);
        }
        let bodies: Vec<_> = (0..90)
            .map(|number| json!({"sku": format!("p{}", number % 30), "quantity": 1, "buyer": "A"}))
            .collect();
        let keys: Vec<_> = (0..90).map(|number| format!("k{number}")).collect();
        let begun = Instant::now();
        let orders = bodies.iter().zip(&keys).map(|(body, key)| replica.order_with(body, Some(key)));
        let answers = join_all(orders).await;
        assert_eq!((count(&answers, 201), count(&answers, 409)), (30, 60), "{strategy}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{strategy}: {:?}", begun.elapsed());
    }
}

fn in_a_second() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(1)
}
