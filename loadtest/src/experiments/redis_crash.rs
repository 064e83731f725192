//! The holder dies between its order and the deletion of its key.

use std::time::{Duration, Instant};

use lab::{Direction, Redis, ServerKind};
use order_service::config::StrategyName;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, SKU, order, seconds, until_holds, watch_crash};
use super::redis_setnx::lock_key;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-crash",
    title: "A holder dies before it deletes its key",
    claim: "Server1 finishes B's order and dies before it deletes the key; Server3 can go on only when the \
        expiry is over (30 minutes in the course).",
    setup: "two replicas, lease 2 s; as soon as replica-1 has the lock nothing that it sends arrives at \
        Redis any more; its order goes into the database, and it is ended with kill -9: the key is still \
        there",
    advice: Advice::if_reproduced(
        "The expiry is how long everybody waits after a crash. Make it a few seconds and renew it \
         while you work, rather than half an hour to be on the safe side.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

const LEASE: Duration = Duration::from_secs(2);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let mut plan = FleetPlan::new(StrategyName::Redis, 2)?
        .with("lock.redis.lease", "2s")
        .with("lock.wait", "20s")
        .with("server.request_timeout", "25s")
        .with("checkout.think_time", "300ms");
    plan.proxied = true;
    let mut fleet = Fleet::start(plan).await?;
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    first.create_product(SKU, "Hair dryer", 5).await?;
    let timeline = &observation.timeline;
    let watch = HoldWatch::start(timeline, fleet.clients()).await?;
    timeline.orders("A", 1, "replica-1");
    let ordering = tokio::spawn(async move { order(&first, "A", 1).await });
    until_holds(&second, "replica-1").await?;
    let link = &fleet.links_of(0).to(ServerKind::Redis)[0];
    link.blackhole(Direction::ToServer);
    let what = "replica-1 has the lock; what it sends to Redis is lost from here on";
    timeline.mark(EventKind::Broken, &Party::holder("replica-1"), "no way to Redis", what);
    let told = ordering.await??;
    watch.look().await;
    timeline.note_reply("A", &told);
    fleet.replicas()[0].kill().await?;
    let crashed = Instant::now();
    let redis: &Redis = fleet.servers().find().expect("the strategy needs one");
    let left: i64 = redis.command(&["PTTL", &lock_key()]).await?.parse()?;
    timeline.crashed("replica-1", format!("replica-1 is ended with kill -9; its key has {left} ms to live"));
    let waited = watch_crash(&second, crashed, timeline, &watch).await?;

    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    observation.figure("the lease", seconds(LEASE));
    observation.figure("left of it at the crash, by Redis", seconds(left));
    observation.figure("from the crash to the next holder", seconds(waited));
    observation.observed =
        format!("the next order had the lock {} after the crash, when the expiry was over", seconds(waited));
    observation.explanation = Some(
        "The course's thirty minutes are the price of a long expiry, not of Redis: a holder that renews its \
         lease while it works can have a short one, so that a crash costs seconds. The order itself was not \
         lost: it was committed before the crash."
            .into(),
    );
    let waited_for_expiry = waited + Duration::from_millis(50) >= left;
    let no_longer = waited <= left + Duration::from_secs(1);
    observation.finding = (told.order().is_some() && !left.is_zero())
        .then_some(if waited_for_expiry && no_longer { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}
