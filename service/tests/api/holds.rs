//! The record of lock holds.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use order_service::api::{Clock, HoldRecord, LockHold};
use reqwest::Method;

use crate::helpers::{Replica, SKU, Shop, count, problem};

async fn record(replica: &Replica) -> HoldRecord {
    replica.admin(Method::GET, "/holds", None).await.json().await.expect("a record")
}

/// The record once nothing is held: an answer may be sent before the lock is released.
async fn final_record(replica: &Replica) -> HoldRecord {
    for _ in 0..1_000 {
        let record = record(replica).await;
        if record.holds.iter().all(|hold| hold.released_ns.is_some()) {
            return record;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("a lock is held for ever");
}

fn released(hold: &LockHold) -> u64 {
    hold.released_ns.expect("nothing is held any more")
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_of_two_replicas_do_not_overlap_and_what_they_wrote_is_every_order() {
    let shop = Shop::with(2, "database", 200, &[("checkout.max_batch", "4")]).await;
    let answers = join_all((0..100).map(|i| shop.replicas[i % 2].order("A", 1))).await;
    assert_eq!(count(&answers, 201), 100);
    let mut holds = Vec::new();
    for replica in &shop.replicas {
        let record = final_record(replica).await;
        assert_eq!((record.clock, record.dropped), (Clock::Host, 0));
        assert!(record.since_ns < record.holds[0].asked_ns);
        assert!(record.holds.iter().all(|hold| released(hold) < record.now_ns));
        assert!(record.holds.is_sorted_by_key(|hold| hold.acquired_ns));
        holds.extend(record.holds);
    }
    holds.sort_by_key(|hold| hold.acquired_ns);
    for hold in &holds {
        assert!(hold.asked_ns <= hold.acquired_ns && hold.acquired_ns <= released(hold), "{hold:?}");
        assert_eq!((hold.sku.as_str(), hold.stale, hold.lost), (SKU, 0, false));
    }
    for pair in holds.windows(2) {
        assert!(released(&pair[0]) <= pair[1].acquired_ns, "{pair:?}");
        assert!(pair[0].fencing_token < pair[1].fencing_token, "{pair:?}");
    }
    let written: Vec<_> =
        holds.iter().flat_map(|hold| &hold.written).flat_map(|run| run[0]..=run[1]).collect();
    assert_eq!(written, (1..=100).collect::<Vec<_>>());
    for order in shop.orders().await {
        let wrote =
            |hold: &&LockHold| hold.written.iter().any(|run| (run[0]..=run[1]).contains(&order.version));
        let hold = holds.iter().find(wrote).expect("a hold that wrote the order");
        assert_eq!(hold.fencing_token, order.lock.fencing_token);
    }
}

#[tokio::test]
async fn a_hold_waits_for_the_next_order_where_that_comes_soon_and_no_longer_than_it_may_last() {
    let holds = async |linger| {
        let keys = [("checkout.linger", linger), ("checkout.max_hold", "1s")];
        let shop = Shop::with(2, "database", 100, &keys).await;
        let begun = Instant::now();
        for _ in 0..8 {
            assert_eq!(shop.replica().order("A", 1).await.status(), 201);
        }
        // The other replica waits for the end of the hold.
        assert_eq!(shop.replicas[1].order("B", 1).await.status(), 201);
        let record = final_record(shop.replica()).await;
        (record.holds.len(), begun.elapsed())
    };
    let (alone, _) = holds("0s").await;
    assert_eq!(alone, 8);
    // After the first order it is not known yet when another will come; the others are served under one hold.
    let (together, took) = holds("10s").await;
    assert_eq!(together, 2);
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn the_record_keeps_the_latest_holds_and_says_how_many_it_dropped() {
    let shop =
        Shop::with(1, "local", 100, &[("checkout.holds_kept", "5"), ("checkout.max_batch", "1")]).await;
    for _ in 0..12 {
        assert_eq!(shop.replica().order("A", 1).await.status(), 201);
    }
    let record = final_record(shop.replica()).await;
    assert_eq!((record.replica.as_str(), record.dropped), ("replica-1", 7));
    let written: Vec<_> = record.holds.iter().map(|hold| &hold.written[..]).collect();
    assert_eq!(written, [[[8, 8]], [[9, 9]], [[10, 10]], [[11, 11]], [[12, 12]]]);
    assert!(record.since_ns <= record.holds[0].asked_ns);
    assert!(record.holds.iter().all(|hold| hold.fencing_token.is_none()));
}

#[tokio::test]
async fn nothing_is_recorded_where_the_record_is_off_or_there_is_no_lock() {
    for (strategy, kept) in [("database", "0"), ("none", "10"), ("row", "10"), ("optimistic", "10")] {
        let shop = Shop::with(1, strategy, 100, &[("checkout.holds_kept", kept)]).await;
        assert_eq!(shop.replica().order("A", 1).await.status(), 201);
        let record = record(shop.replica()).await;
        assert_eq!(
            (record.holds.len(), record.dropped, record.since_ns),
            (0, 0, record.now_ns),
            "{strategy}"
        );
    }
}

#[tokio::test]
async fn a_sold_out_answer_is_a_hold_that_wrote_nothing() {
    let shop = Shop::open("database", 0).await;
    assert_eq!(shop.replica().order("A", 1).await.status(), 409);
    let record = final_record(shop.replica()).await;
    assert_eq!(record.holds.len(), 1);
    assert_eq!(record.holds[0].written, [[0; 2]; 0]);
}

#[tokio::test]
async fn a_record_can_be_followed_from_where_the_last_one_ended() {
    let shop = Shop::open("database", 10).await;
    let replica = shop.replica();
    let after = async |ns: &str| replica.admin(Method::GET, &format!("/holds?after_ns={ns}"), None).await;
    assert_eq!(replica.order("A", 1).await.status(), 201);
    let first = final_record(replica).await;
    assert_eq!(first.holds.len(), 1);
    assert_eq!(replica.order("B", 1).await.status(), 201);
    final_record(replica).await;
    let second: HoldRecord = after(&first.now_ns.to_string()).await.json().await.expect("a record");
    assert_eq!(second.holds.iter().map(|hold| &hold.written[..]).collect::<Vec<_>>(), [[[2, 2]]]);
    let third: HoldRecord = after(&second.now_ns.to_string()).await.json().await.expect("a record");
    assert_eq!(third.holds, []);
    assert_eq!(problem(after("soon").await).await.0, 422);
}

#[tokio::test]
async fn an_order_for_no_product_makes_it_no_product_that_has_a_record() {
    let shop = Shop::open("database", 1).await;
    let replica = shop.replica();
    let order = serde_json::json!({"sku": "typo", "quantity": 1, "buyer": "A"});
    assert_eq!(replica.order_with(&order, None).await.status(), 404);
    let url = format!("{}/v1/admin/products/typo/holds", replica.url);
    let unknown = replica.http.get(url).bearer_auth(crate::helpers::TOKEN).send().await.unwrap();
    assert_eq!(problem(unknown).await, (404, "no-such-product".into(), None));
}

#[tokio::test]
async fn the_record_of_no_product_is_not_found_and_needs_the_token() {
    let shop = Shop::open("database", 1).await;
    let replica = shop.replica();
    let url = |sku: &str| format!("{}/v1/admin/products/{sku}/holds", replica.url);
    let unknown = replica.http.get(url("unknown")).bearer_auth(crate::helpers::TOKEN).send().await.unwrap();
    assert_eq!(problem(unknown).await, (404, "no-such-product".into(), None));
    let without = replica.http.get(url(SKU)).send().await.unwrap();
    assert_eq!(problem(without).await.1, "unauthorized");
}
