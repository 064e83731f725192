//! The queue of one product on one replica: who waits, in order, and what is known of the product.
//!
//! Of changes with the same idempotency key only the first waits in the queue. The others are attached to it, and get
//! its result: they neither take a place in a batch nor go to the database.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::pace::Pace;
use super::ticket::Waiting;
use crate::change::{Change, ChangeError, ChangeResult, Made};
use crate::critical_section::Memory;
use crate::order::{IdempotencyKey, Sku};

/// How often a change is decided again when the stock has changed under it.
const MAX_RETRIES: u32 = 100;

/// How many may wait, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most changes that wait for one product.
    pub(super) queue: usize,
    /// The most changes in one batch.
    pub(super) max_batch: usize,
    /// The longest time that a change waits for the lock.
    pub(super) lock_wait: Duration,
}

/// The queue of one product.
pub(super) struct Queue {
    sku: Sku,
    state: Mutex<State>,
    /// Wakes a worker that lingers.
    joined: Notify,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// For each key that waits in the queue or is being executed: those that came with the same.
    copies: HashMap<CopyKey, Vec<Waiting>>,
    /// Whether a worker serves the queue.
    has_worker: bool,
    memory: Option<Memory>,
    pace: Pace,
    abandoned: Counter,
    /// When the last batch was taken.
    taken: Instant,
    /// When the last worker left.
    idle_since: Instant,
    /// When the worker found nothing more to do under its hold, until the next change comes.
    ran_dry: Option<Instant>,
    /// How long that was the last time; `None` as long as it is not known.
    gap: Option<Duration>,
    /// Whether the worker holds the lock and waits for the next change.
    lingers: bool,
}

/// What became of a change that has joined.
pub(super) enum Joined {
    /// It waits; there is no worker yet.
    WithoutWorker,
    /// It waits.
    Queued,
    /// It gets the result of the one with the same idempotency key.
    Attached,
}

