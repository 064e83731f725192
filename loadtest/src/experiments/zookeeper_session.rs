//! The holder's session ends while it is still at work.

use lab::{Direction, ServerKind};
use order_service::config::StrategyName;

use super::event::{EventKind, Party};
use super::fixtures::{Aftermath, TwoAtOnce};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "zookeeper-session",
    title: "The session ends while its holder is still at work",
    claim: "(Readers:) the connection breaks while the order is still being processed; the node goes; \
        another gets the lock; two work at once. Guard off, guard on.",
    setup: "two replicas, sessions of 1 s, orders that take 3 s; two in stock, A wants 1 and B wants 2; when \
        replica-1 has the lock, nothing passes between it and ZooKeeper any more, until B has been answered; \
        without and with the guard",
    advice: Advice::if_reproduced(
        "A lock in ZooKeeper is a lease, too: a holder that is cut off may still write. Stop working \
         when the session is lost, and let the write check a version or a fencing token all the same.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let unguarded = shop("off", &observation.timeline.scene("guard off")).await?;
    let guarded = shop("version", &observation.timeline.scene("guard on")).await?;
    observation.figure("guard off", unguarded.figure());
    observation.figure("guard on", guarded.figure());
    observation.observed = format!(
        "A's node went with her session and B had the lock while A was at work; {} were sold of 2 without \
         the guard, {} with it",
        unguarded.audit.units_sold, guarded.audit.units_sold
    );
    observation.explanation = Some(
        "The server ends a session on its own clock and cannot ask the holder to stop first. So ZooKeeper's \
         lock is a lease, too, and needs the same protection where it matters: the write is refused when the \
         lease is over or the stock has changed since it was read."
            .into(),
    );
    let occurred = unguarded.occurred() && guarded.occurred();
    let as_claimed = unguarded.oversold() && guarded.guarded();
    observation.finding = occurred.then_some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

async fn shop(guard: &str, timeline: &Timeline) -> anyhow::Result<Aftermath> {
    let mut plan = FleetPlan::new(StrategyName::Zookeeper, 2)?
        .with("lock.zookeeper.session_timeout", "1s")
        .with("lock.wait", "20s")
        .with("server.request_timeout", "25s")
        .with("checkout.think_time", "3s")
        .with("checkout.guard", guard);
    plan.proxied = true;
    let fleet = Fleet::start(plan).await?;
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let link = &fleet.links_of(0).to(ServerKind::Zookeeper)[0];
    let mut stage = TwoAtOnce::begin(first, second, timeline).await?;
    link.blackhole(Direction::ToServer);
    link.blackhole(Direction::ToClient);
    let what = "replica-1 and ZooKeeper do not reach each other any more";
    timeline.mark(EventKind::Broken, &Party::holder("replica-1"), "cut off from ZooKeeper", what);
    stage.b_orders(timeline).await?;
    // A connection that was silent for so long does not come back; its packets would.
    link.cut();
    link.heal();
    timeline.mark(
        EventKind::Mended,
        &Party::holder("replica-1"),
        "link is back",
        "they reach each other again",
    );
    let aftermath = stage.end(timeline).await?;
    fleet.stop().await?;
    Ok(aftermath)
}
