use uuid::Uuid;

use super::*;
use crate::api::{LockEvidence, NewOrder, Order, OrderStatus};
use crate::change::Outcome;
use crate::checkout::ticket::{self, Ticket};
use crate::order::{IdempotencyKey, OrderRequest};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> QueueLimits {
    QueueLimits { queue: 100, max_batch: 2, lock_wait: SECOND }
}

fn queue() -> Queue {
    Queue::new(Sku::parse("hair-dryer").unwrap(), Counter::default())
}

fn purchase(buyer: &str, key: Option<&str>) -> Change {
    let body = NewOrder { sku: "hair-dryer".into(), quantity: 1, buyer: buyer.into() };
    let key = key.map(|key| IdempotencyKey::parse(key.as_bytes()));
    Change::Purchase(OrderRequest::parse(body, key).unwrap())
}

fn join(queue: &Queue, buyer: &str, key: Option<&str>) -> Ticket {
    let (waiting, ticket) = ticket::pair(purchase(buyer, key), Instant::now() + 10 * SECOND);
    queue.join(waiting, limits()).unwrap();
    ticket
}

fn order(buyer: &str) -> Order {
    Order {
        id: Uuid::now_v7(),
        sku: "hair-dryer".into(),
        buyer: buyer.into(),
        quantity: 1,
        status: OrderStatus::Confirmed,
        pay_by: None,
        stock_before: 2,
        stock_after: 1,
        version: 1,
        lock: LockEvidence { strategy: "local".into(), fencing_token: None },
        replica: "a".into(),
        created_at: jiff::Timestamp::now(),
    }
}

fn buyers(batch: &[QueuedChange]) -> Vec<&str> {
    let buyer = |waiting: &QueuedChange| match &waiting.change {
        Change::Purchase(order) => order.buyer.as_str().to_owned(),
        change => panic!("not a purchase: {change:?}"),
    };
    batch.iter().map(buyer).map(|buyer| &*buyer.leak()).collect()
}

#[tokio::test]
async fn copies_of_a_key_take_no_place_and_get_the_result_of_the_first() {
    let queue = queue();
    let mut first = join(&queue, "a", Some("k"));
    let mut copies: Vec<_> = (0..1_000).map(|_| join(&queue, "a", Some("k"))).collect();
    let mut other = join(&queue, "b", Some("k"));
    let mut next = join(&queue, "c", None);
    let batch = queue.take_batch(2);
    assert_eq!(buyers(&batch), ["a", "c"]);
    // One that comes while the first is being executed is attached too.
    copies.push(join(&queue, "a", Some("k")));
    let results = vec![Some(Ok(Outcome::Ordered(order("a")).into())), Some(Err(ChangeError::LockTimeout))];
    assert_eq!(queue.settle(batch, results), None);
    assert!(first.result().await.is_ok_and(|made| !made.replayed));
    for copy in &mut copies {
        let made = copy.result().await.unwrap();
        assert!(made.replayed && matches!(made.outcome, Outcome::Ordered(order) if order.buyer == "a"));
    }
    assert_eq!(other.result().await.unwrap_err(), ChangeError::KeyReused);
    assert_eq!(next.result().await.unwrap_err(), ChangeError::LockTimeout);
    assert!(queue.retire());
}