impl Queue {
    /// An empty queue; `abandoned` counts the changes that are withdrawn from it.
    pub(super) fn new(sku: Sku, abandoned: Counter) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            copies: HashMap::new(),
            has_worker: false,
            memory: None,
            pace: Pace::default(),
            abandoned,
            taken: Instant::now(),
            idle_since: Instant::now(),
            ran_dry: None,
            gap: None,
            lingers: false,
        };
        Self { sku, state: Mutex::new(state), joined: Notify::new() }
    }

    /// The product.
    pub(super) fn sku(&self) -> &Sku {
        &self.sku
    }

    /// Joins the queue. Refused at once when it is full, or when the change would not come to its turn in time.
    pub(super) fn join(&self, waiting: Waiting, limits: Limits) -> Result<Joined, ChangeError> {
        let mut state = self.lock();
        if let Some(copies) = copy_key(&waiting.change).and_then(|key| state.copies.get_mut(&key)) {
            copies.push(waiting);
            return Ok(Joined::Attached);
        }
        if state.waiting.len() >= limits.queue {
            return Err(ChangeError::overloaded("too many orders wait for this product"));
        }
        state.shed(&waiting, limits)?;
        if let Some(ran_dry) = state.ran_dry.take() {
            state.gap = Some(waiting.since - ran_dry);
        }
        state.push_back(waiting);
        if std::mem::take(&mut state.lingers) {
            self.joined.notify_one();
        }
        if state.has_worker {
            return Ok(Joined::Queued);
        }
        state.has_worker = true;
        Ok(Joined::WithoutWorker)
    }

    /// When the change that has waited for the longest has waited for too long; `None` when none waits.
    pub(super) fn next_overdue(&self, lock_wait: Duration) -> Option<Instant> {
        let mut state = self.lock();
        state.drop_withdrawn();
        state.waiting.front().map(|first| overdue(first, lock_wait))
    }

    /// Refuses those that have waited for too long.
    pub(super) fn refuse_overdue(&self, lock_wait: Duration, error: &ChangeError) {
        let now = Instant::now();
        self.refuse(error, |waiting| overdue(waiting, lock_wait) <= now);
    }

    /// Refuses those that came before `moment`.
    pub(super) fn refuse_older(&self, moment: Instant, error: &ChangeError) {
        self.refuse(error, |waiting| waiting.since <= moment);
    }

    fn refuse(&self, error: &ChangeError, is_over: impl Fn(&Waiting) -> bool) {
        let mut refused = Vec::new();
        let mut state = self.lock();
        while let Some(first) = state.waiting.pop_front_if(|first| first.is_withdrawn() || is_over(first)) {
            if first.is_withdrawn() {
                state.abandoned.inc();
            }
            state.promote_copy(&first, &is_over, &mut refused);
            refused.push(first);
        }
        drop(state);
        refused.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
    }

    /// The next changes to be made in one commit, at most `most`, in the order in which they came.
    ///
    /// A batch has an order to cancel at most once, since the second must see what became of the first; and a reset is
    /// alone.
    pub(super) fn take_batch(&self, most: usize) -> Vec<Waiting> {
        let mut batch: Vec<Waiting> = Vec::new();
        let mut cancelled = HashSet::new();
        let mut state = self.lock();
        state.taken = Instant::now();
        while batch.len() < most {
            state.drop_withdrawn();
            let Some(first) = state.waiting.front() else { break };
            let is_alone = matches!(first.change, Change::Reset(_));
            let is_second =
                matches!(&first.change, Change::Cancellation(order, _) if !cancelled.insert(order.id));
            if is_second || (is_alone && !batch.is_empty()) {
                break;
            }
            // One that was withdrawn this very moment is dropped in the next round.
            if !first.begin() {
                continue;
            }
            batch.extend(state.waiting.pop_front());
            if is_alone {
                break;
            }
        }
        batch
    }

    /// Tells those of a batch their results, and those that are attached to them. What has none is put back: the stock
    /// had changed under it. Returns how often one of these has been put back, at the most.
    pub(super) fn settle(&self, batch: Vec<Waiting>, results: Vec<Option<ChangeResult>>) -> Option<u32> {
        let mut settled = Vec::with_capacity(batch.len());
        let mut most_retries = None;
        let mut state = self.lock();
        for (mut waiting, result) in batch.into_iter().zip(results).rev() {
            let result = match result {
                Some(result) => result,
                None if waiting.retries >= MAX_RETRIES => {
                    Err(ChangeError::overloaded("the stock kept changing at the same moment"))
                }
                None if waiting.due <= Instant::now() => Err(ChangeError::LockTimeout),
                None => {
                    waiting.put_back();
                    most_retries = most_retries.max(Some(waiting.retries));
                    state.waiting.push_front(waiting);
                    continue;
                }
            };
            state.settle_copies(&waiting, &result, &mut settled);
            settled.push((waiting, result));
        }
        drop(state);
        // In the order in which they came.
        settled.into_iter().rev().for_each(|(waiting, result)| waiting.answer(result));
        most_retries
    }

    /// What is known of the product from the last time.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.lock().memory
    }

    /// Notes what is known of the product now, and that so many batches took so long.
    pub(super) fn note(&self, memory: Option<Memory>, took: Duration, batches: u32) {
        let mut state = self.lock();
        state.memory = memory;
        if batches > 0 {
            state.pace.note(took / batches);
        }
    }

    /// Whether the next change is likely to come within `linger`: the last one did, after the worker had found nothing
    /// more to do, as it has now.
    pub(super) fn expects_more(&self, linger: Duration) -> bool {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.ran_dry = Some(Instant::now());
            state.lingers = state.gap.is_some_and(|gap| gap <= linger);
            return state.lingers;
        }
        true
    }

    /// Waits for a change that is [expected](Self::expects_more), until `deadline`; `false` when none came.
    pub(super) async fn linger(&self, deadline: Instant) -> bool {
        while self.lock().lingers {
            if timeout_at(deadline, self.joined.notified()).await.is_err() {
                break;
            }
        }
        let mut state = self.lock();
        state.lingers = false;
        !state.waiting.is_empty()
    }

    /// Lets the worker go; `false` when it may not, since a change waits.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.lock();
        state.drop_withdrawn();
        if !state.waiting.is_empty() {
            return false;
        }
        state.leave();
        true
    }

    /// Notes that the worker is gone in the middle of its work. What it had begun is lost, and of what is attached to that
    /// nothing is known.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        let State { waiting, copies, .. } = &mut *state;
        let waits =
            |key: &CopyKey| waiting.iter().any(|waiting| copy_key(&waiting.change).as_ref() == Some(key));
        let orphans: Vec<_> =
            copies.extract_if(|key, _| !waits(key)).flat_map(|(_, copies)| copies).collect();
        state.leave();
        drop(state);
        orphans.into_iter().for_each(|copy| copy.answer(Err(ChangeError::OutcomeUnknown)));
    }

    /// Whether nothing has happened for so long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let state = self.lock();
        !state.has_worker && state.idle_since.elapsed() >= time
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }
}

impl State {
    fn push_back(&mut self, waiting: Waiting) {
        if let Some(key) = copy_key(&waiting.change) {
            self.copies.entry(key).or_default();
        }
        self.waiting.push_back(waiting);
    }

