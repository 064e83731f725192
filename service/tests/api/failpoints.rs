//! Faults on purpose: each happens where its name says.

use std::time::Duration;

use order_service::api::{HoldRecord, LockStatus};
use reqwest::Method;

use crate::helpers::{Shop, problem};

/// How long an order is given to be answered that is stalled and cannot be, and one that can.
const CLIENT_TIMEOUT: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(20)];

#[tokio::test(flavor = "multi_thread")]
async fn an_order_stalls_where_the_failpoint_says() {
    for (point, written, answered) in [
        ("failpoints.after_lock", 0, false),
        ("failpoints.after_read", 0, false),
        ("failpoints.before_commit", 0, false),
        ("failpoints.after_commit", 1, false),
        ("failpoints.before_release", 1, true),
    ] {
        let shop = Shop::with(1, "database", 10, &[(point, "stall 1h")]).await;
        let order = shop.replica().order("A", 1);
        let order = tokio::time::timeout(CLIENT_TIMEOUT[usize::from(answered)], order);
        let (order, ()) = tokio::join!(order, shop.replica().until_locked());
        assert_eq!(order.is_ok_and(|answer| answer.status() == 201), answered, "{point}");
        while shop.audit().await.orders != written {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let lock: LockStatus =
            shop.replica().admin(Method::GET, "/lock", None).await.json().await.expect("the lock state");
        assert_eq!(lock.holders.len(), 1, "{point}");
        let record: HoldRecord =
            shop.replica().admin(Method::GET, "/holds", None).await.json().await.expect("a record");
        let hold = &record.holds[0];
        assert_eq!((record.holds.len(), hold.released_ns), (1, None), "{point}");
        assert_eq!(hold.written.len(), usize::from(written == 1), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_a_reader_stalls_is_fenced() {
    let keys =
        [("failpoints.after_read", "stall 1s"), ("lock.wait", "10s"), ("server.request_timeout", "20s")];
    let mut shop = Shop::with(1, "database", 100_000, &keys).await;
    // A replica that does not ask for the lock stands for one whose lease was over and who does not know it
    // yet.
    shop.add_replica("optimistic", &[]).await;
    let (slow, fast) = (&shop.replicas[0], &shop.replicas[1]);
    let (order, sold) = tokio::join!(slow.order("slow", 1), async {
        let mut sold = 0;
        slow.until_locked().await;
        while slow.metric("stocklock_checkout_stale_writes_rejected_total").await == 0.0 {
            assert_eq!(fast.order("fast", 1).await.status(), 201);
            sold += 1;
        }
        sold
    });
    assert_eq!(order.status(), 201);
    let record: HoldRecord = slow.admin(Method::GET, "/holds", None).await.json().await.expect("a record");
    let (last, refused) = record.holds.split_last().expect("holds");
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|hold| hold.stale == 1 && hold.written.is_empty()), "{refused:?}");
    assert_eq!((last.stale, &last.written[..]), (0, &[[sold + 1, sold + 1]][..]));
    let audit = shop.audit().await;
    assert_eq!((audit.orders, audit.stock, audit.balanced), (sold + 1, 100_000 - sold - 1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_order_is_refused_when_its_time_is_over_before_its_batch_began() {
    let keys = [
        ("failpoints.after_lock", "stall 1s"),
        ("server.request_timeout", "200ms"),
        ("checkout.max_batch", "1"),
    ];
    let shop = Shop::with(1, "local", 10, &keys).await;
    let refused = shop.replica().order("A", 1).await;
    assert_eq!(problem(refused).await, (503, "lock-timeout".into(), Some("not_executed".into())));
    assert_eq!(shop.audit().await.orders, 0);
}