#[tokio::test]
async fn another_request_with_the_key_of_one_that_was_refused_is_decided_by_itself() {
    let queue = queue();
    let mut first = join(&queue, "a", Some("k"));
    let _other = join(&queue, "b", Some("k"));
    let _third = join(&queue, "c", Some("k"));
    let batch = queue.take_batch(2);
    queue.settle(batch, vec![Some(Err(ChangeError::LockTimeout))]);
    assert_eq!(first.result().await.unwrap_err(), ChangeError::LockTimeout);
    // The third is attached to the second now.
    assert_eq!(buyers(&queue.take_batch(9)), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_refused_only_for_a_stock_that_was_there_after_it_came() {
    let queue = queue();
    let mut first = join(&queue, "a", Some("k"));
    let mut before = join(&queue, "a", Some("k"));
    let batch = queue.take_batch(2);
    tokio::time::advance(Duration::from_millis(1)).await;
    // Perhaps after a restock.
    let _after = join(&queue, "a", Some("k"));
    let refused = ChangeError::InsufficientStock { requested: 1, available: 0, version: 1 };
    queue.settle(batch, vec![Some(Err(refused.clone()))]);
    assert_eq!(first.result().await.unwrap_err(), refused);
    assert_eq!(before.result().await.unwrap_err(), refused);
    assert_eq!(buyers(&queue.take_batch(9)), ["a"]);
}

#[tokio::test]
async fn a_copy_takes_the_place_of_one_that_is_withdrawn() {
    let queue = queue();
    let first = join(&queue, "a", Some("k"));
    let gone = join(&queue, "a", Some("k"));
    let _copy = join(&queue, "a", Some("k"));
    let _next = join(&queue, "b", None);
    drop((first, gone));
    assert_eq!(buyers(&queue.take_batch(9)), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_overdue_is_refused_and_no_other() {
    let queue = queue();
    let mut first = join(&queue, "a", Some("k"));
    tokio::time::advance(SECOND / 2).await;
    let _copy = join(&queue, "a", Some("k"));
    let _next = join(&queue, "b", None);
    let deadline = queue.next_overdue(SECOND).unwrap();
    tokio::time::advance(deadline - Instant::now()).await;
    queue.refuse_overdue(SECOND, &ChangeError::LockTimeout);
    assert_eq!(first.result().await.unwrap_err(), ChangeError::LockTimeout);
    assert_eq!(buyers(&queue.take_batch(9)), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_acquire_refuses_who_was_there_when_it_began() {
    let queue = queue();
    let mut first = join(&queue, "a", None);
    let begun = Instant::now();
    tokio::time::advance(Duration::from_millis(1)).await;
    let _next = join(&queue, "b", None);
    let down = ChangeError::DependencyDown("gone".into());
    queue.refuse_older(begun, &down);
    assert_eq!(first.result().await.unwrap_err(), down);
    assert_eq!(buyers(&queue.take_batch(9)), ["b"]);
}

#[tokio::test]
async fn whoever_would_come_too_late_is_shed_with_the_time_it_would_take() {
    let queue = queue();
    queue.note(None, 9 * SECOND, 1);
    queue.note(None, SECOND, 2);
    let tickets: Vec<_> = (0..5).map(|_| join(&queue, "a", None)).collect();
    // Five wait, in batches of two that take half a second each: the sixth would be in the third batch.
    let _sixth = join(&queue, "a", None);
    let (waiting, _ticket) = ticket::pair(purchase("b", None), Instant::now() + 10 * SECOND);
    match queue.join(waiting, limits()) {
        Err(ChangeError::Overloaded { retry_after, .. }) => assert_eq!(retry_after, 3 * SECOND / 2),
        _ => panic!("it is let in"),
    }
    drop(tickets);
    // One that would be next is let in, however slow the last one was.
    queue.note(None, 100 * SECOND, 1);
    assert_eq!(queue.take_batch(9).len(), 1);
    let _alone = join(&queue, "c", None);
}

#[tokio::test]
async fn copies_of_what_a_worker_has_lost_are_of_unknown_outcome() {
    let queue = queue();
    let first = join(&queue, "a", Some("k"));
    let mut copy = join(&queue, "a", Some("k"));
    let _other = join(&queue, "b", Some("l"));
    drop(queue.take_batch(1));
    queue.abandon();
    assert_eq!(copy.result().await.unwrap_err(), ChangeError::OutcomeUnknown);
    // The key is free for the next request, and what waits still does.
    let _again = join(&queue, "a", Some("k"));
    assert_eq!(buyers(&queue.take_batch(9)), ["b", "a"]);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_waited_for_where_the_last_one_came_soon() {
    let queue = queue();
    let linger = Duration::from_millis(1);
    let until = || Instant::now() + linger;
    let _first = join(&queue, "a", None);
    drop(queue.take_batch(9));
    assert!(!queue.expects_more(linger), "no other has come yet");
    tokio::time::advance(linger).await;
    let _second = join(&queue, "b", None);
    drop(queue.take_batch(9));
    assert!(queue.expects_more(linger));
    let third = async { join(&queue, "c", None) };
    let (came, _third) = tokio::join!(queue.linger(until()), third);
    assert!(came);
    assert_eq!(buyers(&queue.take_batch(9)), ["c"]);
    assert!(queue.expects_more(linger));
    assert!(!queue.linger(until()).await, "none came");
    tokio::time::advance(linger).await;
    let _late = join(&queue, "d", None);
    drop(queue.take_batch(9));
    assert!(!queue.expects_more(linger), "the last one was late");
}

#[tokio::test]
async fn what_was_stale_is_put_back_in_order() {
    let queue = queue();
    let _tickets: Vec<_> = ["a", "b", "c"].map(|buyer| join(&queue, buyer, None)).into();
    let batch = queue.take_batch(2);
    assert_eq!(queue.settle(batch, vec![None, None]), Some(1));
    assert_eq!(buyers(&queue.take_batch(9)), ["a", "b", "c"]);
}