    /// Refuses a change whose turn would come too late, as far as can be told from those before it. One that would be
    /// in the next batch is always let in: the pace is measured by those who are.
    fn shed(&self, waiting: &Waiting, limits: Limits) -> Result<(), ChangeError> {
        let batches = self.waiting.len() / limits.max_batch;
        let expected = self.pace.of(batches);
        let allowed = overdue(waiting, limits.lock_wait).duration_since(waiting.since);
        if expected <= allowed {
            return Ok(());
        }
        let reason = "orders for this product come faster than they can be served";
        Err(ChangeError::Overloaded { reason, retry_after: expected })
    }

    fn drop_withdrawn(&mut self) {
        while let Some(first) = self.waiting.pop_front_if(|first| first.is_withdrawn()) {
            self.abandoned.inc();
            self.promote_copy(&first, &|_| false, &mut Vec::new());
        }
    }

    /// Gives the place of one that leaves the queue without a result to the next with the same key that is not over
    /// too.
    fn promote_copy(&mut self, gone: &Waiting, is_over: &dyn Fn(&Waiting) -> bool, over: &mut Vec<Waiting>) {
        let Some(key) = copy_key(&gone.change) else { return };
        let mut copies = self.copies.remove(&key).into_iter().flatten();
        let next = loop {
            match copies.next() {
                None => return,
                Some(copy) if copy.is_withdrawn() => {}
                Some(copy) if is_over(&copy) => over.push(copy),
                Some(copy) => break copy,
            }
        };
        self.copies.insert(key, copies.collect());
        self.waiting.push_front(next);
    }

    /// Those that are attached to one with a result: the same request gets the same, and another one with the same key is
    /// refused if the first was made, or else decided by itself. So is one that came after the first was begun, where that was
    /// refused for want of stock: more may have been put in stock before it came.
    fn settle_copies(
        &mut self,
        first: &Waiting,
        result: &ChangeResult,
        settled: &mut Vec<(Waiting, ChangeResult)>,
    ) {
        let Some(copies) = copy_key(&first.change).and_then(|key| self.copies.remove(&key)) else { return };
        for copy in copies {
            let is_same = first.change.request() == copy.change.request();
            match result {
                Ok(made) if is_same => {
                    settled.push((copy, Ok(Made { replayed: true, ..made.clone() })));
                }
                Ok(_) => settled.push((copy, Err(ChangeError::KeyReused))),
                Err(error)
                    if is_same
                        && (copy.since <= self.taken
                            || !matches!(error, ChangeError::InsufficientStock { .. })) =>
                {
                    settled.push((copy, Err(error.clone())));
                }
                Err(_) => match copy_key(&copy.change).and_then(|key| self.copies.get_mut(&key)) {
                    Some(copies) => copies.push(copy),
                    None => self.push_back(copy),
                },
            }
        }
    }

    fn leave(&mut self) {
        self.has_worker = false;
        self.lingers = false;
        self.idle_since = Instant::now();
    }
}

/// When a change has waited for the lock for too long, or its client's time is over.
fn overdue(waiting: &Waiting, lock_wait: Duration) -> Instant {
    (waiting.since + lock_wait).min(waiting.due)
}

/// By what copies are known: orders have keys of their own.
type CopyKey = (bool, IdempotencyKey);

fn copy_key(change: &Change) -> Option<CopyKey> {
    change.key().map(|key| (change.is_purchase(), key.clone()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::api::{LockEvidence, NewOrder, Order, OrderStatus};
    use crate::change::Outcome;
    use crate::checkout::ticket::{self, Ticket};
    use crate::order::OrderRequest;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits { queue: 100, max_batch: 2, lock_wait: SECOND }
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
            stock_before: 2,
            stock_after: 1,
            version: 1,
            lock: LockEvidence { strategy: "local".into(), fencing_token: None },
            replica: "a".into(),
            created_at: jiff::Timestamp::now(),
        }
    }

    fn buyers(batch: &[Waiting]) -> Vec<&str> {
        let buyer = |waiting: &Waiting| match &waiting.change {
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
        let results =
            vec![Some(Ok(Outcome::Ordered(order("a")).into())), Some(Err(ChangeError::LockTimeout))];
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
        // Perhaps after somebody has put more in stock.
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
    async fn whoever_is_overdue_is_refused_and_nobody_else() {
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
        assert!(!queue.expects_more(linger), "nobody has come again yet");
        tokio::time::advance(linger).await;
        let _second = join(&queue, "b", None);
        drop(queue.take_batch(9));
        assert!(queue.expects_more(linger));
        let third = async { join(&queue, "c", None) };
        let (came, _third) = tokio::join!(queue.linger(until()), third);
        assert!(came);
        assert_eq!(buyers(&queue.take_batch(9)), ["c"]);
        assert!(queue.expects_more(linger));
        assert!(!queue.linger(until()).await, "nobody came");
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
}
