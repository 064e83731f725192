//! The lock lapses under a holder that works longer than it.

use lab::ServerKind;
use order_service::config::StrategyName;

use super::event::{EventKind, Party};
use super::fixtures::{Aftermath, TwoAtOnce};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-expiry",
    title: "The lock expires while its holder is still at work",
    claim: "The expiry is not reliable: the holder may work longer than it (a slow order, a memory \
        collection); the lock is released under it, and two are in at once.",
    setup: "two replicas, lease 1 s, orders that take 2.5 s (1 s where a process is stopped); two in stock, \
        A wants 1 and B wants 2. Without renewal; with renewal; and with renewal, but the whole process \
        stopped (SIGSTOP) until B has been answered, without and with the guard",
    advice: Advice::if_reproduced(
        "No expiry is long enough for a process that may be paused. Renew the lease, which helps \
         against slow work; and let the write check a version or a fencing token, which is what \
         refused the late write here.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let timeline = &observation.timeline;
    let unrenewed = shop(false, "off", false, &timeline.scene("renewal off, guard off")).await?;
    let renewed = shop(true, "off", false, &timeline.scene("renewal on, guard off")).await?;
    let stopped = timeline.scene("renewal on, replica-1 is stopped, guard off");
    let paused = shop(true, "off", true, &stopped).await?;
    let stopped = timeline.scene("renewal on, replica-1 is stopped, guard on");
    let guarded = shop(true, "version", true, &stopped).await?;
    for (name, aftermath) in [
        ("renewal off, guard off", &unrenewed),
        ("renewal on, guard off", &renewed),
        ("renewal on, stopped, guard off", &paused),
        ("renewal on, stopped, guard on", &guarded),
    ] {
        observation.figure(name, aftermath.figure());
    }
    let kept = !renewed.overlapped && renewed.audit.oversold_units == 0;
    observation.observed = format!(
        "without renewal the lock lapsed under A and {} were sold of 2; with renewal {}; a process that was \
         stopped cannot renew: {} were sold of 2 without the guard, {} with it",
        unrenewed.audit.units_sold,
        if kept { "she kept it" } else { "she lost it all the same" },
        paused.audit.units_sold,
        guarded.audit.units_sold,
    );
    observation.explanation = Some(
        "Renewal is the answer to a slow order, since a lease then lasts for as long as its holder lives. It \
         is none to a process that stands still: no lease can tell that from a crash. There only the store \
         can refuse what was decided on an old reading, which is what the guard does."
            .into(),
    );
    let occurred = unrenewed.occurred() && paused.occurred() && guarded.occurred();
    let as_claimed = unrenewed.oversold() && kept && paused.oversold() && guarded.guarded();
    observation.finding = occurred.then_some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

async fn shop(renews: bool, guard: &str, is_stopped: bool, timeline: &Timeline) -> anyhow::Result<Aftermath> {
    let plan = FleetPlan::new(StrategyName::Redis, 2)?
        .with("lock.redis.lease", "1s")
        .with("lock.redis.renew", if renews { "true" } else { "false" })
        .with("lock.wait", "20s")
        .with("server.request_timeout", "25s")
        .with("checkout.think_time", if is_stopped { "1s" } else { "2500ms" })
        .with("checkout.guard", guard);
    let mut fleet = Fleet::start(plan).await?;
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    let mut stage = TwoAtOnce::begin(&first, &second, timeline).await?;
    if is_stopped {
        fleet.replicas()[0].pause()?;
        let what = "replica-1 is stopped in its tracks";
        timeline.mark(EventKind::Paused, &Party::holder("replica-1"), "stopped", what);
    }
    stage.b_orders(timeline).await?;
    if is_stopped {
        fleet.replicas()[0].resume()?;
        timeline.mark(EventKind::Resumed, &Party::holder("replica-1"), "goes on", "replica-1 goes on");
    }
    let aftermath = stage.end(timeline).await?;
    fleet.stop().await?;
    Ok(aftermath)
}
