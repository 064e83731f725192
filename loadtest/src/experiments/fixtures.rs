//! What the experiments share: customers who order by hand, and what is waited for.

mod timed_runs;
mod contenders;
mod crash;
mod excerpt;
mod hold_watch;
mod loss;
mod outage;
mod recorded;
mod two_at_once;

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use jiff::Timestamp;
use order_service::api::{LockHolder, NewOrder, Order, Problem};
use order_service::lock::{DatabaseLock, Holder, Lock};
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::timeline::Timeline;
use crate::client::Client;
use crate::metrics::LockFigures;
use crate::problem::ProblemKind;

pub(crate) use contenders::Contenders;
pub(super) use crash::{recovery, watch_crash};
pub(super) use excerpt::excerpt;
pub(super) use hold_watch::HoldWatch;
pub(super) use loss::{Loss, REQUEST_TIMEOUT, Shop, Victim};
pub(super) use recorded::Participant;
pub(super) use timed_runs::TimedRuns;
pub(super) use two_at_once::{Aftermath, TwoAtOnce};

/// The product of the course.
pub(super) const SKU: &str = "hair-dryer";

/// How long anything is waited for that must come.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Timeline {
    /// Records what a customer was answered, and what that says of the reading and the writing.
    pub(super) fn note_reply(&self, who: &str, told: &Reply) {
        let buyer = Party::buyer(who);
        let replica = self.asked_by(&buyer).unwrap_or_else(|| Party::holder("the shop"));
        match &told.answer {
            Ok(order) => {
                let database = Party::database();
                let (read, left, name) = (order.stock_before, order.stock_after, &order.replica);
                let what = format!("{name} reads for {who} that {read} are left");
                let label = format!("reads: {read} left");
                self.arrow_at(told.read_at(order), EventKind::Read, [&database, &replica], label, what);
                // Under a lock, the record of the hold says when.
                if !self.was_granted(&replica) {
                    let what = format!("{name} writes for {who} that {left} are left");
                    let label = format!("writes: {left} left");
                    self.arrow_at(told.at, EventKind::Written, [&replica, &database], label, what);
                }
                let label = format!("bought {}", order.quantity);
                self.arrow_at(told.at, EventKind::Answered, [&replica, &buyer], label, told.words(who));
            }
            Err(problem) => {
                let label = problem.title.clone();
                self.arrow_at(told.at, EventKind::Refused, [&replica, &buyer], label, told.words(who));
            }
        }
    }
}

/// What a customer was answered, and when.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// When.
    pub(super) at: Instant,
    answer: Result<Order, Box<Problem>>,
}

impl Reply {
    /// The order, if it is confirmed.
    pub(super) fn order(&self) -> Option<&Order> {
        self.answer.as_ref().ok()
    }

    /// Whether it is refused with this problem.
    pub(super) fn is(&self, kind: &ProblemKind) -> bool {
        self.answer.as_ref().is_err_and(|problem| ProblemKind::of(problem) == *kind)
    }

    /// When the stock was read, by the order's own time stamp.
    fn read_at(&self, order: &Order) -> Instant {
        let ago = Timestamp::now().duration_since(order.created_at);
        let ago = Duration::try_from(ago).unwrap_or_default();
        Instant::now().checked_sub(ago).unwrap_or(self.at).min(self.at)
    }

    fn words(&self, who: &str) -> String {
        match &self.answer {
            Ok(order) => format!(
                "{who} has bought {} from {}: read {}, left {}",
                order.quantity, order.replica, order.stock_before, order.stock_after
            ),
            Err(problem) => format!("{who} is told: {}", problem.detail),
        }
    }
}

/// A customer orders, and waits for whatever answer there is.
pub(super) async fn order(client: &Client, buyer: &str, quantity: i64) -> anyhow::Result<Reply> {
    let body = NewOrder { sku: SKU.into(), quantity, buyer: buyer.into() };
    let response = client.order(&body, None, TIMEOUT).await?;
    let at = Instant::now();
    if response.status.is_success() {
        return Ok(Reply { at, answer: Ok(serde_json::from_slice(&response.body)?) });
    }
    match response.problem() {
        Some(problem) => Ok(Reply { at, answer: Err(Box::new(problem)) }),
        None => bail!("{buyer} was answered {} without a problem document", response.status),
    }
}

/// Waits until the lock table holds a record that `wanted` accepts.
pub(super) async fn until_held(
    table: &DatabaseLock,
    wanted: impl Fn(&Holder) -> bool,
) -> anyhow::Result<Holder> {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        if let Some(holder) = table.holders().await?.into_iter().find(|holder| wanted(holder)) {
            return Ok(holder);
        }
        ensure!(Instant::now() < give_up, "the lock was never taken");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until so many wait for the product's lock.
pub(super) async fn until_waiting(client: &Client, waiting: u64) -> anyhow::Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let state = client.lock(SKU).await;
        if state.as_ref().is_ok_and(|state| state.waiting >= waiting) {
            return Ok(());
        }
        // A server that is late with its answer, as on a busy machine, is asked again.
        if Instant::now() > give_up {
            return Err(state.err().map_or_else(|| anyhow!("no order waits for the lock"), Into::into));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until this replica has the product's lock, as the one behind `witness` sees it.
pub(super) async fn until_holds(witness: &Client, replica: &str) -> anyhow::Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    let has = |holder: &LockHolder| holder.replica.as_deref() == Some(replica);
    loop {
        let state = witness.lock(SKU).await;
        if state.as_ref().is_ok_and(|state| state.holders.iter().any(has)) {
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(state.err().map_or_else(|| anyhow!("{replica} never had the lock"), Into::into));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until `holding` have the lock and `waiting` wait for it, as `lock` sees it.
pub(super) async fn until_census(lock: &dyn Lock, holding: usize, waiting: u64) -> anyhow::Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let state = lock.state(SKU).await?;
        if state.holders.len() == holding && state.waiting == waiting {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "not {holding} that hold and {waiting} that wait, but {state:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// When an attempt gives up that must not fail.
pub(super) fn patiently() -> tokio::time::Instant {
    tokio::time::Instant::now() + TIMEOUT
}

/// What a replica's locks and its guard have counted since it was started.
pub(super) async fn counted(client: &Client) -> anyhow::Result<LockFigures> {
    Ok(LockFigures::between(&[(String::new(), client.metrics().await?)]))
}

/// A time as people read it.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Whether a record is of this replica.
pub(super) fn is_of(replica: &'static str) -> impl Fn(&Holder) -> bool {
    move |holder| holder.replica.as_deref() == Some(replica)
}
