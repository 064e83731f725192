//! What the experiments share: a clock with notes, and customers who order by hand.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use order_service::api::{NewOrder, Order, Problem};
use order_service::lock::{DatabaseLock, Holder};
use tokio::time::sleep;

use crate::client::{Answer, Client};

/// The product of the course.
pub(super) const SKU: &str = "hair-dryer";

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes of what happened when.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    start: Instant,
    notes: Vec<(Duration, String)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { start: Instant::now(), notes: Vec::new() }
    }
}

impl Timeline {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.notes.push((self.start.elapsed(), what.into()));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.notes.iter().map(|(at, what)| format!("{:>6} ms  {what}", at.as_millis())).collect()
    }
}

/// What a customer is told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// The order is confirmed.
    Bought(Order),
    /// It is refused, definitely.
    Refused(Box<Problem>),
}

impl Told {
    /// The order, if it is confirmed.
    pub(super) fn order(&self) -> Option<&Order> {
        match self {
            Self::Bought(order) => Some(order),
            Self::Refused(_) => None,
        }
    }

    /// Whether it is refused with this problem.
    pub(super) fn is(&self, slug: &str) -> bool {
        matches!(self, Self::Refused(problem) if problem.kind.ends_with(slug))
    }

    /// In words.
    pub(super) fn words(&self, who: &str) -> String {
        match self {
            Self::Bought(order) => format!(
                "{who} has bought {} from {}: read {}, left {}",
                order.quantity, order.replica, order.stock_before, order.stock_after
            ),
            Self::Refused(problem) => format!("{who} is told: {}", problem.detail),
        }
    }
}

/// A customer orders, and waits for whatever answer there is.
pub(super) async fn order(client: &Client, buyer: &str, quantity: i64) -> anyhow::Result<Told> {
    let body = NewOrder { sku: SKU.into(), quantity, buyer: buyer.into() };
    let answer: Answer = client.order(&body, None, PATIENCE).await?;
    if answer.status.is_success() {
        return Ok(Told::Bought(serde_json::from_slice(&answer.body)?));
    }
    match answer.problem() {
        Some(problem) => Ok(Told::Refused(Box::new(problem))),
        None => bail!("{buyer} was answered {} without a problem document", answer.status),
    }
}

/// Waits until the lock table holds a record that `wanted` accepts.
pub(super) async fn until_held(
    table: &DatabaseLock,
    wanted: impl Fn(&Holder) -> bool,
) -> anyhow::Result<Holder> {
    let give_up = Instant::now() + PATIENCE;
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
    let give_up = Instant::now() + PATIENCE;
    while client.lock(SKU).await?.waiting < waiting {
        ensure!(Instant::now() < give_up, "nobody waits for the lock");
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Whether a record is of this replica.
pub(super) fn is_of(replica: &'static str) -> impl Fn(&Holder) -> bool {
    move |holder| holder.replica.as_deref() == Some(replica)
}
