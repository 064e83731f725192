//! A has the lock and loses it before she has written; B gets it. What becomes of the stock?

use std::time::Duration;

use order_service::api::Audit;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{SKU, Timeline, Told, counted, order};
use crate::client::Client;

/// How long after she has the lock A has surely read the stock. That she has is judged from what comes of it.
const READING: Duration = Duration::from_millis(250);

/// The stage: A orders one of two, and B both.
pub(in crate::experiments) struct TwoAtOnce {
    first: Client,
    second: Client,
    a: JoinHandle<anyhow::Result<Told>>,
    b: Option<Told>,
    overlapped: bool,
}

/// What came of it.
pub(in crate::experiments) struct Aftermath {
    pub(in crate::experiments) a: Told,
    pub(in crate::experiments) b: Told,
    /// Whether B had the lock while A was still at work under hers.
    pub(in crate::experiments) overlapped: bool,
    pub(in crate::experiments) audit: Audit,
    /// Stale writes that the guard refused.
    pub(in crate::experiments) refused: u64,
}

impl TwoAtOnce {
    /// A orders from `first`, has the lock and has read. Orders must take a good deal longer than that.
    pub(in crate::experiments) async fn begin(
        first: &Client,
        second: &Client,
        timeline: &mut Timeline,
    ) -> anyhow::Result<Self> {
        first.create_product(SKU, "Hair dryer", 2).await?;
        let replica = first.info().await?.replica;
        timeline.note(format!("A orders 1 from {replica}"));
        let client = first.clone();
        let a = tokio::spawn(async move { order(&client, "A", 1).await });
        super::until_holds(first, &replica).await?;
        timeline.note(format!("{replica} has the lock for A"));
        sleep(READING).await;
        Ok(Self { first: first.clone(), second: second.clone(), a, b: None, overlapped: false })
    }

    /// B orders from the other replica, and is answered.
    pub(in crate::experiments) async fn b_orders(&mut self, timeline: &mut Timeline) -> anyhow::Result<()> {
        let replica = self.second.info().await?.replica;
        timeline.note(format!("B orders 2 from {replica}"));
        let client = self.second.clone();
        let b = tokio::spawn(async move { order(&client, "B", 2).await });
        tokio::pin!(b);
        let told = tokio::select! {
            told = &mut b => told,
            held = super::until_holds(&self.second, &replica) => {
                held?;
                self.overlapped = !self.a.is_finished();
                let a = if self.overlapped { "A is still at work" } else { "A has been answered" };
                timeline.note(format!("{replica} has the lock for B; {a}"));
                b.await
            }
        };
        let told = told??;
        timeline.note_told("B", &told);
        self.b = Some(told);
        Ok(())
    }

    /// A is answered, and the books are looked at.
    pub(in crate::experiments) async fn end(self, timeline: &mut Timeline) -> anyhow::Result<Aftermath> {
        let a = self.a.await??;
        timeline.note_told("A", &a);
        let audit = self.second.audit(SKU).await?;
        let refused = counted(&self.first).await?.stale_writes_rejected
            + counted(&self.second).await?.stale_writes_rejected;
        timeline
            .note(format!("the orders say {} sold of 2; {refused} stale writes refused", audit.units_sold));
        let b = self.b.ok_or_else(|| anyhow::anyhow!("B never ordered"))?;
        Ok(Aftermath { a, b, overlapped: self.overlapped, audit, refused })
    }
}

impl Aftermath {
    /// Whether it came to what the claim is about: B had the lock while A was at work on what she had read before.
    pub(in crate::experiments) fn occurred(&self) -> bool {
        let read_before = self.a.order().is_some_and(|order| order.stock_before == 2);
        self.overlapped && (read_before || self.refused > 0)
    }

    /// Whether two were at work at once and more was sold than there was.
    pub(in crate::experiments) fn oversold(&self) -> bool {
        self.overlapped && self.audit.oversold_units > 0
    }

    /// Whether two were at work at once, the stale write was refused and no more was sold than there was.
    pub(in crate::experiments) fn guarded(&self) -> bool {
        self.overlapped && self.refused > 0 && self.audit.oversold_units == 0 && self.audit.balanced
    }

    /// What was sold, in words.
    pub(in crate::experiments) fn figure(&self) -> String {
        let pair = self.pair().map_or_else(String::new, |pair| format!("; {pair}"));
        format!("{} sold of 2, {} stale writes refused{pair}", self.audit.units_sold, self.refused)
    }

    /// The two orders that read the same, where there are such.
    pub(in crate::experiments) fn pair(&self) -> Option<String> {
        let (a, b) = (self.a.order()?, self.b.order()?);
        let same = |orders: &[uuid::Uuid]| orders.contains(&a.id) && orders.contains(&b.id);
        let read = self.audit.duplicate_reads.iter().find(|read| same(&read.orders))?;
        let what = format!("{} in stock and wrote version {}", read.stock_before, read.version);
        Some(format!("A's order {} and B's order {} both read {what}", a.id, b.id))
    }
}
