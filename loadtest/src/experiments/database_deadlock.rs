//! A holder is killed: without an expiry everybody waits for ever, with a lease only so long.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use order_service::config::StrategyName;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, SKU, is_of, order, until_held};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::client::Client;
use crate::fleet::{Fleet, FleetPlan};
use crate::problem::ProblemKind;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "database-deadlock",
    title: "A holder crashes, and its record stays",
    claim: "A lock-table record has no expiry: a holder that crashes leaves it, and everybody else waits for \
        ever. (With a lease they wait only that long.)",
    setup: "two replicas; the one that holds the lock is ended with kill -9 in the middle of an order; first \
        with lease = \"never\" and an operator, then with a lease of 2 s",
    advice: Advice::if_reproduced(
        "Never keep a lock without an expiry. Give it a short lease and renew that while the work goes \
         on: a crash then costs you the length of the lease, and nobody has to delete records by hand.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

const LEASE: Duration = Duration::from_secs(2);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let blocked = without_expiry(&observation.timeline.scene("lease = \"never\"")).await?;
    let waited = with_lease(&observation.timeline.scene("lease = \"2s\"")).await?;
    observation
        .figures
        .push(("waited after the crash, lease 2 s".into(), format!("{:.2} s", waited.as_secs_f64())));
    let in_time = waited <= LEASE + Duration::from_secs(1);
    observation.observed = format!(
        "without an expiry {}; with a lease of 2 s the next order had the lock {:.2} s after the crash",
        if blocked {
            "no other got the lock until the record was deleted by hand"
        } else {
            "another holder got the lock"
        },
        waited.as_secs_f64()
    );
    observation.finding = Some(if blocked && in_time { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Returns whether the dead holder's record kept the others out until it was deleted.
async fn without_expiry(timeline: &Timeline) -> anyhow::Result<bool> {
    let plan = FleetPlan::new(StrategyName::Database, 2)?
        .with("lock.database.lease", "never")
        .with("lock.wait", "1s")
        .with("checkout.think_time", "1s");
    let mut fleet = Fleet::start(plan).await?;
    let (survivor, watch) = crash_while_holding(&mut fleet, timeline).await?;
    let mut blocked = true;
    for buyer in ["B", "C"] {
        timeline.orders(buyer, 1, "replica-2");
        let told = order(&survivor, buyer, 1).await?;
        timeline.note_reply(buyer, &told);
        blocked &= told.is(&ProblemKind::LockTimeout);
    }
    let table = fleet.lock_table().await?;
    let record = table.holders().await?.into_iter().find(is_of("replica-1"));
    let token = record.and_then(|record| record.token).context("the dead holder's record is gone")?;
    blocked &= table.delete_record(token).await?;
    let parties = [&Party::lock("lock table"), &Party::holder("replica-1")];
    timeline.arrow(
        EventKind::Lapsed,
        parties,
        "deleted by hand",
        "the operator deletes the record of replica-1",
    );
    timeline.orders("D", 1, "replica-2");
    let told = order(&survivor, "D", 1).await?;
    watch.look().await;
    timeline.note_reply("D", &told);
    blocked &= told.order().is_some();
    Ok(blocked)
}

/// Returns how long after the crash the next order had the lock.
async fn with_lease(timeline: &Timeline) -> anyhow::Result<Duration> {
    let plan = FleetPlan::new(StrategyName::Database, 2)?
        .with("lock.database.lease", "2s")
        .with("lock.wait", "10s")
        .with("server.request_timeout", "20s")
        .with("checkout.think_time", "1s");
    let mut fleet = Fleet::start(plan).await?;
    let table = fleet.lock_table().await?;
    let (survivor, watch) = crash_while_holding(&mut fleet, timeline).await?;
    timeline.orders("B", 1, "replica-2");
    let crashed = Instant::now();
    let (told, taken) = tokio::join!(order(&survivor, "B", 1), async {
        until_held(&table, is_of("replica-2")).await?;
        anyhow::Ok(crashed.elapsed())
    });
    watch.look().await;
    timeline.note_reply("B", &told?);
    let waited = taken?;
    Ok(waited)
}

/// Ends the first replica while it holds the lock. Returns a client of the second, and who watches both.
async fn crash_while_holding(fleet: &mut Fleet, timeline: &Timeline) -> anyhow::Result<(Client, HoldWatch)> {
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    first.create_product(SKU, "Hair dryer", 5).await?;
    let watch = HoldWatch::start(timeline, fleet.clients()).await?;
    let table = fleet.lock_table().await?;
    timeline.orders("A", 1, "replica-1");
    let abandoned = tokio::spawn(async move { order(&first, "A", 1).await });
    until_held(&table, is_of("replica-1")).await?;
    watch.look().await;
    fleet.replicas()[0].kill().await?;
    timeline.crashed("replica-1", "replica-1 has the lock, and is ended with kill -9");
    // The connection broke with the replica; what A makes of that is no matter here.
    abandoned.await?.ok();
    Ok((second, watch))
}
