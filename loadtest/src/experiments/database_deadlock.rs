//! A holder is killed: without an expiry everybody waits for ever, with a lease only so long.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use order_service::config::StrategyName;

use super::fixtures::{SKU, is_of, order, until_held};
use super::{Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};
use crate::problem::ProblemKind;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "database-deadlock",
    claim: "A lock-table record has no expiry: a holder that crashes leaves it, and everybody else waits for \
        ever. (With a lease they wait only that long.)",
    setup: "two replicas; the one that holds the lock is ended with kill -9 in the middle of an order; first \
        with lease = \"never\" and an operator, then with a lease of 2 s",
    needs: &[],
    run: || Box::pin(run()),
};

const LEASE: Duration = Duration::from_secs(2);

async fn run() -> anyhow::Result<Observation> {
    let mut observation = Observation::default();
    let blocked = without_expiry(&mut observation).await?;
    let waited = with_lease(&mut observation).await?;
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
async fn without_expiry(observation: &mut Observation) -> anyhow::Result<bool> {
    observation.timeline.note("lease = \"never\"");
    let plan = FleetPlan::new(StrategyName::Database, 2)?
        .with("lock.database.lease", "never")
        .with("lock.wait", "1s")
        .with("checkout.think_time", "1s");
    let mut fleet = Fleet::start(plan).await?;
    let survivor = crash_while_holding(&mut fleet, observation).await?;
    let mut blocked = true;
    for buyer in ["B", "C"] {
        let told = order(&survivor, buyer, 1).await?;
        observation.timeline.note_reply(buyer, &told);
        blocked &= told.is(&ProblemKind::LockTimeout);
    }
    let table = fleet.lock_table().await?;
    let record = table.holders().await?.into_iter().find(is_of("replica-1"));
    let token = record.and_then(|record| record.token).context("the dead holder's record is gone")?;
    blocked &= table.delete_record(token).await?;
    observation.timeline.note("the operator deletes the record");
    let told = order(&survivor, "D", 1).await?;
    observation.timeline.note_reply("D", &told);
    blocked &= told.order().is_some();
    Ok(blocked)
}

/// Returns how long after the crash the next order had the lock.
async fn with_lease(observation: &mut Observation) -> anyhow::Result<Duration> {
    observation.timeline.note("lease = \"2s\"");
    let plan = FleetPlan::new(StrategyName::Database, 2)?
        .with("lock.database.lease", "2s")
        .with("lock.wait", "10s")
        .with("server.request_timeout", "20s")
        .with("checkout.think_time", "1s");
    let mut fleet = Fleet::start(plan).await?;
    let table = fleet.lock_table().await?;
    let survivor = crash_while_holding(&mut fleet, observation).await?;
    let crashed = Instant::now();
    let (told, taken) = tokio::join!(order(&survivor, "B", 1), async {
        until_held(&table, is_of("replica-2")).await?;
        observation.timeline.note("replica-2 has the lock");
        anyhow::Ok(crashed.elapsed())
    });
    observation.timeline.note_reply("B", &told?);
    let waited = taken?;
    Ok(waited)
}

/// Ends the first replica while it holds the lock. Returns a client of the second.
async fn crash_while_holding(
    fleet: &mut Fleet,
    observation: &mut Observation,
) -> anyhow::Result<crate::client::Client> {
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    first.create_product(SKU, "Hair dryer", 5).await?;
    let table = fleet.lock_table().await?;
    observation.timeline.note("A orders from replica-1");
    let abandoned = tokio::spawn(async move { order(&first, "A", 1).await });
    until_held(&table, is_of("replica-1")).await?;
    fleet.replicas()[0].kill().await?;
    observation.timeline.note("replica-1 has the lock, and is ended with kill -9");
    // The connection broke with the replica; what A makes of that is no matter here.
    abandoned.await?.ok();
    Ok(second)
}
