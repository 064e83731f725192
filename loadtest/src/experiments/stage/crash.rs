//! A holder is ended with kill -9 in the middle of an order. When does the next one have the lock?

use std::time::{Duration, Instant};

use order_service::config::StrategyName;

use super::{SKU, Timeline, order, until_holds};
use crate::fleet::{Fleet, FleetPlan};

/// Replicas of which one is going to crash; leases and sessions are of one second.
pub(in crate::experiments) async fn fleet(strategy: StrategyName) -> anyhow::Result<Fleet> {
    let plan = FleetPlan::new(strategy, 2)?
        .with("lock.wait", "20s")
        .with("server.request_timeout", "25s")
        .with("checkout.think_time", "400ms");
    let plan = match strategy.lease_key() {
        Some(key) => plan.with(key, "1s"),
        None => plan,
    };
    Fleet::start(plan).await
}

/// From the crash of a holder to the next one's having the lock, with a lease of one second.
pub(in crate::experiments) async fn recovery(
    strategy: StrategyName,
    timeline: &mut Timeline,
) -> anyhow::Result<Duration> {
    let mut fleet = fleet(strategy).await?;
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    first.create_product(SKU, "Hair dryer", 5).await?;
    timeline.note(format!("{strategy}: A orders from replica-1"));
    let abandoned = tokio::spawn(async move { order(&first, "A", 1).await });
    until_holds(&second, "replica-1").await?;
    fleet.replicas()[0].kill().await?;
    timeline.note("replica-1 has the lock, and is ended with kill -9");
    let crashed = Instant::now();
    // The connection broke with the replica; what A makes of that is no matter here.
    abandoned.await?.ok();
    let waited = watch_crash(&second, crashed, timeline).await?;
    Ok(waited)
}

/// B orders from the second replica. Answers how long after the crash it had the lock.
pub(in crate::experiments) async fn watch_crash(
    second: &crate::client::Client,
    crashed: Instant,
    timeline: &mut Timeline,
) -> anyhow::Result<Duration> {
    let (told, waited) = tokio::join!(order(second, "B", 1), async {
        until_holds(second, "replica-2").await?;
        timeline.note("replica-2 has the lock for B");
        anyhow::Ok(crashed.elapsed())
    });
    let told = told?;
    timeline.note_told("B", &told);
    anyhow::ensure!(told.order().is_some(), "B could not buy after the crash");
    waited
}
