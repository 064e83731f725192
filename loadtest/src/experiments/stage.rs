//! What the experiments share: a clock with notes, and customers who order by hand.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use order_service::api::{NewOrder, Order, Problem};
use order_service::lock::{DatabaseLock, Holder};
use tokio::time::sleep;

use crate::client::Client;

/// The product of the course.
pub(super) const SKU: &str = "hair-dryer";

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes of what happened when.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    start: Instant,
    notes: Vec<(Instant, String)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { start: Instant::now(), notes: Vec::new() }
    }
}

impl Timeline {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.notes.push((Instant::now(), what.into()));
    }

    /// Notes what a customer was told, at the time of the answer.
    pub(super) fn note_told(&mut self, who: &str, told: &Told) {
        self.notes.push((told.at, told.words(who)));
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut notes: Vec<_> = self.notes.iter().collect();
        notes.sort_by_key(|(at, _)| *at);
        let line = |(at, what): &(Instant, String)| {
            format!("{:>6} ms  {what}", at.duration_since(self.start).as_millis())
        };
        notes.into_iter().map(line).collect()
    }
}

/// What a customer is told, and when.
#[derive(Debug, Clone)]
pub(super) struct Told {
    at: Instant,
    answer: Result<Order, Box<Problem>>,
}

impl Told {
    /// The order, if it is confirmed.
    pub(super) fn order(&self) -> Option<&Order> {
        self.answer.as_ref().ok()
    }

    /// Whether it is refused with this problem.
    pub(super) fn is(&self, slug: &str) -> bool {
        self.answer.as_ref().is_err_and(|problem| problem.kind == format!("/problems/{slug}"))
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
pub(super) async fn order(client: &Client, buyer: &str, quantity: i64) -> anyhow::Result<Told> {
    let body = NewOrder { sku: SKU.into(), quantity, buyer: buyer.into() };
    let response = client.order(&body, None, PATIENCE).await?;
    let at = Instant::now();
    if response.status.is_success() {
        return Ok(Told { at, answer: Ok(serde_json::from_slice(&response.body)?) });
    }
    match response.problem() {
        Some(problem) => Ok(Told { at, answer: Err(Box::new(problem)) }),
        None => bail!("{buyer} was answered {} without a problem document", response.status),
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
